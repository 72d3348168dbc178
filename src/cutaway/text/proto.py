"""The few fields of a sentencepiece model file that its own library does not tell us, read from the wire format.

A `.model` file is a Protocol Buffers message `ModelProto` (sentencepiece_model.proto): field 1 is a repeated
`SentencePiece` (piece 1, score 2, type 3), field 2 the `TrainerSpec` (model_type 3, byte_fallback 35, unk_id 40,
bos_id 41, eos_id 42, pad_id 43), field 3 the `NormalizerSpec` (precompiled_charsmap 2, add_dummy_prefix 3,
remove_extra_whitespaces 4). Reading them takes thirty lines, which spares a dependency on a protobuf runtime.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from cutaway.errors import TokenizerError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM, BPE = 1, 2
_T = TypeVar("_T")


class Piece(NamedTuple):
    """One entry of the vocabulary: its text (spaces written as `▁`), log-probability or merge score, and kind."""

    text: str
    score: float
    kind: int = NORMAL


@dataclass(frozen=True)
class SentencePieceModel:
    """What of a `ModelProto` decides how text is cut. `unk`, `bos`, `eos`, `pad` are ids, -1 where there is none."""

    pieces: list[Piece]
    algorithm: int = UNIGRAM
    byte_fallback: bool = False
    unk: int = 0
    bos: int = 1
    eos: int = 2
    pad: int = -1
    charsmap: bytes = field(default=b"", repr=False)
    add_dummy_prefix: bool = True
    remove_extra_spaces: bool = True


def read_model(data: bytes, name: str) -> SentencePieceModel:
    """The model in the bytes of a `.model` file; `TokenizerError` naming `name` where they are none."""
    pieces: list[Piece] = []
    trainer: dict[int, object] = {}
    normalizer: dict[int, object] = {}
    try:
        for number, value in _fields(data):
            entries = dict(_fields(_expect(value, bytes))) if number in (1, 2, 3) else {}
            if number == 1:
                text = _expect(entries.get(1, b""), bytes).decode("utf-8")
                score = struct.unpack("<f", _expect(entries.get(2, b"\0\0\0\0"), bytes))[0]
                pieces.append(Piece(text, score, _expect(entries.get(3, NORMAL), int)))
            elif number == 2:
                trainer |= entries
            elif number == 3:
                normalizer |= entries
        if not pieces:
            raise ValueError("it holds no pieces")
        return SentencePieceModel(
            pieces,
            algorithm=_expect(trainer.get(3, UNIGRAM), int),
            byte_fallback=bool(trainer.get(35, 0)),
            unk=_signed(trainer.get(40, 0)),
            bos=_signed(trainer.get(41, 1)),
            eos=_signed(trainer.get(42, 2)),
            pad=_signed(trainer.get(43, (1 << 64) - 1)),
            charsmap=_expect(normalizer.get(2, b""), bytes),
            add_dummy_prefix=bool(normalizer.get(3, 1)),
            remove_extra_spaces=bool(normalizer.get(4, 1)),
        )
    except (ValueError, struct.error) as problem:
        raise TokenizerError(
            f"{name} is not a sentencepiece model ({problem}); fetch the file again, it may be cut short."
        ) from None


def write_model(model: SentencePieceModel) -> bytes:
    """The bytes of a `.model` file that sentencepiece loads as `model`."""
    parts = []
    for piece in model.pieces:
        entry = _chunk(1, piece.text.encode("utf-8")) + b"\x15" + struct.pack("<f", piece.score)
        parts.append(_chunk(1, entry + _number(3, piece.kind)))
    trainer = _number(3, model.algorithm) + _number(35, model.byte_fallback)
    for number, index in zip((40, 41, 42, 43), (model.unk, model.bos, model.eos, model.pad), strict=True):
        trainer += _number(number, index)
        if index >= 0:  # the library looks the four up by their text, which is another field
            trainer += _chunk(number + 5, model.pieces[index].text.encode("utf-8"))
    normalizer = _chunk(1, b"identity") + _chunk(2, model.charsmap)
    normalizer += _number(3, model.add_dummy_prefix) + _number(4, model.remove_extra_spaces)
    return b"".join(parts) + _chunk(2, trainer) + _chunk(3, normalizer)


def without_dummy_prefix(data: bytes) -> bytes:
    """The same model, adding no space before the text: a repeated message is merged into the earlier one."""
    return data + _chunk(3, _number(3, 0))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 2, 5):
            size, at = _varint(data, at) if kind == 2 else ((8 if kind == 1 else 4), at)
            if size > len(data) - at:
                raise ValueError(f"a field of {size} bytes runs past the end")
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"unknown wire type {kind}")
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends in the middle of a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number is longer than 64 bits")


def _expect(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise ValueError(f"a field holds {type(value).__name__} where {kind.__name__} belongs")
    return value


def _signed(value: object) -> int:
    number = _expect(value, int) & 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number


def _number(number: int, value: int) -> bytes:
    return _encode_varint(number << 3) + _encode_varint(value & 0xFFFFFFFFFFFFFFFF)


def _chunk(number: int, value: bytes) -> bytes:
    return _encode_varint(number << 3 | 2) + _encode_varint(len(value)) + value


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)

"""The GGUF container: a header of typed fields, a table of tensors, then their bytes (ggml's `docs/gguf.md`, version 3).

Written for hostile files: every count is compared with the bytes that are left before anything is made of it.
"""

import struct
import sys
from array import array
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from cutaway.checkpoints.stored import File
from cutaway.errors import CheckpointError

LARGEST_HEADER = 256 << 20  # a vocabulary of a million long words takes a tenth of it
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# ggml's number of a type: its name, numbers in a block, bytes of a block
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
}  # fmt: skip


class Info(NamedTuple):
    """Where a tensor lies and what it is kept as."""

    kind: str
    shape: tuple[int, ...]
    offset: int  # from the start of the file
    size: int  # bytes


class _Reader:
    """A cursor over the header's bytes, which are read as they are needed."""

    def __init__(self, file: File):
        self.file, self.data, self.at = file, file.bytes(0, 1 << 20), 0

    def need(self, count: int, what: str) -> None:
        end = self.at + count
        if end > min(self.file.size, LARGEST_HEADER):
            raise CheckpointError(
                f"{self.file.path}: {what} claims {count} bytes, more than the file's header can hold"
            )
        if end > len(self.data):
            self.data += self.file.bytes(len(self.data), max(end, 2 * len(self.data)) - len(self.data))

    def number(self, code: str, what: str) -> Any:
        size = struct.calcsize("<" + code)
        self.need(size, what)
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += size
        return value

    def text(self, what: str) -> str:
        length = self.number("Q", what)
        self.need(length, what)
        raw = self.data[self.at : self.at + length]
        self.at += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.file.path}: {what} is not valid UTF-8") from error

    def value(self, kind: int, what: str) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind], what)
        if kind == STRING:
            return self.text(what)
        if kind != ARRAY:
            raise CheckpointError(f"{self.file.path}: {what} is of an unknown type ({kind})")
        kind, count = self.number("I", what), self.number("Q", what)
        if kind in SCALARS:
            return self._numbers(SCALARS[kind], count, what)
        if kind != STRING:
            raise CheckpointError(f"{self.file.path}: {what} is a list of an unknown type ({kind})")
        self.need(8 * count, what)  # each string needs at least its length
        return [self.text(what) for _ in range(count)]

    def _numbers(self, code: str, count: int, what: str) -> Any:
        size = struct.calcsize("<" + code) * count
        self.need(size, what)
        found = array("B" if code == "?" else code)
        found.frombytes(self.data[self.at : self.at + size])
        if sys.byteorder == "big":
            found.byteswap()
        self.at += size
        return found


def read(path: Path) -> tuple[dict[str, Any], dict[str, Info], File]:
    """The fields and the tensors of a GGUF file; lists of numbers come as `array.array`.

    Raises:
        CheckpointError: it is no GGUF file, it is cut off, or its header describes something else than this file.
    """
    file = File(path)
    reader = _Reader(file)
    if reader.data[:4] != b"GGUF":
        raise CheckpointError(f"{path} is no GGUF file")
    reader.at = 4
    version = reader.number("I", "the version")
    if version not in (2, 3):
        order = "big-endian GGUF" if version & 0xFFFF == 0 else f"GGUF version {version}"
        raise CheckpointError(f"{path} is {order}; versions 2 and 3, little-endian, are read")
    tensors, count = reader.number("Q", "the number of tensors"), reader.number("Q", "the number of fields")
    reader.need(24 * tensors + 12 * count, "the header")  # the least that so many would need
    fields: dict[str, Any] = {}
    for _ in range(count):
        key = reader.text("a field's name")
        if key in fields:
            raise CheckpointError(f"{path} gives {key} twice")
        fields[key] = reader.value(reader.number("I", key), key)
    infos = dict(_info(reader, path) for _ in range(tensors))
    if len(infos) != tensors:
        raise CheckpointError(f"{path} gives two tensors the same name")
    alignment = fields.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment % 8:
        raise CheckpointError(f"{path}: general.alignment cannot be {alignment!r}")
    base = -(-reader.at // alignment) * alignment
    placed = {name: info._replace(offset=base + info.offset) for name, info in infos.items()}
    _check_places(placed, alignment, base, file)
    return fields, placed, file


def _info(reader: _Reader, path: Path) -> tuple[str, Info]:
    name = reader.text("a tensor's name")
    rank = reader.number("I", name)
    if not 1 <= rank <= 4:
        raise CheckpointError(f"{path}: {name} has {rank} axes; between 1 and 4 are possible")
    shape = tuple(reader.number("Q", name) for _ in range(rank))  # the fastest axis first
    number, offset = reader.number("I", name), reader.number("Q", name)
    if number not in TYPES:
        known = ", ".join(kind for kind, _, _ in TYPES.values())
        raise CheckpointError(f"{path}: {name} is of ggml type {number}, which is not read; these are: {known}")
    kind, block, size = TYPES[number]
    if shape[0] % block or not prod(shape):
        raise CheckpointError(f"{path}: {name} of type {kind} cannot have rows of {shape[0]}, which is no whole block")
    return name, Info(kind, shape[::-1], offset, prod(shape) // block * size)


def _check_places(infos: dict[str, Info], alignment: int, base: int, file: File) -> None:
    reached = base
    for name, info in sorted(infos.items(), key=lambda item: item[1].offset):
        if info.offset % alignment or info.offset < reached:
            raise CheckpointError(
                f"{file.path}: {name} lies over another tensor, or is not aligned to {alignment} bytes"
            )
        reached = info.offset + info.size
        if reached > file.size:
            raise CheckpointError(
                f"{file.path} is cut off: {name} ends at byte {reached} of {file.size}; fetch it again"
            )

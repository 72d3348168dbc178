"""ggml's block formats back to float32 (layouts: ggml's `ggml-common.h`; arithmetic: `ggml-quants.c`).

Each function takes blocks (n, bytes) uint8 and gives (n, numbers) float32, with the operations in the reference's order,
so that results are equal bit for bit. `q` are the small integers, `d` and `m` a block's scale and offset. In numpy: on
pieces as small as these, torch's threads spend longer waiting for each other than working.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cutaway.checkpoints.gguf_header import TYPES, Info
from cutaway.checkpoints.stored import File, Stored

NUMBERS = 1 << 17  # decoded at a time: its intermediate results stay in the processor's cache
Bytes = NDArray[Any]  # uint8 (numpy's own types lose track of it on the way)
Floats = NDArray[np.float32]
EIGHT = np.arange(8, dtype=np.uint8)[:, None]
FOUR = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]


class Quantised(Stored):
    """A tensor of blocks; decodes to float32 piece by piece."""

    def __init__(self, info: Info, file: File):
        super().__init__(info.shape, torch.float32, file.path)
        self.info, self.file = info, file

    def pieces(self) -> Iterator[torch.Tensor]:
        block, size = next((block, size) for kind, block, size in TYPES.values() if kind == self.info.kind)
        total = prod(self.shape) // block
        buffer = torch.empty((min(total, NUMBERS // block), size), dtype=torch.uint8)
        for start in range(0, total, len(buffer)):
            blocks = buffer[: total - start]
            self.file.into(blocks.view(-1), self.info.offset + start * size)
            with np.errstate(all="ignore"):  # a scale that is not finite is found out later, by name
                yield torch.from_numpy(DECODERS[self.info.kind](blocks.numpy()).reshape(-1))


def _half(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of each block, (n, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes, run: int = 16) -> Bytes:
    """Bytes holding two 4-bit numbers each, (n, b) to (n, 2b): in every run the low halves, then the high ones."""
    runs = packed.reshape(len(packed), -1, 1, run)
    return np.concatenate([runs & 15, runs >> 4], 2).reshape(len(packed), -1)


def _pairs(packed: Bytes) -> Bytes:
    """Bytes holding four 2-bit numbers each, (n, b) to (n, 4b), in runs of 32 bytes."""
    return ((packed.reshape(len(packed), -1, 1, 32) >> FOUR) & 3).reshape(len(packed), -1)


def _planes(packed: Bytes) -> Bytes:
    """(n, 32) bytes to (n, 256): the lowest bit of each, then the next, …"""
    return ((packed[:, None] >> EIGHT) & 1).reshape(len(packed), -1)


def _bits(packed: Bytes) -> Bytes:
    """(n, b) bytes to (n, 8b) bits, each byte's lowest first."""
    return np.unpackbits(packed, axis=1, bitorder="little")


def _float(q: NDArray[Any]) -> Floats:
    return q.astype(np.float32)


def _q4_0(b: Bytes) -> Floats:
    return _half(b, 0) * (_float(_nibbles(b[:, 2:])) - 8)


def _q4_1(b: Bytes) -> Floats:
    out = _half(b, 0) * _nibbles(b[:, 4:])
    return np.add(out, _half(b, 2), out=out)


def _q5_0(b: Bytes) -> Floats:
    q = _nibbles(b[:, 6:]) | (_bits(b[:, 2:6]) << 4)
    return _half(b, 0) * (_float(q) - 16)


def _q5_1(b: Bytes) -> Floats:
    q = _nibbles(b[:, 8:]) | (_bits(b[:, 4:8]) << 4)
    return _half(b, 0) * q + _half(b, 2)


def _q8_0(b: Bytes) -> Floats:
    return _half(b, 0) * b[:, 2:].view(np.int8)


def _scaled(q: NDArray[Any], d: Floats, m: Floats | None = None) -> Floats:
    """d·q − m, where d and m (n, s) belong to s runs of equal length."""
    out = d[:, :, None] * q.reshape(*d.shape, -1)
    return (out if m is None else np.subtract(out, m[:, :, None], out=out)).reshape(len(q), -1)


def _q2_k(b: Bytes) -> Floats:
    scales = b[:, :16]
    return _scaled(_pairs(b[:, 16:80]), _half(b, 80) * (scales & 15), _half(b, 82) * (scales >> 4))


def _q3_k(b: Bytes) -> Floats:
    scales = b[:, 96:108]
    q = _pairs(b[:, 32:96]).view(np.int8) - ((_planes(b[:, :32]) ^ 1) << 2).view(np.int8)
    upper = np.concatenate([(scales[:, 8:] >> shift) & 3 for shift in (0, 2, 4, 6)], 1)  # (n, 16)
    s = (_nibbles(scales[:, :8], 8) | (upper << 4)).view(np.int8) - np.int8(32)
    return _scaled(q, _half(b, 108) * s)


def _six_bits(packed: Bytes) -> tuple[Bytes, Bytes]:
    """(n, 12) bytes to eight 6-bit scales and eight 6-bit offsets, (n, 8) each."""
    d, m, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scale = np.concatenate([d & 63, (rest & 15) | ((d >> 2) & 48)], 1)
    offset = np.concatenate([m & 63, (rest >> 4) | ((m >> 2) & 48)], 1)
    return scale, offset


def _q4_k(b: Bytes) -> Floats:
    scale, offset = _six_bits(b[:, 4:16])
    return _scaled(_nibbles(b[:, 16:], 32), _half(b, 0) * scale, _half(b, 2) * offset)


def _q5_k(b: Bytes) -> Floats:
    scale, offset = _six_bits(b[:, 4:16])
    q = _nibbles(b[:, 48:], 32) | (_planes(b[:, 16:48]) << 4)
    return _scaled(q, _half(b, 0) * scale, _half(b, 2) * offset)


def _q6_k(b: Bytes) -> Floats:
    q = (_nibbles(b[:, :128], 64) | (_pairs(b[:, 128:192]) << 4)).view(np.int8) - np.int8(32)
    return _scaled(q, _half(b, 208) * b[:, 192:208].view(np.int8))


DECODERS: dict[str, Callable[[Bytes], Floats]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
}  # fmt: skip

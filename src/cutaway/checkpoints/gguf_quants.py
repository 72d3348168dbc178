"""ggml's block formats back to float32 (layouts: ggml's `ggml-common.h`; arithmetic: `ggml-quants.c`).

Each function takes blocks (n, bytes) uint8 and gives (n, numbers) float32, with the operations in the reference's order,
so that results are equal bit for bit. `q` are the small integers, `d` and `m` a block's scale and offset.
"""

from collections.abc import Callable, Iterator
from math import prod

import torch
from torch import Tensor

from cutaway.checkpoints.gguf_header import TYPES, Info
from cutaway.checkpoints.stored import File, Stored

NUMBERS = 1 << 19  # decoded at a time: its intermediate results stay in the processor's cache


class Quantised(Stored):
    """A tensor of blocks; decodes to float32 piece by piece."""

    def __init__(self, info: Info, file: File):
        super().__init__(info.shape, torch.float32, file.path)
        self.info, self.file = info, file

    def pieces(self) -> Iterator[Tensor]:
        block, size = next((block, size) for kind, block, size in TYPES.values() if kind == self.info.kind)
        total = prod(self.shape) // block
        buffer = torch.empty((min(total, NUMBERS // block), size), dtype=torch.uint8)
        for start in range(0, total, len(buffer)):
            blocks = buffer[: total - start]
            self.file.into(blocks.view(-1), self.info.offset + start * size)
            yield DECODERS[self.info.kind](blocks).view(-1)


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte `at` of each block, (n, 1)."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """(n, 16) bytes to (n, 32): all the low halves, then all the high ones."""
    return torch.cat([packed & 15, packed >> 4], 1)


def _bits(packed: Tensor) -> Tensor:
    """(n, b) bytes to (n, 8b) bits, the lowest first."""
    return ((packed[:, :, None] >> torch.arange(8, dtype=torch.uint8)) & 1).flatten(1)


def _q4_0(b: Tensor) -> Tensor:
    return _half(b, 0) * (_nibbles(b[:, 2:]).float() - 8)


def _q4_1(b: Tensor) -> Tensor:
    return (_half(b, 0) * _nibbles(b[:, 4:]).float()).add_(_half(b, 2))


def _q5_0(b: Tensor) -> Tensor:
    q = _nibbles(b[:, 6:]) | (_bits(b[:, 2:6]) << 4)
    return _half(b, 0) * (q.float() - 16)


def _q5_1(b: Tensor) -> Tensor:
    q = _nibbles(b[:, 8:]) | (_bits(b[:, 4:8]) << 4)
    return (_half(b, 0) * q.float()).add_(_half(b, 2))


def _q8_0(b: Tensor) -> Tensor:
    return b[:, 2:].view(torch.int8).float().mul_(_half(b, 0))


def _pairs(packed: Tensor, run: int = 32) -> Tensor:
    """Bytes holding four 2-bit numbers each, in runs of 32 bytes: (n, b) to (n, 4b)."""
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    return ((packed.unflatten(1, (-1, 1, run)) >> shifts) & 3).flatten(1)


def _scaled(q: Tensor, d: Tensor, m: Tensor | None = None) -> Tensor:
    """d·q − m, where d and m (n, s) belong to s runs of equal length."""
    out = d[:, :, None] * q.float().unflatten(1, (d.shape[1], -1))
    return (out if m is None else out.sub_(m[:, :, None])).flatten(1)


def _q2_k(b: Tensor) -> Tensor:
    scales, q = b[:, :16], _pairs(b[:, 16:80])
    return _scaled(q, _half(b, 80) * (scales & 15).float(), _half(b, 82) * (scales >> 4).float())


def _q3_k(b: Tensor) -> Tensor:
    high, low, scales = b[:, :32], b[:, 32:96], b[:, 96:108]
    bits = ((high[:, None] >> torch.arange(8, dtype=torch.uint8)[:, None]) & 1).flatten(1)  # (n, 256)
    q = _pairs(low).to(torch.int8) - (bits ^ 1).to(torch.int8) * 4
    upper = torch.cat([(scales[:, 8:] >> shift) & 3 for shift in (0, 2, 4, 6)], 1)  # (n, 16)
    s = (torch.cat([scales[:, :8] & 15, scales[:, :8] >> 4], 1) | (upper << 4)).to(torch.int8) - 32
    return _scaled(q, _half(b, 108) * s.float())


def _six_bits(packed: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 12) bytes to eight 6-bit scales and eight 6-bit offsets, (n, 8) each."""
    d, m, rest = packed.split(4, 1)
    scale = torch.cat([d & 63, (rest & 15) | ((d >> 2) & 48)], 1)
    offset = torch.cat([m & 63, (rest >> 4) | ((m >> 2) & 48)], 1)
    return scale.float(), offset.float()


def _runs(packed: Tensor) -> Tensor:
    """(n, 128) bytes to (n, 256): in every run of 32 bytes the low halves, then the high ones."""
    run = packed.unflatten(1, (4, 1, 32))
    return torch.cat([run & 15, run >> 4], 2).flatten(1)


def _q4_k(b: Tensor) -> Tensor:
    scale, offset = _six_bits(b[:, 4:16])
    return _scaled(_runs(b[:, 16:]), _half(b, 0) * scale, _half(b, 2) * offset)


def _q5_k(b: Tensor) -> Tensor:
    scale, offset = _six_bits(b[:, 4:16])
    bits = ((b[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8)[:, None]) & 1).flatten(1)  # (n, 256)
    return _scaled(_runs(b[:, 48:]) | (bits << 4), _half(b, 0) * scale, _half(b, 2) * offset)


def _q6_k(b: Tensor) -> Tensor:
    low, high, scales = b[:, :128].unflatten(1, (2, 1, 64)), _pairs(b[:, 128:192]), b[:, 192:208]
    low = torch.cat([low & 15, low >> 4], 2).flatten(1)  # (n, 256)
    q = (low | (high << 4)).to(torch.int8) - 32
    return _scaled(q, _half(b, 208) * scales.view(torch.int8).float())


DECODERS: dict[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
}  # fmt: skip

"""Numbers in as few bytes as a picture needs: one byte each, deflated, in base64; the page undoes it in the browser.

Attention weights are coded as square roots (`byte = 255 sqrt(weight / high)`): most weights are small, and so keep two
digits (a step is 1/65,025 next to 0 and 1/128 next to 1). Where some are negative, as of a state space, the byte is 128 +
127 sqrt(|weight| / high) with the weight's sign. Other values are coded evenly between `low` and `high`.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from cutaway.inspection.patterns import Pattern, reading, scale_of, sums_to_one

BUDGET = 12_000_000  # cells one page holds in full; deflated this is some megabytes


def encode(values: np.ndarray, low: float, high: float) -> bytes:
    """Values between `low` and `high` to one byte each, evenly."""
    return _bytes(255 * (values - low) / ((high - low) or 1.0))


def encode_weights(values: np.ndarray, high: float, signed: bool) -> bytes:
    """Weights to one byte each, by their square roots."""
    root = np.sqrt(np.abs(values) / high)
    return _bytes(128 + 127 * np.sign(values) * root if signed else 255 * root)


def _bytes(codes: np.ndarray) -> bytes:
    return np.rint(codes).clip(0, 255).astype(np.uint8).tobytes()


def deflate(chunks: Iterable[bytes]) -> str:
    """Bytes to zlib to base64."""
    press = zlib.compressobj(9)
    return base64.b64encode(b"".join([*(press.compress(chunk) for chunk in chunks), press.flush()])).decode()


def pool(values: np.ndarray, step: int) -> np.ndarray:
    """(..., Q, K) to the largest of each step × step block (the last blocks may be smaller), whatever its sign."""
    if step == 1:
        return values
    rows, columns = (np.arange(0, size, step) for size in values.shape[-2:])

    def most(pick: np.ufunc) -> np.ndarray:
        return pick.reduceat(pick.reduceat(values, rows, axis=-2), columns, axis=-1)

    high = most(np.maximum)
    if values.min() >= 0:
        return high
    low = most(np.minimum)
    return np.where(-low > high, low, high)


def pack_pattern(pattern: Pattern, step: int) -> dict[str, Any]:
    """One kind of attention as the page reads it; layers are computed and pooled one by one."""
    proper, small = True, []
    for layer in pattern:
        proper = proper and sums_to_one(layer)
        small.append(pool(layer, step))
    signed, high = scale_of(small)
    return {
        "kind": pattern.kind,
        "name": pattern.name,
        "each": pattern.each,
        "layers": list(pattern.layers),
        "heads": list(pattern.heads),
        "q": list(pattern.q_tokens),
        "k": list(pattern.k_tokens),
        "step": step,
        "high": high,
        "signed": signed,
        "sentence": reading(proper, signed, pattern.note),
        "bytes": deflate(encode_weights(layer, high, signed) for layer in small),
    }


def pack_patterns(patterns: Iterable[Pattern]) -> list[dict[str, Any]]:
    """All kinds of attention; where they are too many numbers for a page, each block of tokens keeps its largest weight."""
    patterns = list(patterns)
    step = max(1, math.ceil(math.sqrt(sum(one.cells for one in patterns) / BUDGET)))
    return [pack_pattern(one, step) for one in patterns]

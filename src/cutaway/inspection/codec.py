"""Numbers in as few bytes as a picture needs: one byte each, deflated, in base64; the page undoes it in the browser.

Attention weights are coded as square roots (`byte = 255 sqrt(weight / high)`): most weights are small, and so keep two
digits (a step is 1/65,025 next to 0 and 1/128 next to 1). Signed values are coded evenly between `low` and `high`.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from cutaway.inspection.patterns import Pattern, sums_to_one

BUDGET = 12_000_000  # cells one page holds in full; deflated this is some megabytes


def encode(values: np.ndarray, low: float, high: float, root: bool) -> bytes:
    """Values between `low` and `high` to one byte each."""
    unit = (values - low) / ((high - low) or 1.0)
    return np.rint(255 * (np.sqrt(unit) if root else unit)).clip(0, 255).astype(np.uint8).tobytes()


def deflate(chunks: Iterable[bytes]) -> str:
    """Bytes to zlib to base64."""
    press = zlib.compressobj(9)
    return base64.b64encode(b"".join([*(press.compress(chunk) for chunk in chunks), press.flush()])).decode()


def pool(values: np.ndarray, step: int) -> np.ndarray:
    """(..., Q, K) to the largest of each step × step block (the last blocks may be smaller)."""
    if step == 1:
        return values
    rows, columns = (np.arange(0, size, step) for size in values.shape[-2:])
    return np.maximum.reduceat(np.maximum.reduceat(values, rows, axis=-2), columns, axis=-1)


def pack_pattern(pattern: Pattern, step: int) -> dict[str, Any]:
    """One kind of attention as the page reads it; layers are computed, coded and dropped one by one."""
    high, proper = 1.0, True

    chunks = []
    for layer in pattern:
        proper = proper and sums_to_one(layer)
        if layer.max() > high * 1.001:  # no softmax made these: code what came before on the new scale
            chunks = [_rescale(chunk, high, float(layer.max())) for chunk in chunks]
            high = float(layer.max())
        chunks.append(encode(pool(layer, step), 0.0, high, root=True))
    return {
        "kind": pattern.kind,
        "name": pattern.name,
        "layers": list(pattern.layers),
        "heads": list(pattern.heads),
        "q": list(pattern.q_tokens),
        "k": list(pattern.k_tokens),
        "step": step,
        "low": 0.0,
        "high": high,
        "root": True,
        "proper": proper,
        "bytes": deflate(chunks),
    }


def _rescale(chunk: bytes, old: float, new: float) -> bytes:
    codes = np.frombuffer(chunk, np.uint8).astype(np.float32) * math.sqrt(old / new)
    return np.rint(codes).astype(np.uint8).tobytes()


def pack_patterns(patterns: Iterable[Pattern]) -> list[dict[str, Any]]:
    """All kinds of attention; where they are too many numbers for a page, each block of tokens keeps its largest weight."""
    patterns = list(patterns)
    step = max(1, math.ceil(math.sqrt(sum(one.cells for one in patterns) / BUDGET)))
    return [pack_pattern(one, step) for one in patterns]

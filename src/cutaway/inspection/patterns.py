"""Attention weights in the one form that every picture takes: layers of heads of queries × keys, with their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cutaway.inspection.errors import PictureError
from cutaway.inspection.labels import labels

KINDS = {"self": "Self-attention", "cross": "Cross-attention", "encoder": "Encoder self-attention"}


def as_array(values: Any, what: str = "weights") -> np.ndarray:
    """Any array (numpy, torch on any device and dtype, nested lists) as finite float32.

    Raises:
        PictureError: not numeric, empty along some axis, or not finite.
    """
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    try:
        array = np.asarray(values).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise PictureError(f"the {what} are no array of numbers: {error}") from None
    if 0 in array.shape:
        raise PictureError(f"nothing to draw: the {what} have shape {array.shape}")
    if not np.isfinite(array).all():
        bad = tuple(int(axis) for axis in np.argwhere(~np.isfinite(array))[0])
        raise PictureError(f"the {what} of shape {array.shape} hold {array[bad]} at index {bad}")
    return array


def _check_weights(array: np.ndarray) -> np.ndarray:
    if array.min() < 0:
        bad = tuple(int(axis) for axis in np.argwhere(array < 0)[0])
        raise PictureError(
            f"weights of shape {array.shape} are negative ({array[bad]:.3g}) at index {bad}: "
            "give the weights after the softmax, not the scores"
        )
    return array


@dataclass(frozen=True)
class Pattern:
    """The attention of some layers: `layer(i)` gives (H, Q, K) float32 for the i-th of `layers`, computed when asked."""

    layer: Callable[[int], np.ndarray]
    layers: tuple[int, ...]  # their numbers in the model, from 0
    heads: tuple[int, ...]
    q_tokens: tuple[str, ...]  # visible labels, full length
    k_tokens: tuple[str, ...]
    kind: str = "self"
    each: str = "head"  # what a pattern belongs to: a head, or a group of channels
    note: str = ""  # a sentence more for the reader

    @property
    def name(self) -> str:
        return KINDS.get(self.kind, self.kind)

    @property
    def cells(self) -> int:
        return len(self.layers) * len(self.heads) * len(self.q_tokens) * len(self.k_tokens)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.layer(index) for index in range(len(self.layers)))

    def choose(self, layer: int | None = None, head: int | None = None) -> Pattern:
        """Only one layer, only one head, or both; their numbers are kept. Negative numbers count from the end."""
        chosen = self
        if layer is not None:
            at = _find(layer, self.layers, "layer")
            chosen = replace(chosen, layer=lambda _: self.layer(at), layers=(self.layers[at],))
        if head is not None:
            which = _find(head, self.heads, self.each)
            inner = chosen.layer
            chosen = replace(chosen, layer=lambda index: inner(index)[which : which + 1], heads=(self.heads[which],))
        return chosen


def _find(number: int, among: Sequence[int], what: str) -> int:
    if number in among:
        return among.index(number)
    if -len(among) <= number < 0:
        return len(among) + number
    known = f"{among[0]} to {among[-1]}" if len(among) > 1 else str(among[0])
    raise PictureError(f"there is no {what} {number}: this attention has {what} {known}")


def pattern(
    weights: Any,
    tokens: Iterable[object] | None = None,
    *,
    q_tokens: Iterable[object] | None = None,
    k_tokens: Iterable[object] | None = None,
    kind: str = "self",
) -> Pattern:
    """Check plain arrays and bring them into form.

    Args:
        weights: (Q, K), (H, Q, K) or (L, H, Q, K); or one (H, Q, K) or (1, H, Q, K) a layer in a list or tuple.
        tokens: for queries and keys alike (Q = K); `q_tokens` and `k_tokens` where they differ.

    Raises:
        PictureError: shapes that do not fit each other or the tokens, empty, negative or non-finite weights.
    """
    if isinstance(weights, (list, tuple)) and weights and getattr(weights[0], "ndim", 0) >= 3:
        layers = [as_array(one) for one in weights]
        layers = [one[0] if one.ndim == 4 and len(one) == 1 else one for one in layers]
        shapes = {one.shape for one in layers}
        if len(shapes) > 1 or layers[0].ndim != 3:
            raise PictureError(f"layers of shapes {sorted(shapes)}: each must be (H, Q, K) or (1, H, Q, K), all alike")
        array = np.stack(layers)
    else:
        array = as_array(weights)
    if not 2 <= array.ndim <= 4:
        raise PictureError(f"weights of shape {array.shape}: give (Q, K), (H, Q, K) or (L, H, Q, K)")
    shape = array.shape
    array = _check_weights(array).reshape((1,) * (4 - array.ndim) + shape)
    count_layers, count_heads, queries, keys = array.shape
    if tokens is not None:
        tokens = [tokens] if isinstance(tokens, (str, bytes)) else list(tokens)
    return Pattern(
        layer=lambda index: array[index],
        layers=tuple(range(count_layers)),
        heads=tuple(range(count_heads)),
        q_tokens=tuple(labels(tokens if q_tokens is None else q_tokens, queries, "query", shape)),
        k_tokens=tuple(labels(tokens if k_tokens is None else k_tokens, keys, "key", shape)),
        kind=kind,
    )


def reading(rows_sum_to_one: bool, signed: bool = False, note: str = "") -> str:
    """The sentence under every attention picture."""
    sums = "each row sums to 1" if rows_sum_to_one else "these rows do not all sum to 1"
    said = f"Row = the token that looks, column = the token looked at; {sums}."
    return " ".join(filter(None, [said, "Blue is negative, orange positive." if signed else "", note]))


def sums_to_one(layer: np.ndarray) -> bool:
    """Whether each row of (H, Q, K) sums to 1; rows with nothing to attend to are all zero and do not count."""
    sums = layer.sum(-1)
    return bool((np.abs(sums - 1) < 0.02)[layer.any(-1)].all())


def scale_of(layers: Iterable[np.ndarray]) -> tuple[bool, float]:
    """Whether some weights are negative, and which number the colours end at: 1 for a softmax, the largest otherwise."""
    low, high = (
        max(float(pick) for pick in picks) for picks in zip(*((-x.min(), x.max()) for x in layers), strict=True)
    )
    return (True, max(low, high)) if low > 0 else (False, max(1.0, high))

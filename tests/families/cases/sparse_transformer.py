"""The Sparse Transformer against its equations in plain words: dense attention under the sets of its paper."""

import math
from typing import Any

import torch
from tests.families import plain
from tests.families.case import Case
from tests.families.mutants import LAYER_EPSILON, SCALE, Mutant, each
from torch import Tensor, nn

from cutaway.attention import Causal, Mask
from cutaway.attention.masks import Both, Either, Window
from cutaway.attention.patterns import Local, PerHead, Stride, Summary
from cutaway.families import sparse_transformer
from cutaway.parts import Attention, FeedForward, GridPositions

TINY = {
    "vocab": 99,
    "width": 32,
    "layers": 4,
    "heads": 4,
    "head_width": 4,
    "hidden": 48,
    "grid": (4, 2, 3),
    "stride": 4,
    "summaries": 1,
}
SHARPEN = True  # its attention is peaked, by `spread`
BOTH = (0, 1)
# by variant: the sizes, and in each layer by turns what each head looks at: which factors, and the group of summaries
VARIANTS: dict[str, tuple[dict[str, Any], list[list[tuple[tuple[int, ...], int]]]]] = {
    "fixed, in different heads, two groups": (
        {"pattern": "fixed", "factors": "by heads", "groups": 2},
        [[((0,), 0), ((0,), 0), ((1,), 0), ((1,), 1)]],
    ),
    "strided, by turns": ({}, [[((0,), 0)] * 4, [((1,), 0)] * 4]),
    "strided, merged": ({"factors": "merged"}, [[(BOTH, 0)] * 4]),
    "strided, in different heads": ({"factors": "by heads"}, [[((0,), 0)] * 2 + [((1,), 0)] * 2]),
    "fixed, by turns": ({"pattern": "fixed", "stride": 5, "summaries": 2}, [[((0,), 0)] * 4, [((1,), 0)] * 4]),
    "fixed, merged, two groups": (
        {"pattern": "fixed", "factors": "merged", "groups": 2},
        [[(BOTH, 0)] * 2 + [(BOTH, 1)] * 2],
    ),
    "fixed, by turns, four groups": (
        {"pattern": "fixed", "groups": 4},
        [[((0,), 0)] * 4, [((1,), 0), ((1,), 1), ((1,), 2), ((1,), 3)]],
    ),
    "strided, body alone": ({"head": "none", "stride": 3}, [[((0,), 0)] * 4, [((1,), 0)] * 4]),
}
CASES = [Case("sparse_transformer", variant, "equations", sizes) for variant, (sizes, _) in VARIANTS.items()]


def sees(s: Any, which: int, group: int, i: int, j: int) -> bool:
    """Whether j is in the set of i (Child et al. 2019, sections 4.2 and 4.3)."""
    length, c = s.stride, s.summaries
    if j > i:
        return False
    if s.pattern == "strided":
        return j >= max(0, i - length) if which == 0 else (i - j) % length == 0
    if which == 0:
        return j // length == i // length
    return length - c * (group + 1) <= j % length < length - c * group


def mix(attention: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    s, looks = attention.paper
    tokens = range(len(x))
    allowed = torch.tensor([
        [[any(sees(s, which, group, i, j) for which in factors) for j in tokens] for i in tokens]
        for factors, group in looks
    ])  # fmt: skip
    logits = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~allowed, -torch.inf)
    return logits.softmax(-1).nan_to_num(0.0) @ v  # the first tokens of a text have no summary to look at


def reference(case: Case) -> nn.Module:
    made: Any = plain.reference(case, sparse_transformer, TINY, mix, "pre", spread=0.6)
    layers = VARIANTS[case.variant][1]
    for i, block in enumerate(made.ours.stack.blocks):
        sizes = sparse_transformer.Sizes(**{**TINY, **case.config})
        block.attention.inner.paper = sizes, layers[i % len(layers)]
    return made


counterpart, outputs = plain.counterpart, plain.outputs


def masks(change: Any) -> Mutant:
    """Changes every mask within the masks."""

    def inside(mask: Mask) -> Mask:
        if isinstance(mask, PerHead):
            return PerHead(tuple(map(inside, mask.masks)), mask.heads)
        if isinstance(mask, (Both, Either)):
            return type(mask)(inside(mask.a), inside(mask.b))
        return change(mask)

    return each(Attention, lambda a: setattr(a, "mask", inside(a.mask)))


def replaced(kind: type, make: Any) -> Mutant:
    return masks(lambda mask: make(mask) if isinstance(mask, kind) else mask)


def _unbias(feedforward: FeedForward) -> None:
    assert feedforward.up.bias is not None
    feedforward.up.bias.data.zero_()


MUTANTS = {
    "scale": SCALE,
    "mask": each(Attention, lambda a: setattr(a, "mask", Causal())),
    "a block longer": replaced(Local, lambda mask: Local(mask.size + 1)),
    "a summary more": replaced(Summary, lambda mask: Summary(mask.size, mask.count + 1)),
    "the same summaries for all": replaced(Summary, lambda mask: Summary(mask.size, mask.count)),
    "summaries at the beginning": replaced(Summary, lambda mask: Summary(mask.size, mask.count, mask.size - 1)),
    "one head more in the first factor": each(
        Attention, lambda a: setattr(a, "mask", PerHead(a.mask.masks[:2], (3, 1)))
    ),
    "bias of the feed-forward": each(FeedForward, _unbias),
    "activation": each(FeedForward, lambda f: setattr(f, "act", torch.nn.functional.gelu)),
    "layer norm epsilon": LAYER_EPSILON,
    "coordinates in the other order": each(
        GridPositions, lambda grid: setattr(grid, "tables", nn.ParameterList([*grid.tables][::-1]))
    ),
    "window of l": replaced(Window, lambda mask: Window(mask.size - 1)),
    "a longer stride": replaced(Stride, lambda mask: Stride(mask.step + 1)),
}
MUTATED = {"window of l": "strided, by turns", "a longer stride": "strided, merged"}

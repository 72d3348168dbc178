"""Linformer against its equations in plain words."""

import math
from typing import Any

from tests.families import plain
from tests.families.case import Case
from tests.families.mutants import BIAS, LAYER_EPSILON, POSITION, each, setting
from torch import Tensor, nn

from cutaway.families import linformer
from cutaway.parts import LowRankAttention

TINY = {"vocab": 99, "width": 32, "layers": 3, "heads": 4, "hidden": 48, "context": 40, "rank": 5}
CASES = [
    Case("linformer", "no sharing", "equations", {"sharing": "none"}),
    Case("linformer", "shared by heads", "equations", {"sharing": "headwise"}),
    Case("linformer", "shared by keys and values", "equations", {"sharing": "key-value"}),
    Case("linformer", "shared by layers", "equations", {"sharing": "layerwise"}),
    Case("linformer", "body alone, more than all", "equations", {"head": "none", "rank": 50}),
]


def mix(attention: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    e, f = (along.weight[..., : len(x), :].mT for along in (attention.along_k, attention.along_v))  # (R, T)
    return (q @ (e @ k).mT / math.sqrt(q.shape[-1])).softmax(-1) @ (f @ v)


def reference(case: Case) -> nn.Module:
    return plain.reference(case, linformer, TINY, mix, "post", 0.15)


counterpart, outputs = plain.counterpart, plain.outputs


def _swapped(attention: LowRankAttention) -> None:
    attention.along_k, attention.along_v = attention.along_v, attention.along_k


def _one_head_for_all(attention: LowRankAttention) -> None:
    for along in (attention.along_k, attention.along_v):
        along.weight.data = along.weight.data[:1].expand_as(along.weight).clone()


def _shifted(attention: LowRankAttention) -> None:
    attention.along_k.weight.data = attention.along_k.weight.data.roll(1, -2)


MUTANTS = {
    "scale": each(LowRankAttention, setting("scale", lambda scale: scale * 1.01)),
    "E and F": each(LowRankAttention, _swapped),
    "heads share": each(LowRankAttention, _one_head_for_all),
    "position off by one in E": each(LowRankAttention, _shifted),
    "position off by one": POSITION,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
}

"""The Synthesizer against its equations in plain words."""

import math
from typing import Any

import torch
from tests.families import plain
from tests.families.case import Case
from tests.families.mutants import LAYER_EPSILON, each, setting
from torch import Tensor, nn

from cutaway.attention import Causal, Full
from cutaway.families import synthesizer
from cutaway.parts import Synthesizer

TINY = {"vocab": 99, "width": 32, "layers": 2, "heads": 4, "hidden": 48, "context": 20, "encoder": False}
ALONE = ("dense", "factorised-dense", "random", "factorised-random")
CASES = [
    Case("synthesizer", "all of them", "equations", {"logits": "+".join([*ALONE, "dot"])}),
    *(Case("synthesizer", kind, "equations", {"logits": kind}) for kind in ALONE),
    Case("synthesizer", "random and dot", "equations", {"logits": "random+dot", "tied": False}),
    Case("synthesizer", "encoder-decoder", "equations", {"logits": "dense+random", "encoder": True}),
]


def mix(attention: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    length, made = len(x), attention.made

    def hidden(part: Any) -> Tensor:
        return plain.linear(part.hidden, x).relu().unflatten(1, (-1, attention.head_width)).transpose(0, 1)

    def logits(kind: str) -> Tensor:
        if kind == "dot":
            return q @ k.mT / math.sqrt(q.shape[-1])
        part = made[kind.replace("-", "_")]
        if kind == "dense":
            return (hidden(part) @ part.columns.weight)[..., :length]
        if kind == "random":
            return part.weight[:, :length, :length]
        if kind == "factorised-random":
            return (part.left @ part.right.mT)[:, :length, :length]
        a, b = hidden(part) @ part.a.weight, hidden(part) @ part.b.weight
        columns = [a[..., j % a.shape[-1]] * b[..., j // a.shape[-1]] for j in range(length)]
        return torch.stack(columns, -1)

    kinds = attention.kinds
    shares = [1.0] if len(kinds) == 1 else attention.mixture.exp() / attention.mixture.exp().sum()
    return plain.softmax(sum(s * logits(kind) for s, kind in zip(shares, kinds, strict=True)), causal) @ v


def reference(case: Case) -> nn.Module:
    return plain.reference(case, synthesizer, TINY, mix, "pre")


counterpart, outputs = plain.counterpart, plain.outputs


def _shares(attention: Synthesizer) -> None:
    assert attention.mixture is not None
    attention.mixture.data[0] += 0.01


def _transposed(attention: Synthesizer) -> None:
    attention.made["random"].weight.data = attention.made["random"].weight.data.mT.clone()


def _factors(attention: Synthesizer) -> None:
    part = attention.made["factorised_dense"]
    part.a, part.b = part.b, part.a


def _columns(attention: Synthesizer) -> None:
    columns = attention.made["dense"].columns
    columns.weight.data = columns.weight.data.roll(1, -1)


MUTANTS = {
    "scale": each(Synthesizer, setting("scale", lambda scale: scale * 1.01)),
    "mask": each(Synthesizer, setting("mask", lambda mask: Causal() if mask == Full() else Full())),
    "shares of the mixture": each(Synthesizer, _shares),
    "random logits the other way round": each(Synthesizer, _transposed),
    "tiling": each(Synthesizer, _factors),
    "columns off by one": each(Synthesizer, _columns),
    "layer norm epsilon": LAYER_EPSILON,
}

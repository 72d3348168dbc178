"""The Performer against its equations in plain words, with the same random features."""

import math
from typing import Any

import torch
from tests.families import plain
from tests.families.case import Case
from tests.families.mutants import BIAS, LAYER_EPSILON, each, setting
from torch import Tensor, nn

from cutaway.families import performer
from cutaway.parts import Favor, PerformerAttention

TINY = {"vocab": 99, "width": 32, "layers": 3, "heads": 4, "hidden": 48, "features": 20}
CASES = [
    Case("performer", "decoder", "equations"),
    Case("performer", "ReLU features", "equations", {"kernel": "relu"}),
    Case("performer", "encoder", "equations", {"causal": False, "head": "masked-lm"}),
    Case("performer", "few features", "equations", {"features": 3}),
]


def mix(attention: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    w = attention.features.projection

    def phi(y: Tensor) -> Tensor:
        y = y / q.shape[-1] ** 0.25
        if attention.features.kernel == "relu":
            return (y @ w.T).relu() + 1e-3
        return torch.exp(y @ w.T - (y**2).sum(-1, keepdim=True) / 2) / math.sqrt(len(w))

    return plain.divided(phi(q) @ phi(k).mT, causal) @ v


def reference(case: Case) -> nn.Module:
    return plain.reference(case, performer, TINY, mix, "pre")


counterpart, outputs = plain.counterpart, plain.outputs


def _redrawn(attention: PerformerAttention) -> None:
    attention.redraw()


def _one_fewer(favor: Favor) -> None:
    favor.projection = nn.Parameter(favor.projection[1:].clone(), requires_grad=False)


MUTANTS = {
    "scale": each(Favor, setting("scale", lambda scale: scale * 1.01)),
    "mask": each(PerformerAttention, setting("causal", lambda causal: not causal)),
    "other features": each(PerformerAttention, _redrawn),
    "one feature fewer": each(Favor, _one_fewer),
    "kernel": each(Favor, setting("kernel", lambda kernel: "relu")),
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
}

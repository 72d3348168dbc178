"""The Linear Transformer against its equations in plain words."""

from typing import Any

from tests.families import plain
from tests.families.case import Case
from tests.families.mutants import BIAS, LAYER_EPSILON, each, setting
from torch import Tensor, nn

from cutaway.families import linear_transformer
from cutaway.parts import EluPlusOne, LinearAttention, SinusoidalPositions

TINY = {"vocab": 99, "width": 32, "layers": 3, "heads": 4, "hidden": 48}
CASES = [
    Case("linear_transformer", "decoder", "equations"),
    Case("linear_transformer", "tied, gelu", "equations", {"tied": True, "act": "gelu"}),
    Case("linear_transformer", "encoder", "equations", {"causal": False, "head": "none"}),
    Case("linear_transformer", "masked language", "equations", {"causal": False, "head": "masked-lm"}),
]


def mix(attention: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    phi = lambda y: nn.functional.elu(y) + 1
    return plain.divided(phi(q) @ phi(k).mT, causal) @ v


def reference(case: Case) -> nn.Module:
    return plain.reference(case, linear_transformer, TINY, mix, "post")


counterpart, outputs = plain.counterpart, plain.outputs


class _Relu(EluPlusOne):
    def queries(self, x: Tensor) -> Tensor:
        return x.relu() + 1


class _EluAndMore(EluPlusOne):
    def queries(self, x: Tensor) -> Tensor:
        return super().queries(x) + 1e-3


MUTANTS = {
    "feature map": each(LinearAttention, setting("features", lambda f: _Relu())),
    "feature map plus a thousandth": each(LinearAttention, setting("features", lambda f: _EluAndMore())),
    "mask": each(LinearAttention, setting("causal", lambda causal: not causal)),
    "scale": each(LinearAttention, setting("scale", lambda scale: 1.01)),
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "positions": each(SinusoidalPositions, setting("base", lambda base: base * 1.01)),
}

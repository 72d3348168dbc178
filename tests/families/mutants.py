"""Small slips, each of which must make parity fail: changes to a model that is right."""

from collections.abc import Callable

import torch
from torch import nn

from cutaway.attention import Causal, Full, Window
from cutaway.parts import (
    ALiBi,
    Attention,
    Block,
    Embedding,
    LanguageHead,
    LayerNorm,
    LearnedPositions,
    Parallel,
    PostNorm,
    RMSNorm,
    Rotary,
    T5Bias,
)

Mutant = Callable[[nn.Module], None]


def each(kind: type, change: Callable) -> Mutant:
    """Applies `change` to every module of a kind; there must be one."""

    def mutate(model: nn.Module) -> None:
        found = [module for module in model.modules() if isinstance(module, kind)]
        assert found
        for module in found:
            change(module)

    return mutate


def setting(name: str, value: Callable) -> Callable:
    """A change of one attribute: `setting("eps", lambda eps: eps + 1e-4)`."""
    return lambda module: setattr(module, name, value(getattr(module, name)))


def _unbias(linear: nn.Linear) -> None:
    if linear.bias is not None:
        linear.bias.data.zero_()


SCALE = each(Attention, setting("scale", lambda scale: scale * 1.01))
MASK = each(Attention, setting("mask", lambda mask: Causal() if mask == Full() else Full()))
MASK_OFF_BY_ONE = each(Attention, setting("mask", lambda mask: mask & Window(9)))
ROTARY_BASE = each(Rotary, setting("frequencies", lambda f: f * 1.01 ** -torch.linspace(0, 1, len(f))))
ROTARY_PAIRING = each(Rotary, setting("interleaved", lambda flag: not flag))
BIAS = each(nn.Linear, _unbias)
LAYER_EPSILON = each(LayerNorm, setting("eps", lambda eps: eps + 1e-4))
RMS_EPSILON = each(RMSNorm, setting("eps", lambda eps: eps + 1e-4))
BUCKET_EDGE = each(T5Bias, setting("max_distance", lambda distance: distance - 4))
DIRECTION = each(T5Bias, setting("bidirectional", lambda flag: not flag))
POSITION = each(LearnedPositions, setting("offset", lambda offset: offset + 1))
SLOPES = each(ALiBi, setting("steepest", lambda steepest: steepest * 1.01))
IN_TURN = each(Parallel, setting("__class__", lambda _: Block))
EMBEDDING_SCALE = each(Embedding, setting("scale", lambda scale: scale * 1.01))
NORM_ORDER = each(PostNorm, lambda part: setattr(part, "forward", lambda x, ctx: x + part.inner(part.norm(x), ctx)))
LOGITS_BIAS = each(LanguageHead, lambda head: head.bias.data.zero_())
CROSS_MASK = each(Attention, lambda part: setattr(part, "mask", Window(9)) if part.cross else None)

"""The mixers of tokens by name: what can stand in attention's place in any family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from cutaway.attention import Full, Window
from cutaway.parts import Attention

Given = Mapping[str, Any]  # what a family gives `Attention` besides width and heads


@dataclass(frozen=True)
class Mixer:
    """How a token mixer is made in attention's place.

    Attributes:
        make: `(width, heads, number, given, context)`; `context` is the most tokens, for those that must know it.
        what: in a few words.
        number: what the number in "name:number" means, or None where it takes none.
        both_ways, causal: whether it can look at all tokens, as encoders do, and only back, as decoders must.
    """

    make: Callable[[int, int, int | None, Given, int], nn.Module]
    what: str
    number: str | None = None
    both_ways: bool = True
    causal: bool = True


def _attention(width: int, heads: int, number: int | None, given: Given, context: int) -> nn.Module:
    return Attention(width, heads, **given)


def _window(width: int, heads: int, number: int | None, given: Given, context: int) -> nn.Module:
    return Attention(width, heads, **{**given, "mask": given.get("mask", Full()) & Window(number or 128)})


def _strided(width: int, heads: int, number: int | None, given: Given, context: int) -> nn.Module:
    from cutaway.attention.patterns import PerHead, strided

    half = heads // 2
    mask = PerHead(strided(number or 128), (heads - half, half)) if half else strided(number or 128)[0]
    return Attention(width, heads, **{**given, "mask": mask})  # causal by itself


def _block_sparse(width: int, heads: int, number: int | None, given: Given, context: int) -> nn.Module:
    from cutaway.parts.block_sparse import BlockSparseAttention

    return BlockSparseAttention(width, heads, block=number or 64, context=context, **given)


def _recurrent(width: int, heads: int, number: int | None, given: Given, context: int, cell: str) -> nn.Module:
    from cutaway.parts.recurrence import RecurrentMixer

    return RecurrentMixer(width, cell=cell, **given)


def _state_space(width: int, heads: int, number: int | None, given: Given, context: int, kind: Any) -> nn.Module:
    from cutaway.parts.s4 import S4

    return S4(width, state=number or 64, kind=kind, **given)


def _mamba(width: int, heads: int, number: int | None, given: Given, context: int) -> nn.Module:
    from cutaway.parts.mamba import Mamba

    return Mamba(width, state=number or 16, **given)


def _mamba2(width: int, heads: int, number: int | None, given: Given, context: int) -> nn.Module:
    from cutaway.parts.mamba2 import Mamba2

    head_size = 64 if width % 32 == 0 else 2 * width // heads  # the published 64, where twice the width divides
    return Mamba2(width, state=number or 128, head_size=head_size, **given)


def _linear(width: int, heads: int, number: int | None, given: Given, context: int) -> nn.Module:
    from cutaway.parts.linear_attention import LinearAttention

    return LinearAttention(width, heads, **_without(given, "score_bias", "softcap"))


def _performer(width: int, heads: int, number: int | None, given: Given, context: int) -> nn.Module:
    from cutaway.parts.performer import PerformerAttention

    return PerformerAttention(width, heads, features=number, **_without(given, "score_bias", "softcap"))


def _linformer(width: int, heads: int, number: int | None, given: Given, context: int) -> nn.Module:
    from cutaway.parts.lowrank import LowRankAttention

    return LowRankAttention(
        width, heads, rank=number or 128, context=context, **_without(given, "score_bias", "softcap")
    )


def _synthesizer(width: int, heads: int, number: int | None, given: Given, context: int, kinds: Any) -> nn.Module:
    from cutaway.parts.synthesizer import Synthesizer

    return Synthesizer(width, heads, kinds=kinds, context=context, **_without(given, "softcap", "kv_heads"))


def _lsh(width: int, heads: int, number: int | None, given: Given, context: int) -> nn.Module:
    from cutaway.parts.lsh import LSHAttention

    return LSHAttention(
        width, heads, rounds=number or 1, **_without(given, "score_bias", "softcap", "scale", "kv_heads")
    )


def _without(given: Given, *names: str) -> dict[str, Any]:
    """What is given, but for what has no meaning here."""
    return {name: value for name, value in given.items() if name not in names}


_REMEMBERS = "numbers a channel remembers"
MIXERS: dict[str, Mixer] = {
    "attention": Mixer(_attention, "the family's own attention"),
    "window": Mixer(_window, "attention to the nearest tokens", "how many"),
    "strided": Mixer(_strided, "the nearest tokens, and each N-th", "N", both_ways=False),
    "block-sparse": Mixer(_block_sparse, "neighbouring, first, last and random blocks", "tokens a block", causal=False),
    "linear": Mixer(_linear, "attention without softmax, by elu + 1"),
    "performer": Mixer(_performer, "softmax by random features", "how many features"),
    "linformer": Mixer(_linformer, "keys and values of low rank", "the rank", causal=False),
    "lsh": Mixer(_lsh, "attention within hashed buckets", "rounds of hashing"),
    "synthesizer": Mixer(partial(_synthesizer, kinds=("dense",)), "patterns made from each token alone"),
    "random-synthesizer": Mixer(partial(_synthesizer, kinds=("random",)), "a learned pattern"),
    "mamba": Mixer(_mamba, "a selective scan", _REMEMBERS, both_ways=False),
    "mamba2": Mixer(_mamba2, "a selective scan in blocks", _REMEMBERS, both_ways=False),
    "s4": Mixer(partial(_state_space, kind="s4"), "a structured state space", _REMEMBERS, both_ways=False),
    "s4d": Mixer(partial(_state_space, kind="s4d"), "a diagonal state space", _REMEMBERS, both_ways=False),
    "lstm": Mixer(partial(_recurrent, cell="lstm"), "an LSTM"),
    "gru": Mixer(partial(_recurrent, cell="gru"), "a GRU"),
}

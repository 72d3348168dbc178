"""S4 and S4D. Decoder · structured state spaces instead of attention · LayerNorm before · no positions · GELU · biases.

Gu et al. 2022 (S4, arXiv:2111.00396; table 8: 16 layers of width 1024 on WikiText-103) and Gu et al. 2022 (S4D,
arXiv:2206.11893). Deviations: a plain embedding and output table where the paper's language model has adaptive ones; one
state space before each feed-forward network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from cutaway.attention import Causal
from cutaway.families.sizes import Checked
from cutaway.families.unpublished import unpublished
from cutaway.parts import (
    Block,
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Model,
    Positions,
    PreNorm,
    Stack,
    decoder_head,
)
from cutaway.parts.s4 import S4


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 267735  # words of WikiText-103
    width: int = 1024
    layers: int = 16
    hidden: int = 4096
    heads: int = 8  # of attention, where it is swapped in
    state: int = 64
    kind: Literal["s4", "s4d"] = "s4"
    start: Literal["legs", "lin", "inv"] = "legs"  # of S4D: what its rates begin as
    eps: float = 1e-5
    tied: bool = True
    dropout: float = 0.25
    head: str = "lm"
    labels: int = 2


PRESETS = {"s4-wikitext": Sizes(), "s4d-wikitext": Sizes(kind="s4d")}
PARAMETERS: dict[str, int] = {}  # the paper's 249 million are with adaptive tables


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    place = Positions() if position is None else position(True)
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, "gelu", dropout=s.dropout))

    def mix() -> nn.Module:
        if mixer is None:
            return S4(s.width, mask=Causal(), state=s.state, kind=s.kind, start=s.start)
        return mixer(s.width, s.heads, mask=Causal(), bias=True, dropout=s.dropout, **place.attention)

    blocks = [
        Block(mixer=PreNorm(norm(), mix(), s.dropout), feedforward=PreNorm(norm(), feedforward(), s.dropout))
        for _ in range(s.layers)
    ]
    stack = Stack(Embedding(s.vocab, s.width, steps=[*place.embedding, Dropout(s.dropout)]), blocks, norm())
    nn.init.normal_(stack.embedding.tokens.weight, std=0.02)
    head = decoder_head(s.head, stack.embedding.tokens, s.labels, tied=s.tied, dropout=s.dropout)
    return Model(stack, head, causal=True, max_positions=place.limit)


MODEL_TYPES, read, write, weights = unpublished("S4")

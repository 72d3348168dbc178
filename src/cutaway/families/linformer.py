"""Linformer. Encoder · LayerNorm after · learned positions · attention to R mixtures of the text · GELU · biases.

Wang et al. 2020 (arXiv:2006.04768): RoBERTa's encoder whose keys and values are projected along the text, from n tokens to R.
`sharing` says which heads and layers have a projection in common (section 4). Deviations: none; texts shorter than n use
the beginning of the projections, and padding adds nothing to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from cutaway.families.sizes import Checked
from cutaway.families.unpublished import unpublished
from cutaway.parts import (
    Along,
    Block,
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    LearnedPositions,
    LowRankAttention,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    MaskedTransform,
    Model,
    Pooler,
    Positions,
    PostNorm,
    Stack,
    encoder_head,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 50265
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    context: int = 512  # n
    rank: int = 128  # R
    sharing: Literal["none", "headwise", "key-value", "layerwise"] = "none"
    eps: float = 1e-5
    act: str = "gelu"
    tied: bool = True
    dropout: float = 0.1
    head: str = "masked-lm"
    labels: int = 2


# table 2 of the paper
PRESETS = {
    "linformer-512-128": Sizes(),
    "linformer-512-128-shared-kv": Sizes(sharing="key-value"),
    "linformer-512-128-shared-layer": Sizes(sharing="layerwise"),
    "linformer-512-256": Sizes(rank=256),
    "linformer-1024-256": Sizes(context=1024, rank=256),
    "linformer-1024-256-shared-kv": Sizes(context=1024, rank=256, sharing="key-value"),
    "linformer-1024-256-shared-layer": Sizes(context=1024, rank=256, sharing="layerwise"),
}
PARAMETERS: dict[str, int] = {}  # the paper gives none


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    position = position or (lambda causal: Positions([LearnedPositions(s.context, s.width)], limit=s.context))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act))
    place = position(False)
    shared = Along(s.context, s.rank) if s.sharing == "layerwise" and not mixer else None
    own = partial(LowRankAttention, context=s.context, rank=s.rank, sharing=s.sharing, shared=shared)

    def attention() -> nn.Module:
        return (mixer or own)(s.width, s.heads, bias=True, dropout=s.dropout, **place.attention)

    blocks = [
        Block(
            attention=PostNorm(attention(), norm(), s.dropout), feedforward=PostNorm(feedforward(), norm(), s.dropout)
        )
        for _ in range(s.layers)
    ]
    steps = [*place.embedding, norm(), Dropout(s.dropout)]
    stack = Stack(Embedding(s.vocab, s.width, steps=steps), blocks)
    head = encoder_head(
        s.head,
        stack.embedding.tokens,
        s.width,
        s.labels,
        tied=s.tied,
        transform=lambda: MaskedTransform(s.width, s.act, s.eps),
        pool=lambda: Pooler(s.width),
        dropout=s.dropout,
    )
    limit = s.context if place.limit is None else min(place.limit, s.context)
    model = Model(stack, head, causal=False, max_positions=limit)
    initialise(model)
    return model


MODEL_TYPES, read, write, weights = unpublished("Linformer")

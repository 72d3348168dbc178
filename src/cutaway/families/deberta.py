"""DeBERTa. Encoder · LayerNorm after · disentangled attention · one relative table · multi-head · GELU · biases but on keys.

He et al. 2021 (arXiv:2006.03654). Deviations: none from the published code. Against the paper, position-to-content
looks up δ(i, j) where equation 4 has δ(j, i), as the published code and weights do. The published masked-language head
(`legacy=False`) is applied to the last states, as the reference does; `head="enhanced-lm"` puts the paper's enhanced
mask decoder (section 3.2) before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cutaway.families import deberta_names as shared
from cutaway.families.sizes import Checked, divided
from cutaway.keys import Keys
from cutaway.layout import Rule, split_heads
from cutaway.parts import (
    Attention,
    Block,
    Disentangled,
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    LayerPositions,
    LearnedPositions,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Model,
    PostNorm,
    RelativeTable,
    Segments,
    Stack,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 50265
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    context: int = 512  # trained length, and the rows of absolute positions; without these longer texts work
    distance: int = 512  # the largest distance told apart
    c2p: bool = True
    p2c: bool = True
    absolute: bool = False  # absolute positions added to the embeddings too
    segments: int | None = None
    eps: float = 1e-7
    act: str = "gelu"
    dropout: float = 0.1
    tied: bool = True
    legacy: bool = True  # the masked-language head has BERT's names, or the published weights' own
    head: str = "none"
    labels: int = 2
    normalise: bool = True  # embeddings ("mean", "cls") have length 1


PRESETS = {
    "deberta-base": Sizes(),
    "deberta-large": Sizes(width=1024, layers=24, heads=16, hidden=4096),
    "deberta-xlarge": Sizes(width=1024, layers=48, heads=16, hidden=4096),
}
# elements of the published encoders, without pretraining heads: each checkpoint as a `DebertaModel`
PARAMETERS = {"deberta-base": 138_601_728, "deberta-large": 405_163_008, "deberta-xlarge": 757_804_032}


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act))
    terms = 1 if position else 1 + s.c2p + s.p2c
    place = (position or (lambda causal: _positions(s)))(False)
    segments = [] if s.segments is None else [Segments(s.segments, s.width)]
    steps = [*place.embedding, *segments, norm(), Dropout(s.dropout)]

    def attention() -> nn.Module:
        biases = {"bias": True, "k_bias": False, "scale": (divided(s.width, s.heads) * terms) ** -0.5}
        return (mixer or Attention)(s.width, s.heads, **biases, dropout=s.dropout, **place.attention)

    def block(make: Callable[..., nn.Module]) -> nn.Module:
        attend, feed = PostNorm(attention(), norm(), s.dropout), PostNorm(feedforward(), norm(), s.dropout)
        return make(attention=attend, feedforward=feed)

    blocks = [block(Block) for _ in range(s.layers - 1)] + [block(shared.last_block(s, own=not (position or mixer)))]
    stack = Stack(Embedding(s.vocab, s.width, steps=steps), blocks)
    head, limit = shared.heads(s, stack.embedding.tokens), s.context if s.head == shared.ENHANCED else place.limit
    model = Model(stack, head, causal=False, max_positions=limit)
    initialise(model)
    return model


def _positions(s: Sizes) -> LayerPositions:
    table = RelativeTable(s.distance, s.width, dropout=s.dropout)
    return LayerPositions(
        embedding=[LearnedPositions(s.context, s.width)] if s.absolute else [],
        limit=s.context if s.absolute else None,
        each=lambda: Disentangled(table, s.c2p, s.p2c, width=s.width, bias=(False, True)),
    )


MODEL_TYPES = ("deberta",)
ARCHITECTURES = shared.HEADS


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "deberta")
    sizes = Sizes(**shared.read(keys, Sizes, names))
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    return shared.write(s, "deberta", "Deberta", read)


def weights(s: Sizes) -> list[Rule]:
    inner, theirs = "stack.blocks.{i}.attention.inner", f"{shared.body(s)}encoder.layer.{{i}}.attention.self"
    return [
        Rule(f"{theirs}.in_proj.weight", tuple(f"{inner}.{name}.weight" for name in "qkv"), split_heads(s.heads)),
        Rule(f"{theirs}.q_bias", f"{inner}.q.bias"),
        Rule(f"{theirs}.v_bias", f"{inner}.v.bias"),
        *shared.weights(s, {"pos_proj": "score_bias.k", "pos_q_proj": "score_bias.q"}),
    ]

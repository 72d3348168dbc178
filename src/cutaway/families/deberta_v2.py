"""DeBERTa v2, v3. Encoder · LayerNorm after · disentangled attention · log buckets · shared keys · multi-head · GELU · biases.

He et al. 2021 (arXiv:2006.03654; version 2 in its published code, with a convolution beside the first block); He et al.
2023 (DeBERTaV3, arXiv:2111.09543: the same, trained as a discriminator; mDeBERTa). Distances beyond half the buckets
share them on a logarithmic scale, and the relative table goes through each layer's own query and key projections.
Deviations: none from the published code. Against the paper, position-to-content looks up δ(i, j) where equation 4 has
δ(j, i), as the published code and weights do. The published masked-language head (`legacy=False`) is applied to the
last states, as the reference does; `head="enhanced-lm"` puts the paper's enhanced mask decoder (section 3.2) before it.
The discriminator's own head, which v3 publishes beside the encoder, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from cutaway.errors import ConfigError
from cutaway.families import deberta_names as shared
from cutaway.families.sizes import Checked, divided
from cutaway.keys import Keys
from cutaway.layout import Rule
from cutaway.parts import (
    Attention,
    Beside,
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
    NGrams,
    PostNorm,
    RelativeTable,
    Segments,
    Stack,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 128100
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    context: int = 512  # trained length, and the rows of absolute positions; without these longer texts work
    distance: int = 512  # the largest distance told apart
    buckets: int | None = 256  # for distances to each side; None: one each
    shared_keys: bool = True  # the table goes through the projections of content
    table_norm: bool = True
    c2p: bool = True
    p2c: bool = True
    absolute: bool = False  # absolute positions added to the embeddings too
    segments: int | None = None
    kernel: int | None = None  # of the convolution beside the first block
    groups: int = 1  # of its channels
    kernel_act: str = "tanh"
    eps: float = 1e-7
    act: str = "gelu"
    dropout: float = 0.1
    tied: bool = True
    legacy: bool = True  # the masked-language head has BERT's names, or the published weights' own
    head: str = "none"
    labels: int = 2
    normalise: bool = True  # embeddings ("mean", "cls") have length 1


_NGRAMS = {"kernel": 3, "kernel_act": "gelu"}
PRESETS = {
    "deberta-v2-xlarge": Sizes(128100, 1536, 24, 24, 6144, **_NGRAMS),
    "deberta-v2-xxlarge": Sizes(128100, 1536, 48, 24, 6144, **_NGRAMS),
    "deberta-v3-xsmall": Sizes(128100, 384, 12, 6, 1536),
    "deberta-v3-small": Sizes(layers=6),
    "deberta-v3-base": Sizes(),
    "deberta-v3-large": Sizes(128100, 1024, 24, 16, 4096),
    "mdeberta-v3-base": Sizes(251000),
}
# elements of the published encoders, without pretraining heads: each checkpoint as a `DebertaV2Model`
PARAMETERS = {
    "deberta-v2-xlarge": 884_593_152, "deberta-v2-xxlarge": 1_564_549_632, "deberta-v3-xsmall": 70_682_112,
    "deberta-v3-small": 141_304_320, "deberta-v3-base": 183_831_552, "deberta-v3-large": 434_012_160,
    "mdeberta-v3-base": 278_218_752,
}  # fmt: skip


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
        scale = (divided(s.width, s.heads) * terms) ** -0.5
        return (mixer or Attention)(s.width, s.heads, bias=True, scale=scale, dropout=s.dropout, **place.attention)

    def block(make: Callable[..., nn.Module]) -> nn.Module:
        attend, feed = PostNorm(attention(), norm(), s.dropout), PostNorm(feedforward(), norm(), s.dropout)
        return make(attention=attend, feedforward=feed)

    makes = [Block] * (s.layers - 1) + [shared.last_block(s, own=not (position or mixer))]
    if s.kernel is not None:
        if makes[0] is not Block:
            raise ConfigError("the only block cannot be both beside a convolution and the enhanced mask decoder")
        makes[0] = partial(Beside, NGrams(s.width, s.kernel, s.kernel_act, s.groups, s.dropout), norm())
    stack = Stack(Embedding(s.vocab, s.width, steps=steps), [block(make) for make in makes])
    head, limit = shared.heads(s, stack.embedding.tokens), s.context if s.head == shared.ENHANCED else place.limit
    model = Model(stack, head, causal=False, max_positions=limit)
    initialise(model)
    return model


def _positions(s: Sizes) -> LayerPositions:
    norm = LayerNorm(s.width, s.eps) if s.table_norm else None
    far = None if s.buckets is None else s.distance
    table = RelativeTable(s.buckets or s.distance, s.width, max_distance=far, norm=norm, dropout=s.dropout)
    return LayerPositions(
        embedding=[LearnedPositions(s.context, s.width)] if s.absolute else [],
        limit=s.context if s.absolute else None,
        each=lambda: Disentangled(table, s.c2p, s.p2c, width=None if s.shared_keys else s.width),
    )


MODEL_TYPES = ("deberta-v2",)
ARCHITECTURES = shared.HEADS


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "deberta-v2")
    given = shared.read(keys, Sizes, names)
    keys.expect("attention_head_size", divided(given["width"], given["heads"]))
    buckets, kernel = keys.take("position_buckets", -1), keys.take("conv_kernel_size", 0)
    norms = {name.strip() for name in keys.take("norm_rel_ebd", "none").lower().split("|")}
    if not norms <= {"none", "layer_norm"}:
        raise ConfigError(f"the deberta-v2 config has norm_rel_ebd: {sorted(norms)}; none and layer_norm are supported")
    sizes = Sizes(
        **given,
        buckets=buckets if buckets > 0 else None,
        shared_keys=keys.take("share_att_key", False),
        table_norm="layer_norm" in norms,
        kernel=kernel if kernel > 0 else None,
        groups=keys.size("conv_groups", 1),
        kernel_act=keys.take("conv_act", "tanh"),
    )
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    more = {
        "position_buckets": s.buckets or -1,
        "share_att_key": s.shared_keys,
        "norm_rel_ebd": "layer_norm" if s.table_norm else "none",
    }
    if s.kernel is not None:
        more |= {"conv_kernel_size": s.kernel, "conv_groups": s.groups, "conv_act": s.kernel_act}
    return shared.write(s, "deberta-v2", "DebertaV2", read, **more)


def weights(s: Sizes) -> list[Rule]:
    own = {"pos_key_proj": "score_bias.k", "pos_query_proj": "score_bias.q"}
    return [
        *shared.weights(s, {"query_proj": "q", "key_proj": "k", "value_proj": "v", **own}),
        Rule(f"{shared.body(s)}encoder.conv.conv", "stack.blocks.0.beside.inner.conv"),
        Rule(f"{shared.body(s)}encoder.conv.LayerNorm", "stack.blocks.0.beside.norm"),
    ]

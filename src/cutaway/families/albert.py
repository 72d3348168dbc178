"""ALBERT. Encoder · one block's weights for all layers · narrower tables · LayerNorm after · learned positions · GELU.

Lan et al. 2020 (arXiv:1909.11942). The layers fall into `groups` that share weights (one, as published); a layer may be
several `blocks`, run one after the other. A shared block stands in the stack as often as it runs, its parameters count
once, and what it shows is named by where it runs. Version 2 is trained longer, with the other GELU and without dropout.
The head for the order of two sentences (`sop_classifier`) is not read. Deviations: none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cutaway.errors import ConfigError
from cutaway.families.names import (
    BERT_CONFIG,
    BERT_HEADS,
    bert_body,
    bert_embeddings,
    bert_pooler,
    class_heads,
    masked_head,
    modules,
    read_bert,
    write_bert,
)
from cutaway.families.sizes import Checked
from cutaway.keys import Keys
from cutaway.layout import Rule, ignore
from cutaway.parts import (
    Attention,
    Block,
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    LearnedPositions,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    MaskedTransform,
    Model,
    Pooler,
    Positions,
    PostNorm,
    Segments,
    Stack,
    encoder_head,
    initialise,
)

MOST = 10_000  # blocks that run: where they share weights, no checkpoint's size bounds their number


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 30000
    table_width: int = 128  # of the embedding; a matrix leads from it to `width`
    width: int = 4096
    layers: int = 12
    groups: int = 1  # of layers that share their weights
    blocks: int = 1  # of attention and feed-forward in each layer
    heads: int = 64
    hidden: int = 16384
    context: int = 512
    segments: int = 2
    eps: float = 1e-12
    act: str = "gelu_new"
    dropout: float = 0.0
    pooler: bool = True
    tied: bool = True
    head: str = "none"
    labels: int = 2
    normalise: bool = True  # embeddings ("mean", "cls") have length 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups > self.layers:
            raise ConfigError(f"{self.layers} layers do not fall into {self.groups} groups; each has one at least")
        if self.layers * self.blocks > MOST:
            raise ConfigError(f"{self.layers} layers of {self.blocks} blocks are too many; {MOST} blocks can be run")

    def group(self, layer: int) -> int:
        """The group whose weights a layer has."""
        return int(layer / (self.layers / self.groups))  # rounded as published


_V2 = {
    "base": Sizes(width=768, heads=12, hidden=3072),
    "large": Sizes(width=1024, layers=24, heads=16, hidden=4096),
    "xlarge": Sizes(width=2048, layers=24, heads=16, hidden=8192),
    "xxlarge": Sizes(),
}
PRESETS = {
    **{f"albert-{name}-v1": replace(s, act="gelu", dropout=0.1) for name, s in _V2.items() if name != "xxlarge"},
    "albert-xxlarge-v1": Sizes(act="gelu"),
    **{f"albert-{name}-v2": s for name, s in _V2.items()},
}
# elements of the published encoders with their pooler, without pretraining heads: each checkpoint as an `AlbertModel`
_COUNTS = {"base": 11_683_584, "large": 17_683_968, "xlarge": 58_724_864, "xxlarge": 222_595_584}
PARAMETERS = {f"albert-{name}-{version}": count for version in ("v1", "v2") for name, count in _COUNTS.items()}


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    position = position or (lambda causal: Positions([LearnedPositions(s.context, s.table_width)], limit=s.context))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act))
    place = position(False)
    table = s.table_width
    steps = [Segments(s.segments, table), *place.embedding, LayerNorm(table, s.eps), Dropout(s.dropout)]

    def block() -> Block:
        attention = (mixer or Attention)(s.width, s.heads, bias=True, dropout=s.dropout, **place.attention)
        return Block(
            attention=PostNorm(attention, norm(), s.dropout), feedforward=PostNorm(feedforward(), norm(), s.dropout)
        )

    groups = [[block() for _ in range(s.blocks)] for _ in range(s.groups)]
    blocks = [block for layer in range(s.layers) for block in groups[s.group(layer)]]
    stack = Stack(Embedding(s.vocab, table, steps=steps, out=s.width), blocks)
    head = encoder_head(
        s.head,
        stack.embedding.tokens,
        s.width,
        s.labels,
        tied=s.tied,
        transform=lambda: MaskedTransform(s.width, s.act, s.eps, out=table),
        pool=lambda: Pooler(s.width),
        dropout=s.dropout,
        normalise=s.normalise,
    )
    pooler = Pooler(s.width) if s.pooler and s.head == "none" else None
    model = Model(stack, head, causal=False, pooler=pooler, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("albert",)
HEADS = {**BERT_HEADS, "ForPreTraining": "masked-lm"}
CONFIG = {**BERT_CONFIG, "table_width": "embedding_size", "groups": "num_hidden_groups", "blocks": "inner_group_num"}


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "albert")
    keys.ignore("classifier_dropout_prob", "layers_to_keep")
    for unused in ("net_structure_type", "gap_size", "num_memory_blocks"):  # of trials that were never published
        keys.expect(unused, 0)
    keys.expect("down_scale_factor", 1)
    sizes = Sizes(**read_bert(keys, Sizes, CONFIG, names, HEADS))
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    more = {"attention_probs_dropout_prob": s.dropout}
    return write_bert(s, "albert", "Albert", CONFIG, read, HEADS, **more)


def weights(s: Sizes) -> list[Rule]:
    body = bert_body("albert", s.head)
    layer = {
        "attention.query": "attention.inner.q",
        "attention.key": "attention.inner.k",
        "attention.value": "attention.inner.v",
        "attention.dense": "attention.inner.out",
        "attention.LayerNorm": "attention.norm",
        "ffn": "feedforward.inner.up",
        "ffn_output": "feedforward.inner.down",
        "full_layer_layer_norm": "feedforward.norm",
    }
    rules = [*bert_embeddings(body), Rule(f"{body}encoder.embedding_hidden_mapping_in", "stack.embedding.project")]
    first = {s.group(layer): layer for layer in reversed(range(s.layers))}  # a shared block has the name it has first
    for group in range(s.groups):
        for j in range(s.blocks):
            theirs = f"{body}encoder.albert_layer_groups.{group}.albert_layers.{j}"
            rules += modules(theirs, f"stack.blocks.{first[group] * s.blocks + j}", layer)
    rules += [*bert_pooler(f"{body}pooler", s.head), ignore("sop_classifier.*")]
    if s.head == "masked-lm":
        names = [f"predictions.{name}" for name in ("dense", "LayerNorm", "decoder", "bias")]
        return rules + masked_head(s.tied, *names)
    return [*rules, *class_heads(s.head), ignore("predictions.*")]

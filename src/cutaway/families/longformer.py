"""Longformer. Encoder · LayerNorm after · learned positions counted from 2 · sliding window, global tokens · GELU · biases.

Beltagy et al. 2020 (arXiv:2004.05150). RoBERTa's layers, of which each looks at `windows` tokens around its own, half on
either side; tokens marked by `model(ids, global_mask=…)` look at all and are looked at by all, through projections of their
own. Deviations: published code finds the question's tokens by itself when it answers questions, here the caller marks them;
no published weights use dilation, which `mask=dilated(w, step)` gives (`cutaway.attention.patterns`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cutaway.attention import Window
from cutaway.errors import ConfigError
from cutaway.families.names import (
    BERT_CONFIG,
    bert_body,
    bert_weights,
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
    Block,
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    LearnedPositions,
    LocalGlobalAttention,
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


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 50265
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    windows: tuple[int, ...] = (512,)  # tokens around its own that a token sees, layer by layer; one is for all layers
    context: int = 4096
    offset: int = 2  # rows of the table of positions before the first token's: the padding token's id, and 1
    segments: int = 1
    eps: float = 1e-5
    act: str = "gelu"
    dropout: float = 0.1
    pooler: bool = True
    tied: bool = True
    head: str = "none"
    labels: int = 2
    normalise: bool = True  # embeddings ("mean", "cls") have length 1

    def __post_init__(self) -> None:
        if isinstance(self.windows, list):  # as JSON has them
            object.__setattr__(self, "windows", tuple(self.windows))
        super().__post_init__()
        if len(self.windows) not in (1, self.layers) or any(w < 2 or w % 2 for w in self.windows):
            raise ConfigError(f"windows are even, one or {self.layers} of them (layers), not {self.windows}")
        if len(set(self.windows)) == 1:  # equal models have equal sizes
            object.__setattr__(self, "windows", self.windows[:1])


PRESETS = {
    "longformer-base-4096": Sizes(),
    "longformer-large-4096": Sizes(width=1024, layers=24, heads=16, hidden=4096),
}
# elements of the published configurations as the reference counts them, as a `LongformerModel`
PARAMETERS = {"longformer-base-4096": 148_659_456, "longformer-large-4096": 434_600_960}


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    position = position or (lambda causal: Positions([LearnedPositions(s.context, s.width, s.offset)], limit=s.context))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act))
    mixer = mixer or partial(LocalGlobalAttention, first=s.head == "sequence")
    place = position(False)
    steps = [Segments(s.segments, s.width), *place.embedding, norm(), Dropout(s.dropout)]

    def block(window: int) -> Block:
        mask = Window(window // 2 + 1)
        attention = mixer(s.width, s.heads, mask=mask, bias=True, dropout=s.dropout, **place.attention)
        return Block(
            attention=PostNorm(attention, norm(), s.dropout), feedforward=PostNorm(feedforward(), norm(), s.dropout)
        )

    windows = s.windows if len(s.windows) > 1 else s.windows * s.layers
    stack = Stack(Embedding(s.vocab, s.width, steps=steps), [block(window) for window in windows])
    head = encoder_head(
        s.head,
        stack.embedding.tokens,
        s.width,
        s.labels,
        tied=s.tied,
        transform=lambda: MaskedTransform(s.width, "gelu", s.eps),
        pool=lambda: Pooler(s.width, dropout=s.dropout),
        dropout=s.dropout,
        normalise=s.normalise,
    )
    pooler = Pooler(s.width) if s.pooler and s.head == "none" else None
    model = Model(stack, head, causal=False, pooler=pooler, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("longformer",)
CONFIG = {
    **BERT_CONFIG, "vocab": ("vocab_size", 30522), "context": ("max_position_embeddings", 512),
    "segments": ("type_vocab_size", 2), "eps": ("layer_norm_eps", 1e-12),
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "longformer")
    given = read_bert(keys, Sizes, CONFIG, names)
    offset = keys.take("pad_token_id", 1) + 1
    if not 0 < offset < given["context"]:
        raise ConfigError(f"positions begin after pad_token_id, {offset - 1}: there are only {given['context']}")
    given["context"] -= offset
    windows = config.get("attention_window")
    windows = (
        keys.take("attention_window", [], list) if isinstance(windows, list) else [keys.size("attention_window", 512)]
    )
    keys.ignore(
        "sep_token_id",
        "onnx_export",
        "attention_mode",
        "autoregressive",
        "ignore_attention_mask",
        "gradient_checkpointing",
    )
    dilation = keys.take("attention_dilation", [])
    if any(step != 1 for step in dilation):
        raise ConfigError(
            f"the longformer config has attention_dilation: {dilation}; published code computes none but 1"
        )
    sizes = Sizes(**given, windows=tuple(windows), offset=offset)
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    more = {
        "attention_probs_dropout_prob": s.dropout,
        "attention_window": list(s.windows) if len(s.windows) > 1 else list(s.windows) * s.layers,
        "max_position_embeddings": s.context + s.offset,
        "pad_token_id": s.offset - 1,
    }
    return write_bert(s, "longformer", "Longformer", CONFIG, read, **more)


def weights(s: Sizes) -> list[Rule]:
    layer = f"{bert_body('longformer', s.head)}encoder.layer.{{i}}.attention.self"
    own = {"query_global": "q_global", "key_global": "k_global", "value_global": "v_global"}
    rules = bert_weights("longformer", s.head, pooled=("none",)) + modules(
        layer, "stack.blocks.{i}.attention.inner", own
    )
    if s.head == "masked-lm":
        names = [f"lm_head.{name}" for name in ("dense", "layer_norm", "decoder", "bias")]
        return rules + masked_head(s.tied, *names)
    sequence = {"classifier.dense": "head.pool.dense", "classifier.out_proj": "head.out"}
    return [*rules, *class_heads(s.head, sequence), ignore("lm_head.*")]

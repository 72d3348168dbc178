"""RoBERTa. Encoder · LayerNorm after · learned positions counted from 2 · no segments · multi-head · GELU · biases.

Liu et al. 2019 (arXiv:1907.11692); Conneau et al. 2020 (XLM-R, arXiv:1911.02116), Martin et al. 2020 (CamemBERT,
arXiv:1911.03894), Sanh et al. 2019 (DistilRoBERTa). BERT's layers: what differs is the training, the tables and the
heads. The table of positions has 514 rows for 512 tokens: those up to the padding token's id, 1, are never looked up.
Deviations: none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cutaway.errors import ConfigError
from cutaway.families.names import BERT_CONFIG, bert_weights, class_heads, masked_head, read_bert, write_bert
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


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 50265
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    context: int = 512
    offset: int = 2  # rows of the table of positions before the first token's: the padding token's id, and 1
    segments: int = 1  # all tokens are of the one
    eps: float = 1e-5
    act: str = "gelu"
    dropout: float = 0.1
    pooler: bool = True
    tied: bool = True
    head: str = "none"
    labels: int = 2
    normalise: bool = True  # embeddings ("mean", "cls") have length 1
    model_type: Literal["roberta", "xlm-roberta", "camembert"] = "roberta"  # the same, published under three names


_LARGE: dict[str, Any] = {"width": 1024, "layers": 24, "heads": 16, "hidden": 4096}
PRESETS = {
    "roberta-base": Sizes(),
    "roberta-large": Sizes(**_LARGE),
    "distilroberta-base": Sizes(layers=6),
    "xlm-roberta-base": Sizes(250002, model_type="xlm-roberta"),
    "xlm-roberta-large": Sizes(250002, **_LARGE, model_type="xlm-roberta"),
    "camembert-base": Sizes(32005, model_type="camembert"),
}
# elements of the published encoders with their pooler, without pretraining heads: each checkpoint as a `RobertaModel`
PARAMETERS = {
    "roberta-base": 124_645_632, "roberta-large": 355_359_744, "distilroberta-base": 82_118_400,
    "xlm-roberta-base": 278_043_648, "xlm-roberta-large": 559_890_432, "camembert-base": 110_621_952,
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
    position = position or (lambda causal: Positions([LearnedPositions(s.context, s.width, s.offset)], limit=s.context))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act))
    place = position(False)
    steps = [Segments(s.segments, s.width), *place.embedding, norm(), Dropout(s.dropout)]

    def block() -> Block:
        attention = (mixer or Attention)(s.width, s.heads, bias=True, dropout=s.dropout, **place.attention)
        return Block(
            attention=PostNorm(attention, norm(), s.dropout), feedforward=PostNorm(feedforward(), norm(), s.dropout)
        )

    stack = Stack(Embedding(s.vocab, s.width, steps=steps), [block() for _ in range(s.layers)])
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


CLASSES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
MODEL_TYPES = tuple(CLASSES)
CONFIG = {**BERT_CONFIG, "segments": ("type_vocab_size", 2), "eps": ("layer_norm_eps", 1e-12)}


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "roberta")
    given = read_bert(keys, Sizes, CONFIG, names)
    offset = keys.take("pad_token_id", 1) + 1
    if not 0 < offset < given["context"]:
        raise ConfigError(f"positions begin after pad_token_id, {offset - 1}: there are only {given['context']}")
    given["context"] -= offset
    sizes = Sizes(**given, offset=offset, model_type=keys.expect("model_type", *MODEL_TYPES))
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    more = {
        "attention_probs_dropout_prob": s.dropout,
        "max_position_embeddings": s.context + s.offset,
        "pad_token_id": s.offset - 1,
    }
    return write_bert(s, s.model_type, CLASSES[s.model_type], CONFIG, read, **more)


def weights(s: Sizes) -> list[Rule]:
    rules = bert_weights("roberta", s.head, pooled=("none",))
    if s.head == "masked-lm":
        names = [f"lm_head.{name}" for name in ("dense", "layer_norm", "decoder", "bias")]
        return rules + masked_head(s.tied, *names)
    sequence = {"classifier.dense": "head.pool.dense", "classifier.out_proj": "head.out"}
    return [*rules, *class_heads(s.head, sequence), ignore("lm_head.*")]

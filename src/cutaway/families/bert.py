"""BERT. Encoder · LayerNorm after · learned positions and segments · multi-head · GELU · biases.

Devlin et al. 2019 (arXiv:1810.04805); sentence embeddings as Reimers and Gurevych 2019. Deviations: none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cutaway.families.names import (
    BERT_CONFIG,
    BERT_HEADS,
    bert_weights,
    class_heads,
    masked_head,
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


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 30522
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    context: int = 512
    segments: int = 2
    eps: float = 1e-12
    act: str = "gelu"
    dropout: float = 0.1
    pooler: bool = True
    tied: bool = True
    head: str = "none"
    labels: int = 2
    normalise: bool = True  # embeddings ("mean", "cls") have length 1


PRESETS = {
    "bert-base": Sizes(),
    "bert-large": Sizes(width=1024, layers=24, heads=16, hidden=4096),
    "bert-base-uncased": Sizes(),
    "bert-large-uncased": Sizes(width=1024, layers=24, heads=16, hidden=4096),
    "bert-base-cased": Sizes(vocab=28996),
    "bert-large-cased": Sizes(vocab=28996, width=1024, layers=24, heads=16, hidden=4096),
    "bert-base-multilingual-cased": Sizes(vocab=119547),
    "bert-tiny": Sizes(width=128, layers=2, heads=2, hidden=512),
    "bert-mini": Sizes(width=256, layers=4, heads=4, hidden=1024),
    "bert-small": Sizes(width=512, layers=4, heads=8, hidden=2048),
    "bert-medium": Sizes(width=512, layers=8, heads=8, hidden=2048),
    "all-minilm-l6": Sizes(width=384, layers=6, heads=12, hidden=1536),
    "all-minilm-l12": Sizes(width=384, layers=12, heads=12, hidden=1536),
}
# elements of the published encoders with their pooler, without pretraining heads: each checkpoint as a `BertModel`
PARAMETERS = {
    "bert-base": 109_482_240, "bert-large": 335_141_888, "bert-base-uncased": 109_482_240,
    "bert-large-uncased": 335_141_888, "bert-base-cased": 108_310_272, "bert-large-cased": 333_579_264,
    "bert-base-multilingual-cased": 177_853_440, "bert-tiny": 4_385_920, "bert-mini": 11_170_560,
    "bert-small": 28_763_648, "bert-medium": 41_373_184, "all-minilm-l6": 22_713_216, "all-minilm-l12": 33_360_000,
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
    position = position or (lambda causal: Positions([LearnedPositions(s.context, s.width)], limit=s.context))
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
        transform=lambda: MaskedTransform(s.width, s.act, s.eps),
        pool=lambda: Pooler(s.width),
        dropout=s.dropout,
        normalise=s.normalise,
    )
    pooler = Pooler(s.width) if s.pooler and s.head == "none" else None
    model = Model(stack, head, causal=False, pooler=pooler, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("bert",)
HEADS = {**BERT_HEADS, "ForPreTraining": "masked-lm"}  # whose second head, for the next sentence, is not read


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "bert")
    # written by converters, read by nobody
    keys.ignore("directionality", *(name for name in config if name.startswith("pooler_")))
    sizes = Sizes(**read_bert(keys, Sizes, BERT_CONFIG, names, HEADS))
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    more = {"attention_probs_dropout_prob": s.dropout}
    return write_bert(s, "bert", "Bert", BERT_CONFIG, read, HEADS, **more)


def weights(s: Sizes) -> list[Rule]:
    rules = [*bert_weights("bert", s.head), ignore("cls.seq_relationship.*")]
    if s.head == "masked-lm":
        names = [f"cls.predictions.{name}" for name in ("transform.dense", "transform.LayerNorm", "decoder", "bias")]
        return rules + masked_head(s.tied, *names)
    return [*rules, *class_heads(s.head), ignore("cls.predictions.*")]

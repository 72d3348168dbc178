"""ELECTRA. Encoder · LayerNorm after · narrower tables · learned positions and segments · multi-head · GELU · biases.

Clark et al. 2020 (arXiv:2003.10555). A small generator fills masks (`head="masked-lm"`), a discriminator tells for every
token whether it was replaced (`head="discriminator"`: logits (B, T)). Deviations: none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cutaway.families.names import (
    BERT_CONFIG,
    BERT_HEADS,
    bert_body,
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
    DetectionHead,
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
    table_width: int = 128  # of the embedding; where it is not `width`, a matrix leads from the one to the other
    width: int = 256
    layers: int = 12
    heads: int = 4
    hidden: int = 1024
    context: int = 512
    segments: int = 2
    eps: float = 1e-12
    act: str = "gelu"
    dropout: float = 0.1
    tied: bool = True
    head: str = "none"
    labels: int = 2
    normalise: bool = True  # embeddings ("mean", "cls") have length 1


_BASE: dict[str, Any] = {"table_width": 768, "width": 768, "heads": 12, "hidden": 3072}
_LARGE: dict[str, Any] = {"table_width": 1024, "width": 1024, "layers": 24, "heads": 16, "hidden": 4096}
PRESETS = {
    "electra-small-discriminator": Sizes(head="discriminator"),
    "electra-base-discriminator": Sizes(**_BASE, head="discriminator"),
    "electra-large-discriminator": Sizes(**_LARGE, head="discriminator"),
    "electra-small-generator": Sizes(head="masked-lm"),
    "electra-base-generator": Sizes(table_width=768, head="masked-lm"),
    "electra-large-generator": Sizes(table_width=1024, layers=24, head="masked-lm"),
}
# elements of the published weights with the heads they were trained with, tied tables counted once
PARAMETERS = {
    "electra-small-discriminator": 13_549_057, "electra-base-discriminator": 109_483_009,
    "electra-large-discriminator": 335_142_913, "electra-small-generator": 13_546_682,
    "electra-base-generator": 33_740_602, "electra-large-generator": 51_295_290,
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

    embedding = Embedding(s.vocab, table, steps=steps, out=None if table == s.width else s.width)
    stack = Stack(embedding, [block() for _ in range(s.layers)])
    head = encoder_head(
        s.head,
        stack.embedding.tokens,
        s.width,
        s.labels,
        tied=s.tied,
        transform=lambda: MaskedTransform(s.width, "gelu", s.eps, out=table),
        pool=lambda: Pooler(s.width, "gelu", s.dropout),
        dropout=s.dropout,
        normalise=s.normalise,
        discriminator=lambda: DetectionHead(s.width, s.act),
    )
    model = Model(stack, head, causal=False, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("electra",)
HEADS = {**BERT_HEADS, "ForPreTraining": "discriminator"}
CONFIG = {**BERT_CONFIG, "table_width": "embedding_size"}


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "electra")
    # of a head for multiple choice, and of the pretraining of both
    keys.ignore("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout")
    keys.ignore("generator_size", "generator_hidden_size")
    sizes = Sizes(**read_bert(keys, Sizes, CONFIG, names, HEADS))
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    more = {"attention_probs_dropout_prob": s.dropout}
    return write_bert(s, "electra", "Electra", CONFIG, read, HEADS, **more)


def weights(s: Sizes) -> list[Rule]:
    project = Rule(f"{bert_body('electra', s.head)}embeddings_project", "stack.embedding.project")
    rules = [*bert_weights("electra", s.head, pooled=()), project]
    guess, detect = "generator_predictions", "discriminator_predictions"
    if s.head == "masked-lm":
        return rules + masked_head(s.tied, f"{guess}.dense", f"{guess}.LayerNorm", "generator_lm_head")
    if s.head == "discriminator":
        return [*rules, Rule(f"{detect}.dense", "head.dense"), Rule(f"{detect}.dense_prediction", "head.out")]
    sequence = {"classifier.dense": "head.pool.dense", "classifier.out_proj": "head.out"}
    return [*rules, *class_heads(s.head, sequence), ignore(f"{detect}.*", f"{guess}.*", "generator_lm_head.*")]

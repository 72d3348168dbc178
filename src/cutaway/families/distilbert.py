"""DistilBERT. Encoder · LayerNorm after · learned positions · no segments, no pooler · multi-head · GELU · biases.

Sanh et al. 2019 (arXiv:1910.01108): every other layer of BERT, taught by it. Deviations: none. A table of positions that
was filled with waves (`sinusoidal_pos_embds`) is read as the learned one that it is in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cutaway.families.names import bert_body, bert_embeddings, class_heads, masked_head, modules, read_bert, write_bert
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
    Stack,
    encoder_head,
    initialise,
)

EPS = 1e-12  # of every norm; no config says another


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 30522
    width: int = 768
    layers: int = 6
    heads: int = 12
    hidden: int = 3072
    context: int = 512
    act: str = "gelu"
    dropout: float = 0.1
    tied: bool = True
    head: str = "none"
    labels: int = 2
    normalise: bool = True  # embeddings ("mean", "cls") have length 1


PRESETS = {
    "distilbert-base-uncased": Sizes(),
    "distilbert-base-cased": Sizes(28996),
    "distilbert-base-multilingual-cased": Sizes(119547),
}
# elements of the published encoders, without pretraining heads: each checkpoint as a `DistilBertModel`
PARAMETERS = {
    "distilbert-base-uncased": 66_362_880, "distilbert-base-cased": 65_190_912,
    "distilbert-base-multilingual-cased": 134_734_080,
}  # fmt: skip


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, EPS))
    position = position or (lambda causal: Positions([LearnedPositions(s.context, s.width)], limit=s.context))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act))
    place = position(False)

    def block() -> Block:  # nothing is dropped of what attention gives
        attention = (mixer or Attention)(s.width, s.heads, bias=True, dropout=s.dropout, **place.attention)
        return Block(attention=PostNorm(attention, norm()), feedforward=PostNorm(feedforward(), norm(), s.dropout))

    steps = [*place.embedding, norm(), Dropout(s.dropout)]
    stack = Stack(Embedding(s.vocab, s.width, steps=steps), [block() for _ in range(s.layers)])
    head = encoder_head(
        s.head,
        stack.embedding.tokens,
        s.width,
        s.labels,
        tied=s.tied,
        transform=lambda: MaskedTransform(s.width, s.act, EPS),
        pool=lambda: Pooler(s.width, "relu"),
        dropout=s.dropout,
        normalise=s.normalise,
    )
    model = Model(stack, head, causal=False, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("distilbert",)
CONFIG = {
    "vocab": "vocab_size", "width": "dim", "layers": "n_layers", "heads": "n_heads", "hidden": "hidden_dim",
    "context": "max_position_embeddings", "act": "activation", "dropout": "dropout", "tied": "tie_word_embeddings",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "distilbert")
    # whether a new table of positions begins as waves, and dropout in training
    keys.ignore("sinusoidal_pos_embds", "attention_dropout", "qa_dropout", "seq_classif_dropout", "tie_weights_")
    sizes = Sizes(**read_bert(keys, Sizes, CONFIG, names))
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    return write_bert(s, "distilbert", "DistilBert", CONFIG, read, attention_dropout=s.dropout)


def weights(s: Sizes) -> list[Rule]:
    body = bert_body("distilbert", s.head)
    layer = {
        "attention.q_lin": "attention.inner.q",
        "attention.k_lin": "attention.inner.k",
        "attention.v_lin": "attention.inner.v",
        "attention.out_lin": "attention.inner.out",
        "sa_layer_norm": "attention.norm",
        "ffn.lin1": "feedforward.inner.up",
        "ffn.lin2": "feedforward.inner.down",
        "output_layer_norm": "feedforward.norm",
    }
    rules = [
        *bert_embeddings(body, "position_embeddings", "LayerNorm"),
        *modules(f"{body}transformer.layer.{{i}}", "stack.blocks.{i}", layer),
    ]
    if s.head == "masked-lm":
        return rules + masked_head(s.tied, "vocab_transform", "vocab_layer_norm", "vocab_projector")
    sequence = {"pre_classifier": "head.pool.dense", "classifier": "head.out"}
    return [*rules, *class_heads(s.head, sequence), ignore("vocab_(transform|layer_norm|projector).(weight|bias)")]

"""BERT. Encoder · LayerNorm after · learned positions and segments · multi-head · GELU · biases.

Devlin et al. 2019 (arXiv:1810.04805); sentence embeddings as Reimers and Gurevych 2019. Deviations: none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from cutaway.families.sizes import Checked
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, ignore, tied
from cutaway.parts import (
    Attention,
    Block,
    Dropout,
    Embedding,
    EmbeddingHead,
    FeedForward,
    First,
    LanguageHead,
    LayerNorm,
    LearnedPositions,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    MaskedTransform,
    Mean,
    Model,
    Pooler,
    Positions,
    PostNorm,
    Segments,
    SequenceHead,
    Stack,
    TokenHead,
    choose_head,
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

    def attention() -> nn.Module:
        return (mixer or Attention)(s.width, s.heads, bias=True, dropout=s.dropout, **place.attention)

    blocks = [
        Block(
            attention=PostNorm(attention(), norm(), s.dropout), feedforward=PostNorm(feedforward(), norm(), s.dropout)
        )
        for _ in range(s.layers)
    ]
    stack = Stack(Embedding(s.vocab, s.width, steps=steps), blocks)
    heads = {
        "none": lambda: None,
        "masked-lm": lambda: LanguageHead(
            s.width,
            s.vocab,
            tied=stack.embedding.tokens if s.tied else None,
            bias=True,
            transform=MaskedTransform(s.width, s.act, s.eps),
        ),
        "sequence": lambda: SequenceHead(Pooler(s.width), s.width, s.labels, dropout=s.dropout),
        "token": lambda: TokenHead(s.width, s.labels, dropout=s.dropout),
        "span": lambda: TokenHead(s.width, 2),
        "mean": lambda: EmbeddingHead(Mean(), s.normalise),
        "cls": lambda: EmbeddingHead(First(), s.normalise),
    }
    pooler = Pooler(s.width) if s.pooler and s.head == "none" else None
    model = Model(stack, choose_head(s.head, heads), causal=False, pooler=pooler, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("bert",)
ARCHITECTURES = {
    "BertForMaskedLM": "masked-lm",
    "BertForSequenceClassification": "sequence",
    "BertForTokenClassification": "token",
    "BertForQuestionAnswering": "span",
    "BertModel": "none",
    "BertForPreTraining": "masked-lm",
}


CONFIG = {
    "vocab": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "hidden": "intermediate_size", "context": "max_position_embeddings", "segments": "type_vocab_size",
    "eps": "layer_norm_eps", "act": "hidden_act", "dropout": "hidden_dropout_prob", "tied": "tie_word_embeddings",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "bert")
    given = keys.sizes(CONFIG, Sizes)
    keys.expect("position_embedding_type", "absolute")
    keys.ignore("initializer_range", "classifier_dropout", "attention_probs_dropout_prob", "directionality")
    keys.ignore(*(name for name in config if name.startswith("pooler_")))  # written by a converter, read by nobody
    sizes = Sizes(
        **given,
        # no key tells a body with a pooler from one without
        pooler=names is None or any(name.endswith("pooler.dense.weight") for name in names),
        head=keys.head(ARCHITECTURES, "none"),
        labels=keys.labels(),
    )
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    config = {
        "model_type": "bert",
        "architectures": [{v: k for k, v in reversed(ARCHITECTURES.items())}.get(s.head, "BertModel")],
        **published(s, CONFIG),
        "attention_probs_dropout_prob": s.dropout,
        **labelled(s.head, s.labels),
    }
    # the names of the tensors tell of a pooler, and files beside the config how sentences are pooled
    body = replace(s, pooler=True, **({"head": "none", "normalise": True} if s.head in ("mean", "cls") else {}))
    return faithful(config, body, read(config))


def weights(s: Sizes) -> list[Rule]:
    body = "(bert.|)" if s.head not in ("none", "mean", "cls") else "(|bert.)"
    layer, block, old = f"{body}encoder.layer.{{i}}", "stack.blocks.{i}", f"{body}embeddings"
    masked = s.head == "masked-lm"
    rules = [
        Rule(f"{old}.word_embeddings", "stack.embedding.tokens"),
        Rule(f"{old}.token_type_embeddings", "stack.embedding.steps.0"),
        Rule(f"{old}.position_embeddings", "stack.embedding.steps.1"),
        Rule(f"{old}.LayerNorm", "stack.embedding.steps.2"),
        Rule(f"{layer}.attention.self.query", f"{block}.attention.inner.q"),
        Rule(f"{layer}.attention.self.key", f"{block}.attention.inner.k"),
        Rule(f"{layer}.attention.self.value", f"{block}.attention.inner.v"),
        Rule(f"{layer}.attention.output.dense", f"{block}.attention.inner.out"),
        Rule(f"{layer}.attention.output.LayerNorm", f"{block}.attention.norm"),
        Rule(f"{layer}.intermediate.dense", f"{block}.feedforward.inner.up"),
        Rule(f"{layer}.output.dense", f"{block}.feedforward.inner.down"),
        Rule(f"{layer}.output.LayerNorm", f"{block}.feedforward.norm"),
        Rule(f"{body}pooler.dense", "head.pool.dense" if s.head == "sequence" else "pooler.dense", optional=True),
        ignore(f"{old}.position_ids", "cls.seq_relationship.(weight|bias)"),
    ]
    if masked:
        rules += [
            Rule("cls.predictions.transform.dense", "head.transform.dense"),
            Rule("cls.predictions.transform.LayerNorm", "head.transform.norm"),
            Rule("cls.predictions.bias", "head.bias"),
            Rule("cls.predictions.decoder.bias", "head.bias", written=False),
            tied("cls.predictions.decoder", "stack.embedding.tokens")
            if s.tied
            else Rule("cls.predictions.decoder", "head.tokens"),
        ]
    else:
        rules += [Rule("qa_outputs" if s.head == "span" else "classifier", "head.out"), ignore("cls.predictions.*")]
    return rules if s.head in ("none", "sequence") else [*rules, ignore(f"{body}pooler.dense.(weight|bias)")]

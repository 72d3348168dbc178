"""BLOOM. Decoder · LayerNorm before, and over the embeddings · ALiBi · multi-head · GELU · biases · tied.

BigScience 2022 (BLOOM, arXiv:2211.05100, section 3.2), Press et al. 2022 (ALiBi). The norm over the embeddings kept
training stable (Le Scao et al. 2022, section 4.3). Deviations: none; its GELU is the approximation by tanh.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cutaway.attention import Causal
from cutaway.families.names import DECODER_HEADS, architecture
from cutaway.families.sizes import Checked
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, split_heads, tied
from cutaway.parts import (
    ALiBi,
    Attention,
    Block,
    Embedding,
    FeedForward,
    LayerNorm,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Model,
    Positions,
    PreNorm,
    Stack,
    decoder_head,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int
    width: int
    layers: int
    heads: int
    hidden: int
    context: int = 2048  # trained length; ALiBi works beyond it
    eps: float = 1e-5
    tied: bool = True
    dropout: float = 0.0
    head: str = "lm"
    labels: int = 2


def _bloom(layers: int, width: int, heads: int) -> Sizes:
    return Sizes(250880, width, layers, heads, 4 * width)


PRESETS = {
    "bloom-560m": _bloom(24, 1024, 16),
    "bloom-1b1": _bloom(24, 1536, 16),
    "bloom-1b7": _bloom(24, 2048, 16),
    "bloom-3b": _bloom(30, 2560, 32),
    "bloom-7b1": _bloom(30, 4096, 32),
    "bloom-176b": _bloom(70, 14336, 112),
}
# each model's card
PARAMETERS = {
    "bloom-560m": 559_214_592, "bloom-1b1": 1_065_314_304, "bloom-1b7": 1_722_408_960, "bloom-3b": 3_002_557_440,
    "bloom-7b1": 7_069_016_064, "bloom-176b": 176_247_271_424,
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
    position = position or (lambda causal: Positions(bias=ALiBi(s.heads, "first")))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, "gelu_tanh"))
    place = position(True)

    def attention() -> nn.Module:
        given = {"mask": Causal(), "bias": True, "dropout": s.dropout, **place.attention}
        return (mixer or Attention)(s.width, s.heads, **given)

    embedding = Embedding(s.vocab, s.width, steps=[*place.embedding, norm()])
    blocks = [
        Block(attention=PreNorm(norm(), attention(), s.dropout), feedforward=PreNorm(norm(), feedforward(), s.dropout))
        for _ in range(s.layers)
    ]
    stack = Stack(embedding, blocks, norm())
    head = decoder_head(s.head, stack.embedding.tokens, s.labels, tied=s.tied, dropout=s.dropout)
    model = Model(stack, head, causal=True, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("bloom",)
ARCHITECTURES = DECODER_HEADS
CONFIG = {
    "vocab": "vocab_size", "width": "hidden_size", "layers": "n_layer", "heads": "n_head", "context": "seq_length",
    "eps": "layer_norm_epsilon", "tied": "tie_word_embeddings", "dropout": "hidden_dropout",
}  # fmt: skip
ALSO = {
    "n_embed": "hidden_size",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
}  # other names of keys


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    renamed = {ALSO[name]: value for name, value in config.items() if name in ALSO and value is not None}
    keys = Keys({**{name: value for name, value in config.items() if name not in ALSO}, **renamed}, "bloom")
    given = keys.sizes(CONFIG, Sizes)
    keys.expect("apply_residual_connection_post_layernorm", False)
    keys.expect("n_inner", None, 4 * given["width"])
    # how the published models were trained and are computed faster: none changes a number
    keys.ignore("attention_dropout", "classifier_dropout", "initializer_range", "pretraining_tp", "slow_but_exact")
    keys.ignore("attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi")
    keys.ignore("skip_bias_add", "skip_bias_add_qkv")
    head, labels = keys.head(ARCHITECTURES, "lm"), keys.labels()
    sizes = Sizes(**given, hidden=4 * given["width"], head=head, labels=labels)
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    config = {
        "model_type": "bloom",
        "architectures": [architecture("Bloom", s.head, ARCHITECTURES)],
        **published(s, CONFIG),
        "attention_dropout": s.dropout,
        **labelled(s.head, s.labels),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    body = "(|transformer.)" if s.head == "none" else "(transformer.|)"
    layer, block = f"{body}h.{{i}}", "stack.blocks.{i}"
    attention = f"{block}.attention.inner"
    fused = (f"{attention}.q", f"{attention}.k", f"{attention}.v")
    return [
        Rule(f"{body}word_embeddings", "stack.embedding.tokens"),
        Rule(f"{body}word_embeddings_layernorm", "stack.embedding.steps.0"),
        Rule(f"{layer}.input_layernorm", f"{block}.attention.norm"),
        Rule(f"{layer}.self_attention.query_key_value", fused, split_heads(s.heads)),
        Rule(f"{layer}.self_attention.dense", f"{attention}.out"),
        Rule(f"{layer}.post_attention_layernorm", f"{block}.feedforward.norm"),
        Rule(f"{layer}.mlp.dense_h_to_4h", f"{block}.feedforward.inner.up"),
        Rule(f"{layer}.mlp.dense_4h_to_h", f"{block}.feedforward.inner.down"),
        Rule(f"{body}ln_f", "stack.norm"),
        tied("lm_head", "stack.embedding.tokens") if s.tied else Rule("lm_head", "head.tokens"),
        Rule("score" if s.head == "sequence" else "classifier", "head.out"),
    ]

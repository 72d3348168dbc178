"""GPT-2 and GPT-3. Decoder · LayerNorm before · learned positions · multi-head · GELU · biases · tied.

Radford et al. 2019 (GPT-2), Brown et al. 2020 (GPT-3, arXiv:2005.14165, table 2.1). Deviations: GPT-3
alternates dense and locally banded layers (section 2.1); its presets here are dense throughout, which changes no parameter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cutaway.attention import Causal
from cutaway.families.sizes import Checked, divided
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, ignore, split_transposed, tied, transpose
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
    Model,
    Positions,
    PreNorm,
    Stack,
    decoder_head,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 50257
    width: int = 768
    layers: int = 12
    heads: int = 12
    head_width: int = 64
    hidden: int = 3072
    context: int = 1024
    eps: float = 1e-5
    act: str = "gelu_new"
    scaled: bool = True  # logits divided by sqrt(E)
    scaled_by_layer: bool = False  # and by the layer's number (Mistral's GPT-2 runs, 2021)
    tied: bool = True
    dropout: float = 0.1
    head: str = "lm"
    labels: int = 2


def _gpt3(layers: int, width: int, heads: int, head_width: int) -> Sizes:
    return Sizes(50257, width, layers, heads, head_width, 4 * width, 2048)


PRESETS = {
    "gpt2": Sizes(),
    "gpt2-medium": Sizes(width=1024, layers=24, heads=16, hidden=4096),
    "gpt2-large": Sizes(width=1280, layers=36, heads=20, hidden=5120),
    "gpt2-xl": Sizes(width=1600, layers=48, heads=25, hidden=6400),
    "distilgpt2": Sizes(layers=6),
    "gpt3-125m": _gpt3(12, 768, 12, 64),
    "gpt3-350m": _gpt3(24, 1024, 16, 64),
    "gpt3-760m": _gpt3(24, 1536, 16, 96),
    "gpt3-1.3b": _gpt3(24, 2048, 16, 128),
    "gpt3-2.7b": _gpt3(32, 2560, 32, 80),
    "gpt3-6.7b": _gpt3(32, 4096, 32, 128),
    "gpt3-13b": _gpt3(40, 5120, 40, 128),
    "gpt3-175b": _gpt3(96, 12288, 96, 128),
}
# elements of the published weights; GPT-2's smallest is often misquoted as 117M. GPT-3's weights were never published:
# its sizes give table D.1's millions, with 16 heads for 1.3B and width 5120 for 13B where table 2.1 has 24 and 5140
PARAMETERS = {
    "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200,
    "distilgpt2": 81_912_576,
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
    place = position(True)

    def attention(layer: int) -> nn.Module:
        scale = (s.head_width**-0.5 if s.scaled else 1.0) / (layer + 1 if s.scaled_by_layer else 1)
        given = {"mask": Causal(), "bias": True, "scale": scale, "dropout": s.dropout, **place.attention}
        return (mixer or Attention)(s.width, s.heads, head_width=s.head_width, **given)

    blocks = [
        Block(
            attention=PreNorm(norm(), attention(layer), s.dropout),
            feedforward=PreNorm(norm(), feedforward(), s.dropout),
        )
        for layer in range(s.layers)
    ]
    stack = Stack(Embedding(s.vocab, s.width, steps=[*place.embedding, Dropout(s.dropout)]), blocks, norm())
    head = decoder_head(s.head, stack.embedding.tokens, s.labels, tied=s.tied, dropout=s.dropout)
    model = Model(stack, head, causal=True, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("gpt2",)
ARCHITECTURES = {
    "GPT2LMHeadModel": "lm",
    "GPT2ForSequenceClassification": "sequence",
    "GPT2ForTokenClassification": "token",
    "GPT2Model": "none",
}


CONFIG = {
    "vocab": "vocab_size", "width": "n_embd", "layers": "n_layer", "heads": "n_head", "context": "n_positions",
    "eps": "layer_norm_epsilon", "act": "activation_function", "scaled": "scale_attn_weights",
    "scaled_by_layer": "scale_attn_by_inverse_layer_idx", "tied": "tie_word_embeddings", "dropout": "resid_pdrop",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "gpt2")
    given = keys.sizes(CONFIG, Sizes)
    # how the reference computes, and its other heads' settings: none changes what is computed here
    keys.ignore("reorder_and_upcast_attn", "summary_type", "summary_use_proj", "summary_activation", "n_ctx")
    keys.ignore("summary_proj_to_labels", "summary_first_dropout", "initializer_range", "classifier_dropout")
    keys.ignore("embd_pdrop", "attn_pdrop", "hidden_dropout")
    sizes = Sizes(
        **given,
        head_width=divided(given["width"], given["heads"]),
        hidden=keys.size("n_inner", None) or 4 * given["width"],
        head=keys.head(ARCHITECTURES, "lm"),
        labels=keys.labels(),
    )
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    config = {
        "model_type": "gpt2",
        "architectures": [{v: k for k, v in ARCHITECTURES.items()}[s.head]],
        **published(s, CONFIG),
        "n_inner": s.hidden,
        "embd_pdrop": s.dropout,
        "attn_pdrop": s.dropout,
        **labelled(s.head, s.labels),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    body = "(|transformer.)" if s.head == "none" else "(transformer.|)"
    layer, block = f"{body}h.{{i}}", "stack.blocks.{i}"
    attention = f"{block}.attention.inner"
    return [
        Rule(f"{body}wte", "stack.embedding.tokens"),
        Rule(f"{body}wpe", "stack.embedding.steps.0"),
        Rule(f"{layer}.ln_1", f"{block}.attention.norm"),
        Rule(f"{layer}.attn.c_attn", (f"{attention}.q", f"{attention}.k", f"{attention}.v"), split_transposed(3)),
        Rule(f"{layer}.attn.c_proj", f"{attention}.out", transpose),
        Rule(f"{layer}.ln_2", f"{block}.feedforward.norm"),
        Rule(f"{layer}.mlp.c_fc", f"{block}.feedforward.inner.up", transpose),
        Rule(f"{layer}.mlp.c_proj", f"{block}.feedforward.inner.down", transpose),
        Rule(f"{body}ln_f", "stack.norm"),
        tied("lm_head", "stack.embedding.tokens") if s.tied else Rule("lm_head", "head.tokens"),
        Rule("(score|classifier)" if s.head == "sequence" else "(classifier|score)", "head.out"),
        ignore(f"{layer}.attn.(bias|masked_bias)"),
    ]

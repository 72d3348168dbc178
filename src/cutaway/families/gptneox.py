"""GPT-NeoX and Pythia. Decoder · LayerNorm before · attention and feed-forward side by side · partial rotary · biases.

Black et al. 2022 (GPT-NeoX-20B, arXiv:2204.06745, section 2.1), Biderman et al. 2023 (Pythia, arXiv:2304.01373). Rotary
turns the first quarter of each head; with `parallel=False` the sublayers follow one another. Deviations: none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cutaway.attention import Causal
from cutaway.families.names import DECODER_HEADS, architecture, read_rotary, write_rotary
from cutaway.families.sizes import Checked
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, ignore, split_heads, tied
from cutaway.parts import (
    Attention,
    Block,
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Model,
    Parallel,
    Positions,
    PreNorm,
    Rotary,
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
    context: int = 2048  # trained length; rotary works beyond it, only worse
    rotary_share: float = 0.25  # of each head's numbers
    rotary_base: float = 10_000.0
    rotary_scaling: dict[str, Any] | None = None
    parallel: bool = True  # attention and feed-forward side by side
    attention_bias: bool = True
    eps: float = 1e-5
    act: str = "gelu"
    tied: bool = False
    dropout: float = 0.0
    head: str = "lm"
    labels: int = 2


def _pythia(layers: int, width: int, heads: int, vocab: int = 50304) -> Sizes:
    return Sizes(vocab, width, layers, heads, 4 * width)


PRESETS = {
    "pythia-14m": _pythia(6, 128, 4),
    "pythia-31m": _pythia(6, 256, 8),
    "pythia-70m": _pythia(6, 512, 8),
    "pythia-160m": _pythia(12, 768, 12),
    "pythia-410m": _pythia(24, 1024, 16),
    "pythia-1b": _pythia(16, 2048, 8),
    "pythia-1.4b": _pythia(24, 2048, 16),
    "pythia-2.8b": _pythia(32, 2560, 32),
    "pythia-6.9b": _pythia(32, 4096, 32, 50432),
    "pythia-12b": _pythia(36, 5120, 40, 50688),
    "gpt-neox-20b": Sizes(50432, 6144, 44, 64, 24576, act="gelu_fast"),
}
# Pythia's table of models; the 20B's, and those of the two smallest, are elements of the published weights
PARAMETERS = {
    "pythia-14m": 14_067_712, "pythia-31m": 30_494_720, "pythia-70m": 70_426_624, "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016, "pythia-1b": 1_011_781_632, "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960, "pythia-6.9b": 6_857_302_016, "pythia-12b": 11_846_072_320,
    "gpt-neox-20b": 20_554_567_680,
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
    position = position or (lambda causal: Positions(steps=[_rotary(s)]))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act))
    place = position(True)

    def attention() -> nn.Module:
        given = {"mask": Causal(), "bias": s.attention_bias, "dropout": s.dropout, **place.attention}
        return (mixer or Attention)(s.width, s.heads, **given)

    arrange = Parallel if s.parallel else Block
    blocks = [
        arrange(
            attention=PreNorm(norm(), attention(), s.dropout), feedforward=PreNorm(norm(), feedforward(), s.dropout)
        )
        for _ in range(s.layers)
    ]
    stack = Stack(Embedding(s.vocab, s.width, steps=[*place.embedding, Dropout(s.dropout)]), blocks, norm())
    head = decoder_head(s.head, stack.embedding.tokens, s.labels, tied=s.tied, dropout=s.dropout)
    model = Model(stack, head, causal=True, max_positions=place.limit)
    initialise(model)
    return model


def _rotary(s: Sizes) -> Rotary:
    head_width = s.width // s.heads
    return Rotary(head_width, s.rotary_base, width=int(head_width * s.rotary_share), scaling=s.rotary_scaling)


MODEL_TYPES = ("gpt_neox",)
ARCHITECTURES = DECODER_HEADS
CONFIG = {
    "vocab": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "hidden": "intermediate_size", "context": "max_position_embeddings", "parallel": "use_parallel_residual",
    "attention_bias": "attention_bias", "eps": "layer_norm_eps", "act": "hidden_act", "tied": "tie_word_embeddings",
    "dropout": "hidden_dropout",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "gpt_neox")
    given = keys.sizes(CONFIG, Sizes)
    # the last two are an older spelling, in the 20B's own config
    keys.ignore("attention_dropout", "classifier_dropout", "initializer_range")
    keys.ignore("attention_probs_dropout_prob", "hidden_dropout_prob")
    rotary = read_rotary(keys, given["context"], "rotary_emb_base", "rotary_pct")
    sizes = Sizes(**given, **rotary, head=keys.head(ARCHITECTURES, "lm"), labels=keys.labels())
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    config = {
        "model_type": "gpt_neox",
        "architectures": [architecture("GPTNeoX", s.head, ARCHITECTURES)],
        **published(s, CONFIG),
        "attention_dropout": s.dropout,
        "rope_parameters": write_rotary(s),
        **labelled(s.head, s.labels),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    body = "(|gpt_neox.)" if s.head == "none" else "(gpt_neox.|)"
    layer, block = f"{body}layers.{{i}}", "stack.blocks.{i}"
    attention = f"{block}.attention.inner"
    fused = (f"{attention}.q", f"{attention}.k", f"{attention}.v")
    output = "(embed_out|lm_head)"  # the newer name is the reference's own, not the checkpoints'
    return [
        Rule(f"{body}embed_in", "stack.embedding.tokens"),
        Rule(f"{layer}.input_layernorm", f"{block}.attention.norm"),
        Rule(f"{layer}.attention.query_key_value", fused, split_heads(s.heads)),
        Rule(f"{layer}.attention.dense", f"{attention}.out"),
        Rule(f"{layer}.post_attention_layernorm", f"{block}.feedforward.norm"),
        Rule(f"{layer}.mlp.dense_h_to_4h", f"{block}.feedforward.inner.up"),
        Rule(f"{layer}.mlp.dense_4h_to_h", f"{block}.feedforward.inner.down"),
        Rule(f"{body}final_layer_norm", "stack.norm"),
        tied(output, "stack.embedding.tokens") if s.tied else Rule(output, "head.tokens"),
        Rule("score" if s.head == "sequence" else "classifier", "head.out"),
        ignore(f"{layer}.attention.(bias|masked_bias)", "*rotary_emb.inv_freq"),
    ]

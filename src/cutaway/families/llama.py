"""LLaMA. Decoder · RMSNorm before · rotary · grouped k,v · SwiGLU · no biases.

Touvron et al. 2023 (LLaMA, arXiv:2302.13971; Llama 2, arXiv:2307.09288), Grattafiori et al. 2024 (Llama 3), Jiang et
al. 2023 (Mistral: the same with a sliding window), Allal et al. 2025 (SmolLM2). Deviations: none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cutaway.attention import Causal, Full, Window
from cutaway.families.names import DECODER_HEADS, LLAMA_CONFIG, architecture, llama_weights, read_rotary, write_rotary
from cutaway.families.sizes import Checked, divided
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule
from cutaway.parts import (
    Attention,
    Block,
    Embedding,
    Gated,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Model,
    Positions,
    PreNorm,
    RMSNorm,
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
    kv_heads: int
    hidden: int
    head_width: int
    context: int = 2048  # trained length; rotary works beyond it, only worse
    rotary_base: float = 10_000.0
    rotary_scaling: dict[str, Any] | None = None
    window: int | None = None  # keys a query sees, its own included
    eps: float = 1e-5
    act: str = "silu"
    attention_bias: bool = False
    feedforward_bias: bool = False
    tied: bool = False
    dropout: float = 0.0
    head: str = "lm"
    labels: int = 2


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
PRESETS = {
    "llama-7b": Sizes(32000, 4096, 32, 32, 32, 11008, 128),
    "llama-13b": Sizes(32000, 5120, 40, 40, 40, 13824, 128),
    "llama-30b": Sizes(32000, 6656, 60, 52, 52, 17920, 128),
    "llama-65b": Sizes(32000, 8192, 80, 64, 64, 22016, 128),
    "llama-2-7b": Sizes(32000, 4096, 32, 32, 32, 11008, 128, 4096),
    "llama-2-13b": Sizes(32000, 5120, 40, 40, 40, 13824, 128, 4096),
    "llama-2-70b": Sizes(32000, 8192, 80, 64, 8, 28672, 128, 4096),
    "llama-3-8b": Sizes(128256, 4096, 32, 32, 8, 14336, 128, 8192, 5e5),
    "llama-3-70b": Sizes(128256, 8192, 80, 64, 8, 28672, 128, 8192, 5e5),
    "llama-3.1-8b": Sizes(128256, 4096, 32, 32, 8, 14336, 128, 131072, 5e5, LLAMA3),
    "llama-3.2-1b": Sizes(128256, 2048, 16, 32, 8, 8192, 64, 131072, 5e5, {**LLAMA3, "factor": 32.0}, tied=True),
    "llama-3.2-3b": Sizes(128256, 3072, 28, 24, 8, 8192, 128, 131072, 5e5, {**LLAMA3, "factor": 32.0}, tied=True),
    "mistral-7b": Sizes(32000, 4096, 32, 32, 8, 14336, 128, 32768, window=4096),
    "smollm2-135m": Sizes(49152, 576, 30, 9, 3, 1536, 64, 8192, 1e5, tied=True),
    "smollm2-360m": Sizes(49152, 960, 32, 15, 5, 2560, 64, 8192, 1e5, tied=True),
    "smollm2-1.7b": Sizes(49152, 2048, 24, 32, 32, 8192, 64, 8192, 1.3e5, tied=True),
}
# elements of the published weights: each model's safetensors index
PARAMETERS = {
    "llama-7b": 6_738_415_616, "llama-13b": 13_015_864_320, "llama-30b": 32_528_943_616, "llama-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616, "llama-2-13b": 13_015_864_320, "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248, "llama-3-70b": 70_553_706_496, "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400, "llama-3.2-3b": 3_212_749_824, "mistral-7b": 7_241_732_096,
    "smollm2-135m": 134_515_008, "smollm2-360m": 361_821_120, "smollm2-1.7b": 1_711_376_384,
}  # fmt: skip


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: RMSNorm(s.width, s.eps))
    position = position or (lambda causal: Positions(steps=[rotary]))
    feedforward = feedforward or (lambda: Gated(s.width, s.hidden, s.act, bias=s.feedforward_bias))
    rotary = Rotary(s.head_width, s.rotary_base, scaling=s.rotary_scaling)
    place = position(True)
    mask = Causal() & (Full() if s.window is None else Window(s.window))

    def attention() -> nn.Module:
        sizes = (s.width, s.heads, s.kv_heads, s.head_width)
        return (mixer or Attention)(*sizes, mask=mask, bias=s.attention_bias, dropout=s.dropout, **place.attention)

    blocks = [
        Block(attention=PreNorm(norm(), attention()), feedforward=PreNorm(norm(), feedforward()))
        for _ in range(s.layers)
    ]
    stack = Stack(Embedding(s.vocab, s.width, steps=place.embedding), blocks, norm())
    head = decoder_head(s.head, stack.embedding.tokens, s.labels, tied=s.tied)
    model = Model(stack, head, causal=True, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("llama", "mistral")
ARCHITECTURES = DECODER_HEADS
CONFIG = {**LLAMA_CONFIG, "act": "hidden_act", "attention_bias": "attention_bias", "feedforward_bias": "mlp_bias"}


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "llama")
    given = keys.sizes(CONFIG, Sizes)
    keys.expect("pretraining_tp", 1)
    keys.expect("rope_interleaved", False)
    keys.ignore("initializer_range")
    sizes = Sizes(
        **given,
        kv_heads=keys.size("num_key_value_heads", given["heads"]),
        head_width=keys.size("head_dim", None) or divided(given["width"], given["heads"]),
        **read_rotary(keys, given["context"]),
        window=keys.size("sliding_window", None) if config.get("model_type") == "mistral" else None,
        head=keys.head(ARCHITECTURES, "lm"),
        labels=keys.labels(),
    )
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    kind = "llama" if s.window is None else "mistral"
    config = {
        "model_type": kind,
        "architectures": [architecture(kind.capitalize(), s.head, ARCHITECTURES)],
        **{key: value for key, value in published(s, CONFIG).items() if kind == "llama" or not key.endswith("_bias")},
        "num_key_value_heads": s.kv_heads,
        "head_dim": s.head_width,
        "rope_parameters": write_rotary(s),
        **({"sliding_window": s.window} if kind == "mistral" else {}),
        **labelled(s.head, s.labels),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    return llama_weights(s, {"input_layernorm": "attention.norm", "post_attention_layernorm": "feedforward.norm"})

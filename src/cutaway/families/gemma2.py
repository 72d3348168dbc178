"""Gemma 2. Decoder · RMSNorm before and after · rotary · grouped k,v · windows in every other layer · GeGLU · soft caps · tied.

Gemma team 2024 (arXiv:2408.00118, section 2). The embeddings are multiplied by sqrt(D), the norms learn their difference
from 1, and attention's logits are divided by the root of a published number. Deviations: in bfloat16 the published code
rounds sqrt(D) first (48 for 2B, 59.75 instead of 59.87 for 9B); here it is not rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cutaway.attention import Causal, Window
from cutaway.errors import ConfigError
from cutaway.families.names import (
    DECODER_HEADS,
    FULL,
    LLAMA_CONFIG,
    SLIDING,
    architecture,
    llama_weights,
    read_rotary,
    write_rotary,
)
from cutaway.families.sizes import Checked
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
    RMSNorm,
    Rotary,
    Sandwich,
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
    scale_from: int = 256  # logits are divided by its root (`query_pre_attn_scalar`)
    context: int = 8192  # trained length; rotary works beyond it, only worse
    rotary_base: float = 10_000.0
    rotary_scaling: dict[str, Any] | None = None
    window: int | None = 4096  # keys a query sees in the first layer, the third, …, its own included
    softcap: float | None = 50.0  # of attention's logits
    last_softcap: float | None = 30.0  # of the vocabulary's
    attention_bias: bool = False
    eps: float = 1e-6
    act: str = "gelu_pytorch_tanh"
    tied: bool = True
    dropout: float = 0.0
    head: str = "lm"
    labels: int = 2


PRESETS = {
    "gemma-2-2b": Sizes(256000, 2304, 26, 8, 4, 9216, 256),
    "gemma-2-9b": Sizes(256000, 3584, 42, 16, 8, 14336, 256),
    "gemma-2-27b": Sizes(256000, 4608, 46, 32, 16, 36864, 128, 144),
}
# elements of the published weights
PARAMETERS = {"gemma-2-2b": 2_614_341_888, "gemma-2-9b": 9_241_705_984, "gemma-2-27b": 27_227_128_320}


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: RMSNorm(s.width, s.eps, offset=1.0))
    position = position or (lambda causal: Positions(steps=[rotary]))
    feedforward = feedforward or (lambda: Gated(s.width, s.hidden, s.act))
    rotary = Rotary(s.head_width, s.rotary_base, scaling=s.rotary_scaling)
    place = position(True)

    def attention(layer: int) -> nn.Module:
        mask = Causal() if s.window is None or layer % 2 else Causal() & Window(s.window)
        given = {"mask": mask, "bias": s.attention_bias, "dropout": s.dropout, **place.attention}
        caps = {"scale": s.scale_from**-0.5, "softcap": s.softcap}
        return (mixer or Attention)(s.width, s.heads, s.kv_heads, s.head_width, **given, **caps)

    blocks = [
        Block(attention=Sandwich(norm(), attention(layer), norm()), feedforward=Sandwich(norm(), feedforward(), norm()))
        for layer in range(s.layers)
    ]
    stack = Stack(Embedding(s.vocab, s.width, scale=s.width**0.5, steps=place.embedding), blocks, norm())
    head = decoder_head(s.head, stack.embedding.tokens, s.labels, tied=s.tied, softcap=s.last_softcap)
    model = Model(stack, head, causal=True, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("gemma2",)
ARCHITECTURES = DECODER_HEADS
CONFIG = {
    **LLAMA_CONFIG, "kv_heads": "num_key_value_heads", "head_width": "head_dim", "scale_from": "query_pre_attn_scalar",
    "act": "hidden_activation", "attention_bias": "attention_bias",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "gemma2")
    given = keys.sizes(CONFIG, Sizes)

    def cap(name: str, default: float) -> float | None:
        return keys.take(name, None if name in config else default, float)  # null is none

    keys.expect("use_bidirectional_attention", False)
    # an older name that the reference does not read, and how its cache is laid out
    keys.ignore("hidden_act", "cache_implementation", "initializer_range")
    sizes = Sizes(
        **given,
        **read_rotary(keys, given["context"]),
        window=_read_window(keys, given["layers"]),
        softcap=cap("attn_logit_softcapping", 50.0),
        last_softcap=cap("final_logit_softcapping", 30.0),
        head=keys.head(ARCHITECTURES, "lm"),
        labels=keys.labels(),
    )
    keys.finish()
    return sizes


def _read_window(keys: Keys, layers: int) -> int | None:
    window, kinds = keys.size("sliding_window", 4096), keys.take("layer_types", None, list)
    if kinds is None or (len(kinds) == layers and kinds == _kinds(layers, window)):
        return window
    if kinds != [FULL] * len(kinds) or len(kinds) != layers:
        raise ConfigError(f"the gemma2 config has layer_types other than {SLIDING!r} and {FULL!r} in turn")
    return None


def _kinds(layers: int, window: int | None) -> list[str]:
    return [FULL if window is None or layer % 2 else SLIDING for layer in range(layers)]


def write(s: Sizes) -> dict[str, Any]:
    config = {
        "model_type": "gemma2",
        "architectures": [architecture("Gemma2", s.head, ARCHITECTURES)],
        **published(s, CONFIG),
        "rope_parameters": write_rotary(s),
        "sliding_window": s.window or 4096,
        "layer_types": _kinds(s.layers, s.window),
        "attn_logit_softcapping": s.softcap,
        "final_logit_softcapping": s.last_softcap,
        **labelled(s.head, s.labels),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    norms = {
        "input_layernorm": "attention.before",
        "post_attention_layernorm": "attention.after",
        "pre_feedforward_layernorm": "feedforward.before",
        "post_feedforward_layernorm": "feedforward.after",
    }
    return llama_weights(s, norms)

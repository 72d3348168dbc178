"""Qwen2, Qwen2.5 and Qwen3. Decoder · RMSNorm before · rotary · grouped k,v · SwiGLU · biases on q,k,v, or norms on q,k.

Yang et al. 2024 (Qwen2, arXiv:2407.10671), Qwen team 2024 (Qwen2.5, arXiv:2412.15115), Yang et al. 2025 (Qwen3,
arXiv:2505.09388). The last layers may see a window (`use_sliding_window`). Deviations: none; mixtures of experts are not here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cutaway.attention import Causal, Mask, Window
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
    context: int = 32768  # trained length; rotary works beyond it, only worse
    rotary_base: float = 1_000_000.0
    rotary_scaling: dict[str, Any] | None = None
    qkv_bias: bool = True
    out_bias: bool = False
    qk_norm: bool = False  # each head's q and k, before they turn (Qwen3)
    window: int | None = None  # keys that a query of the last layers sees, its own included
    windowed: int | None = None  # how many layers those are; None is all
    eps: float = 1e-6
    act: str = "silu"
    tied: bool = False
    dropout: float = 0.0
    head: str = "lm"
    labels: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.windowed is not None and (self.window is None or self.windowed >= self.layers):
            object.__setattr__(self, "windowed", None)  # equal models have equal sizes


def _qwen2(width: int, layers: int, heads: int, kv_heads: int, hidden: int, context: int, **more: Any) -> Sizes:
    vocab = 151936 if more.get("tied") or width < 3584 else 152064
    return Sizes(vocab, width, layers, heads, kv_heads, hidden, width // heads, context, **more)


def _qwen3(width: int, layers: int, heads: int, hidden: int, *, tied: bool = False) -> Sizes:
    return Sizes(151936, width, layers, heads, 8, hidden, 128, 40960, qkv_bias=False, qk_norm=True, tied=tied)


PRESETS = {
    "qwen2-0.5b": _qwen2(896, 24, 14, 2, 4864, 131072, tied=True),
    "qwen2-1.5b": _qwen2(1536, 28, 12, 2, 8960, 131072, tied=True),
    "qwen2-7b": _qwen2(3584, 28, 28, 4, 18944, 131072),
    "qwen2-72b": _qwen2(8192, 80, 64, 8, 29568, 131072, eps=1e-5),
    "qwen2.5-0.5b": _qwen2(896, 24, 14, 2, 4864, 32768, tied=True),
    "qwen2.5-1.5b": _qwen2(1536, 28, 12, 2, 8960, 131072, tied=True),
    "qwen2.5-3b": _qwen2(2048, 36, 16, 2, 11008, 32768, tied=True),
    "qwen2.5-7b": _qwen2(3584, 28, 28, 4, 18944, 131072),
    "qwen2.5-14b": _qwen2(5120, 48, 40, 8, 13824, 131072, eps=1e-5),
    "qwen2.5-32b": _qwen2(5120, 64, 40, 8, 27648, 131072, eps=1e-5),
    "qwen2.5-72b": _qwen2(8192, 80, 64, 8, 29568, 131072, eps=1e-5),
    "qwen3-0.6b": _qwen3(1024, 28, 16, 3072, tied=True),
    "qwen3-1.7b": _qwen3(2048, 28, 16, 6144, tied=True),
    "qwen3-4b": _qwen3(2560, 36, 32, 9728, tied=True),
    "qwen3-8b": _qwen3(4096, 36, 32, 12288),
    "qwen3-14b": _qwen3(5120, 40, 40, 17408),
    "qwen3-32b": _qwen3(5120, 64, 64, 25600),
}
# elements of the published weights, a tied table once (the files of the two smallest Qwen3 hold it twice)
PARAMETERS = {
    "qwen2-0.5b": 494_032_768, "qwen2-1.5b": 1_543_714_304, "qwen2-7b": 7_615_616_512, "qwen2-72b": 72_706_203_648,
    "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304, "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512, "qwen2.5-14b": 14_770_033_664, "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648, "qwen3-0.6b": 596_049_920, "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096, "qwen3-8b": 8_190_735_360, "qwen3-14b": 14_768_307_200, "qwen3-32b": 32_762_123_264,
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
    feedforward = feedforward or (lambda: Gated(s.width, s.hidden, s.act))
    rotary = Rotary(s.head_width, s.rotary_base, scaling=s.rotary_scaling)
    place = position(True)

    def attention(mask: Mask) -> nn.Module:
        given: dict[str, Any] = {"mask": mask, "bias": s.qkv_bias, "out_bias": s.out_bias, "dropout": s.dropout}
        given |= place.attention
        if s.qk_norm:
            given |= {steps: [RMSNorm(s.head_width, s.eps), *place.steps] for steps in ("q_steps", "k_steps")}
        return (mixer or Attention)(s.width, s.heads, s.kv_heads, s.head_width, **given)

    whole = s.layers if s.window is None else 0 if s.windowed is None else s.layers - s.windowed
    masks = [Causal() if s.window is None or i < whole else Causal() & Window(s.window) for i in range(s.layers)]
    blocks = [
        Block(attention=PreNorm(norm(), attention(mask)), feedforward=PreNorm(norm(), feedforward())) for mask in masks
    ]
    stack = Stack(Embedding(s.vocab, s.width, steps=place.embedding), blocks, norm())
    head = decoder_head(s.head, stack.embedding.tokens, s.labels, tied=s.tied)
    model = Model(stack, head, causal=True, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("qwen2", "qwen3")
ARCHITECTURES = DECODER_HEADS
CONFIG = {**LLAMA_CONFIG, "act": "hidden_act"}


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "qwen")
    given = keys.sizes(CONFIG, Sizes)
    third = config.get("model_type") == "qwen3"
    bias = keys.take("attention_bias", False) if third else True
    keys.expect("use_mrope", False)
    keys.ignore("initializer_range")
    sizes = Sizes(
        **given,
        kv_heads=keys.size("num_key_value_heads", given["heads"]),
        head_width=keys.size("head_dim", None) or (128 if third else divided(given["width"], given["heads"])),
        **read_rotary(keys, given["context"]),
        qkv_bias=bias,
        out_bias=bias and third,
        qk_norm=third,
        **_read_windows(keys, given["layers"]),
        head=keys.head(ARCHITECTURES, "lm"),
        labels=keys.labels(),
    )
    keys.finish()
    return sizes


def _read_windows(keys: Keys, layers: int) -> dict[str, Any]:
    """The layers from `max_window_layers` on have windows, or those that `layer_types` names."""
    window = keys.size("sliding_window") if keys.take("use_sliding_window", False) else None
    whole, kinds = min(keys.take("max_window_layers", 28), layers), keys.take("layer_types", None, list)
    keys.ignore("sliding_window")
    if kinds is not None:
        whole = kinds.count(FULL)
        if len(kinds) != layers or kinds != [FULL] * whole + [SLIDING] * (layers - whole):
            raise ConfigError(f"the qwen config has layer_types other than {FULL!r}, then {SLIDING!r}, for each layer")
        if window is None and whole < layers:
            raise ConfigError("the qwen config has layer_types with windows, and use_sliding_window: False")
    return {"window": None, "windowed": None} if whole == layers else {"window": window, "windowed": layers - whole}


def write(s: Sizes) -> dict[str, Any]:
    kind = "qwen3" if s.qk_norm else "qwen2"
    windowed = 0 if s.window is None else s.windowed or s.layers
    config = {
        "model_type": kind,
        "architectures": [architecture(kind.capitalize(), s.head, ARCHITECTURES)],
        **published(s, CONFIG),
        "num_key_value_heads": s.kv_heads,
        "head_dim": s.head_width,
        "rope_parameters": write_rotary(s),
        "use_sliding_window": s.window is not None,
        "sliding_window": s.window,
        "max_window_layers": s.layers - windowed,
        "layer_types": [FULL] * (s.layers - windowed) + [SLIDING] * windowed,
        **({"attention_bias": s.qkv_bias} if s.qk_norm else {}),
        **labelled(s.head, s.labels),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    norms = {
        "input_layernorm": "attention.norm",
        "self_attn.q_norm": "attention.inner.q_steps.0",
        "self_attn.k_norm": "attention.inner.k_steps.0",
        "post_attention_layernorm": "feedforward.norm",
    }
    return llama_weights(s, norms)

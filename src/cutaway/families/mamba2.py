"""Mamba-2. Decoder · RMSNorm before · no positions · scans with one decay a head instead of attention · no feed-forward.

Dao and Gu 2024 (arXiv:2405.21060), as converted for the reference library; Mamba-Codestral (Mistral AI 2024) has groups
of heads and two tables. Deviations: steps keep within their limits at decoding too, which the reference forgets there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cutaway.attention import Causal
from cutaway.errors import ConfigError
from cutaway.families.sizes import Checked, divided
from cutaway.keys import Keys, faithful, published
from cutaway.layout import Rule, split, tied
from cutaway.parts import (
    Block,
    Embedding,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Mamba2,
    Model,
    Narrow,
    Positions,
    PreNorm,
    RMSNorm,
    Stack,
    Wide,
    decoder_head,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 50288
    width: int = 768
    layers: int = 24
    expand: int = 2  # channels for each of the width
    head_width: int = 64
    groups: int = 1  # of heads that share B and C
    state: int = 128  # numbers each channel of a head remembers
    kernel: int = 4  # tokens the convolution sees
    least_step: float | None = None
    most_step: float | None = None
    eps: float = 1e-5
    act: str = "silu"
    bias: bool = False
    conv_bias: bool = True
    wide: bool = True  # the residual stream in float32, whatever the weights are in
    tied: bool = True
    head: str = "lm"
    labels: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        divided(self.heads, self.groups)

    @property
    def heads(self) -> int:
        return divided(self.expand * self.width, self.head_width)


PRESETS = {
    "mamba2-130m": Sizes(),
    "mamba2-370m": Sizes(width=1024, layers=48),
    "mamba2-780m": Sizes(width=1536, layers=48),
    "mamba2-1.3b": Sizes(width=2048, layers=48),
    "mamba2-2.7b": Sizes(width=2560, layers=64),
    "mamba-codestral-7b": Sizes(32768, 4096, 64, groups=8, tied=False),
}
# elements of the published weights, as the reference's own class counts each published configuration
PARAMETERS = {
    "mamba2-130m": 128_989_632, "mamba2-370m": 368_346_624, "mamba2-780m": 780_161_280, "mamba2-1.3b": 1_343_757_312,
    "mamba2-2.7b": 2_702_599_680, "mamba-codestral-7b": 7_285_403_648,
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
    place = position(True) if position else Positions()
    residual = Wide if s.wide else PreNorm
    sizes = {"expand": s.expand, "head_size": s.head_width, "groups": s.groups, "state": s.state, "kernel": s.kernel}
    kind = {"limits": (s.least_step, s.most_step), "act": s.act, "eps": s.eps, "bias": s.bias, "conv_bias": s.conv_bias}

    def scan() -> nn.Module:
        if mixer:
            return mixer(s.width, s.heads, mask=Causal(), **place.attention)
        made = Mamba2(s.width, **sizes, **kind)
        with torch.no_grad():
            made.out.weight /= s.layers**0.5  # so that the residual stream does not grow with depth (published code)
        return made

    def block() -> Block:
        after = {"feedforward": residual(norm(), feedforward())} if feedforward else {}
        return Block(mixer=residual(norm(), scan()), **after)

    blocks = [block() for _ in range(s.layers)]
    stack = Stack(Embedding(s.vocab, s.width, steps=place.embedding), blocks, Narrow(norm()) if s.wide else norm())
    nn.init.normal_(stack.embedding.tokens.weight, std=0.02)
    head = decoder_head(s.head, stack.embedding.tokens, s.labels, tied=s.tied)
    return Model(stack, head, causal=True, max_positions=place.limit)


MODEL_TYPES = ("mamba2",)
ARCHITECTURES = {"Mamba2ForCausalLM": "lm", "Mamba2Model": "none"}
CONFIG = {
    "vocab": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "expand": "expand",
    "head_width": "head_dim", "groups": ("n_groups", 8), "state": "state_size", "kernel": "conv_kernel",
    "eps": "layer_norm_epsilon", "act": "hidden_act", "bias": "use_bias", "conv_bias": "use_conv_bias",
    "wide": "residual_in_fp32", "tied": ("tie_word_embeddings", False),
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "mamba2")
    given = keys.sizes(CONFIG, Sizes)
    least, most = (_limit(x) for x in _pair(keys.take("time_step_limit", [0.0, None], list)))
    sizes = Sizes(**given, least_step=least, most_step=most, head=keys.head(ARCHITECTURES, "lm"), labels=keys.labels())
    keys.expect("num_heads", sizes.heads)
    keys.expect("intermediate_size", sizes.expand * sizes.width)
    keys.expect("rms_norm", True)
    # how weights begin, and how the reference computes; norm_before_gate it reads nowhere, and gates first
    keys.ignore("initializer_range", "rescale_prenorm_residual", "time_step_rank", "time_step_scale", "time_step_min")
    keys.ignore("time_step_max", "time_step_init_scheme", "time_step_floor", "chunk_size", "norm_before_gate")
    keys.finish()
    return sizes


def _pair(limits: list[Any]) -> list[Any]:
    if len(limits) != 2:
        raise ConfigError(f"the mamba2 config has time_step_limit: {limits}; two numbers are needed")
    return limits


def _limit(x: Any) -> float | None:
    """A limit of the steps; None where it limits nothing, which is said in several ways."""
    if isinstance(x, Mapping):
        x = float(x.get("__float__", "nan"))
    if x is not None and (not isinstance(x, (int, float)) or not x >= 0):
        raise ConfigError(f"the mamba2 config has {x!r} in time_step_limit; a number from 0 is needed")
    return None if x in (None, 0, float("inf")) else float(x)


def write(s: Sizes) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in ARCHITECTURES.items()}
    if s.head not in names:
        raise ConfigError(f"Mamba-2 was published with no head {s.head!r}; save with layout='cutaway'")
    config = {
        "model_type": "mamba2",
        "architectures": [names[s.head]],
        **published(s, CONFIG),
        "num_heads": s.heads,
        # infinity as the reference writes it: JSON has no word for it
        "time_step_limit": [s.least_step or 0.0, s.most_step or {"__float__": "Infinity"}],
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    body = "(|backbone.)" if s.head == "none" else "(backbone.|)"
    layer, block = f"{body}layers.{{i}}", "stack.blocks.{i}.mixer"
    theirs, ours = f"{layer}.mixer", f"{block}.inner"
    inner = s.expand * s.width
    projected = split((inner, inner + 2 * s.groups * s.state, s.heads))
    return [
        Rule(f"{body}(embeddings|embedding)", "stack.embedding.tokens"),
        Rule(f"{layer}.norm", f"{block}.norm"),
        Rule(f"{theirs}.in_proj", (f"{ours}.gate", f"{ours}.value", f"{ours}.step"), projected),
        Rule(f"{theirs}.conv1d", f"{ours}.convolution"),
        Rule(f"{theirs}.dt_bias", f"{ours}.step_bias"),
        Rule(f"{theirs}.A_log", f"{ours}.A_log"),
        Rule(f"{theirs}.D", f"{ours}.D"),
        Rule(f"{theirs}.norm", f"{ours}.norm"),
        Rule(f"{theirs}.out_proj", f"{ours}.out"),
        Rule(f"{body}norm_f", "stack.norm.norm" if s.wide else "stack.norm"),
        tied("lm_head", "stack.embedding.tokens") if s.tied else Rule("lm_head", "head.tokens"),
        Rule("score", "head.out"),  # published by nobody: for heads that start afresh
    ]

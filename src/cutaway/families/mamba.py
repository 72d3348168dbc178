"""Mamba. Decoder · RMSNorm before · no positions · selective scans instead of attention · no feed-forward · tied.

Gu and Dao 2023 (arXiv:2312.00752), as published for the reference library (`state-spaces/mamba-130m-hf`). Deviations:
none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cutaway.attention import Causal
from cutaway.errors import ConfigError
from cutaway.families.sizes import Checked
from cutaway.keys import Keys, faithful, published
from cutaway.layout import Rule, split, tied
from cutaway.parts import (
    Block,
    Embedding,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Mamba,
    Model,
    Narrow,
    Positions,
    PreNorm,
    RMSNorm,
    Stack,
    Wide,
    decoder_head,
)
from cutaway.parts.mamba import rank_of


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 50280
    width: int = 768
    layers: int = 24
    expand: int = 2  # channels for each of the width
    state: int = 16  # numbers each channel remembers
    kernel: int = 4  # tokens the convolution sees
    rank: int | None = None  # of the steps' projection; None is width / 16
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
        if self.rank == rank_of(self.width):
            object.__setattr__(self, "rank", None)  # equal models have equal sizes

    @property
    def heads(self) -> int:
        """How many attention has in a scan's place: of width 64, where they divide."""
        return self.width // 64 if self.width % 64 == 0 else 1


PRESETS = {
    "mamba-130m": Sizes(),
    "mamba-370m": Sizes(width=1024, layers=48),
    "mamba-790m": Sizes(width=1536, layers=48),
    "mamba-1.4b": Sizes(width=2048, layers=48),
    "mamba-2.8b": Sizes(width=2560, layers=64),
}
# elements of the published weights, as the reference's own class counts each published configuration
PARAMETERS = {
    "mamba-130m": 129_135_360, "mamba-370m": 371_516_416, "mamba-790m": 793_204_224, "mamba-1.4b": 1_372_178_432,
    "mamba-2.8b": 2_768_345_600,
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
    sizes = {"expand": s.expand, "state": s.state, "kernel": s.kernel, "rank": s.rank, "act": s.act}

    def scan() -> nn.Module:
        if mixer:
            return mixer(s.width, s.heads, mask=Causal(), **place.attention)
        made = Mamba(s.width, **sizes, bias=s.bias, conv_bias=s.conv_bias)
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


MODEL_TYPES = ("mamba",)
ARCHITECTURES = {"MambaForCausalLM": "lm", "MambaModel": "none"}
CONFIG = {
    "vocab": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "expand": "expand",
    "state": "state_size", "kernel": "conv_kernel", "eps": "layer_norm_epsilon", "act": "hidden_act",
    "bias": "use_bias", "conv_bias": "use_conv_bias", "wide": "residual_in_fp32", "tied": "tie_word_embeddings",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "mamba")
    given = keys.sizes(CONFIG, Sizes)
    rank = None if config.get("time_step_rank") == "auto" else keys.size("time_step_rank", None)
    inner = given["expand"] * given["width"]
    # the authors' own names for the same sizes, beside the reference's
    for name, same in {"d_model": given["width"], "n_layer": given["layers"], "d_inner": inner}.items():
        keys.expect(name, same)
    keys.expect("intermediate_size", inner)
    keys.expect("rms_norm", True)
    # how weights begin, and how the reference computes: neither changes what is computed here
    keys.ignore("initializer_range", "rescale_prenorm_residual", "time_step_rank", "time_step_scale", "time_step_min")
    keys.ignore("time_step_max", "time_step_init_scheme", "time_step_floor", "use_mambapy", "use_associative_scan")
    keys.ignore("fused_add_norm", "pad_vocab_size_multiple")
    sizes = Sizes(**given, rank=rank, head=keys.head(ARCHITECTURES, "lm"), labels=keys.labels())
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in ARCHITECTURES.items()}
    if s.head not in names:
        raise ConfigError(f"Mamba was published with no head {s.head!r}; save with layout='cutaway'")
    config = {
        "model_type": "mamba",
        "architectures": [names[s.head]],
        **published(s, CONFIG),
        "intermediate_size": s.expand * s.width,
        "time_step_rank": s.rank or rank_of(s.width),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    body = "(|backbone.)" if s.head == "none" else "(backbone.|)"
    layer, block = f"{body}layers.{{i}}", "stack.blocks.{i}.mixer"
    theirs, ours = f"{layer}.mixer", f"{block}.inner"
    return [
        Rule(f"{body}(embeddings|embedding)", "stack.embedding.tokens"),
        Rule(f"{layer}.norm", f"{block}.norm"),
        Rule(f"{theirs}.in_proj", (f"{ours}.value", f"{ours}.gate"), split(2)),
        Rule(f"{theirs}.conv1d", f"{ours}.convolution"),
        Rule(f"{theirs}.x_proj", f"{ours}.select"),
        Rule(f"{theirs}.dt_proj", f"{ours}.step"),
        Rule(f"{theirs}.dt_proj.bias", f"{ours}.step_bias"),
        Rule(f"{theirs}.A_log", f"{ours}.A_log"),
        Rule(f"{theirs}.D", f"{ours}.D"),
        Rule(f"{theirs}.out_proj", f"{ours}.out"),
        Rule(f"{body}norm_f", "stack.norm.norm" if s.wide else "stack.norm"),
        tied("lm_head", "stack.embedding.tokens") if s.tied else Rule("lm_head", "head.tokens"),
        Rule("score", "head.out"),  # published by nobody: for heads that start afresh
    ]

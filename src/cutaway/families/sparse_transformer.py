"""Sparse Transformer. Decoder · LayerNorm before · positions in a grid · strided or fixed sparse attention · GELU · untied.

Child et al. 2019 (arXiv:1904.10509): a pattern of attention in two factors, each of about √T keys, by which every byte
reaches every earlier one in two steps. `pattern` is strided (section 4.2: the last l; every l-th) or fixed (section 4.3:
the own block of l; the last c of every block). `factors` says where the two stand (section 5.1): in layers by turns, merged
into one, or in different heads. Deviations: the matrix of the logits starts small, where the paper's starts at zero; a
text's first byte is given, where published code has a learned vector for it. That code's attention has biases and its
window l keys; the paper, and this file, have none and l + 1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod, sqrt
from typing import Literal

from torch import nn

from cutaway.attention import Mask
from cutaway.attention.patterns import PerHead, fixed, strided
from cutaway.errors import ConfigError
from cutaway.families.sizes import Checked
from cutaway.families.unpublished import unpublished
from cutaway.parts import (
    Attention,
    Block,
    Embedding,
    FeedForward,
    GridPositions,
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
    vocab: int = 256
    width: int = 512
    layers: int = 48
    heads: int = 16
    head_width: int = 32  # of queries and keys; values have width / heads
    hidden: int = 2048
    grid: tuple[int, ...] = (64, 64, 3)  # coordinates of a position, the fastest last: rows, columns, colours
    pattern: Literal["strided", "fixed"] = "strided"
    factors: Literal["by turns", "merged", "by heads"] = "by turns"
    stride: int = 128  # l
    summaries: int = 32  # c, of the fixed pattern
    groups: int = 1  # how many different sets of c summaries the heads look at (section 4.3)
    eps: float = 1e-5
    act: str = "quick_gelu"
    dropout: float = 0.01
    head: str = "lm"
    labels: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.grid, list):  # as JSON has it
            object.__setattr__(self, "grid", tuple(self.grid))
        super().__post_init__()
        if not self.grid or any(type(count) is not int or count < 1 for count in self.grid):
            raise ConfigError(f"the grid of positions is one or more whole numbers, not {self.grid}")
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} does not divide into {self.heads} heads; choose a multiple")
        if self.factors == "by heads" and self.heads < 2:
            raise ConfigError("factors stand in different heads: there must be two heads or more")
        if self.pattern == "fixed" and self.groups * self.summaries > self.stride:
            raise ConfigError(f"a block of {self.stride} has no {self.groups} × {self.summaries} summaries")

    @property
    def context(self) -> int:
        return prod(self.grid)


# section 7; what it leaves open is as in the published code: a row of the picture for CIFAR-10's stride, layers by turns
# for pictures, four groups of summaries for text
PRESETS = {
    "sparse-transformer-cifar10": Sizes(
        width=256, layers=128, heads=2, head_width=64, hidden=512, grid=(32, 32, 3), stride=96, dropout=0.25
    ),
    "sparse-transformer-enwik8": Sizes(
        layers=30, heads=8, head_width=64, grid=(96, 128), pattern="fixed", factors="merged", groups=4, dropout=0.4
    ),
    "sparse-transformer-imagenet64": Sizes(),
}
PARAMETERS: dict[str, int] = {}  # table 1 rounds: 59, 95 and 152 million


def looks(s: Sizes, layer: int) -> Mask:
    """Whom the heads of a layer look at."""

    def factor(which: int, group: int) -> Mask:
        return (strided(s.stride) if s.pattern == "strided" else fixed(s.stride, s.summaries, group))[which]

    masks: list[Mask] = []
    for head in range(s.heads):
        if s.factors == "by heads":
            masks.append(factor(head % 2, head // 2 % s.groups))
        elif s.factors == "merged":
            masks.append(factor(0, head % s.groups) | factor(1, head % s.groups))
        else:
            masks.append(factor(layer % 2, head % s.groups))
    counts = Counter(masks)  # heads that look alike stand together
    return masks[0] if len(counts) == 1 else PerHead(tuple(counts), tuple(counts.values()))


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    position = position or (lambda causal: Positions([GridPositions(s.grid, s.width)], limit=s.context))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act))
    place = position(True)

    def attention(layer: int) -> nn.Module:
        if mixer is not None:
            return mixer(s.width, s.heads, head_width=s.head_width, mask=looks(s, layer), **place.attention)
        widths = {"head_width": s.head_width, "value_width": s.width // s.heads}
        return Attention(s.width, s.heads, **widths, mask=looks(s, layer), **place.attention)

    blocks = [
        Block(
            attention=PreNorm(norm(), attention(layer), s.dropout),
            feedforward=PreNorm(norm(), feedforward(), s.dropout),
        )
        for layer in range(s.layers)
    ]
    stack = Stack(Embedding(s.vocab, s.width, steps=place.embedding), blocks, norm())
    model = Model(
        stack,
        decoder_head(s.head, stack.embedding.tokens, s.labels, tied=False),
        causal=True,
        max_positions=place.limit,
    )
    _initialise(model, s)
    return model


def _initialise(model: Model, s: Sizes) -> None:
    """Weights of variance 0.125 / inputs; those that add to the residual stream less, the more layers there are."""
    initialise(model)
    for name, module in model.stack.named_modules():
        if isinstance(module, nn.Linear):
            adds = name.endswith((".out", ".down"))
            nn.init.normal_(module.weight, std=sqrt(0.125 / module.in_features / (2 * s.layers if adds else 1)))


MODEL_TYPES, read, write, weights = unpublished("the Sparse Transformer")

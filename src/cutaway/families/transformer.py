"""The Transformer. Encoder-decoder, or its decoder alone · LayerNorm after · sinusoidal positions · multi-head · ReLU.

Vaswani et al. 2017 (arXiv:1706.03762). Deviations, each a size: `order="pre"` normalises before (as the authors' code
came to do); `final_norm` adds a last norm to each stack (as `torch.nn.Transformer`); `encoder=False` is the decoder alone.
Models of the many tutorials that divide by the unbiased standard deviation plus ε load with the norm `StdNorm`
(`build("transformer-decoder", norm="std")`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from cutaway.attention import Causal, Full
from cutaway.errors import ConfigError
from cutaway.families.sizes import Checked
from cutaway.families.unpublished import unpublished
from cutaway.parts import (
    Attention,
    Block,
    Dropout,
    Embedding,
    EncoderDecoder,
    FeedForward,
    LanguageHead,
    LayerNorm,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Model,
    Positions,
    PostNorm,
    PreNorm,
    SinusoidalPositions,
    Stack,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 37000  # shared by source and target
    width: int = 512
    layers: int = 6
    heads: int = 8
    hidden: int = 2048
    encoder: bool = True
    order: str = "post"
    final_norm: bool = False
    eps: float = 1e-5
    act: str = "relu"
    attention_bias: bool = True
    tied: bool = True
    head_bias: bool = False
    dropout: float = 0.1
    start: int = 0


PRESETS = {
    "transformer-base": Sizes(),
    "transformer-big": Sizes(width=1024, heads=16, hidden=4096, dropout=0.3),
    "transformer-decoder": Sizes(encoder=False, final_norm=True),
}
PARAMETERS: dict[str, int] = {}  # table 3 of the paper rounds: 65 and 213 million


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> EncoderDecoder | Model:
    if s.order not in ("post", "pre"):
        raise ConfigError(f"order is 'post' or 'pre', not {s.order!r}")
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    position = position or (lambda causal: Positions([SinusoidalPositions(s.width)]))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act, dropout=s.dropout))
    tokens = Embedding(s.vocab, s.width).tokens  # one table for source, target and head (section 3.4)
    own, source, target = mixer or Attention, position(False), position(True)

    def residual(inner: nn.Module) -> nn.Module:
        return PostNorm(inner, norm(), s.dropout) if s.order == "post" else PreNorm(norm(), inner, s.dropout)

    def attend(make: MakeMixer, **kind: Any) -> nn.Module:
        return residual(make(s.width, s.heads, bias=s.attention_bias, dropout=s.dropout, **kind))

    def stack(causal: bool) -> Stack:
        place = target if causal else source
        steps = [*place.embedding, Dropout(s.dropout)]
        blocks = []
        for _ in range(s.layers):
            parts = {"attention": attend(own, mask=Causal() if causal else Full(), **place.attention)}
            if causal and s.encoder:
                parts["cross"] = attend(Attention, cross=True)
            blocks.append(Block(**parts, feedforward=residual(feedforward())))
        table = Embedding(s.vocab, s.width, scale=s.width**0.5, steps=steps, tokens=tokens)
        return Stack(table, blocks, norm() if s.final_norm else None)

    head = LanguageHead(s.width, s.vocab, tied=tokens if s.tied else None, bias=s.head_bias)
    model: EncoderDecoder | Model
    if s.encoder:
        model = EncoderDecoder(stack(False), stack(True), head, start=s.start, max_positions=target.limit)
    else:
        model = Model(stack(True), head, causal=True, max_positions=target.limit)
    initialise(model, std=s.width**-0.5)  # embeddings of length 1 after the scale, as large as the positions
    return model


MODEL_TYPES, read, write, weights = unpublished("the 2017 Transformer")

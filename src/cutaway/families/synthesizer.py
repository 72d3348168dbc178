"""Synthesizer. Encoder-decoder, or its decoder alone · LayerNorm before · sinusoidal positions · synthesised attention · ReLU.

Tay et al. 2021 (arXiv:2005.00743): a Transformer whose self-attention does not compare tokens. `logits` names what it does
instead: "dense", "factorised-dense", "random", "factorised-random", or several joined by "+", with "dot" for plain
attention. Cross-attention is plain, as in the paper. Deviations: the factors of "factorised-dense" are tiled so that every
column has a pair of its own, which the paper leaves open; the mixture's shares are one a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from cutaway.attention import Causal, Full
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
    PreNorm,
    SinusoidalPositions,
    Stack,
    Synthesizer,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 32000
    width: int = 512
    layers: int = 6
    heads: int = 8
    hidden: int = 2048
    context: int = 256
    logits: str = "dense"
    rank: int = 8  # of "factorised-random"
    fixed: bool = False  # random logits are never trained
    encoder: bool = True
    eps: float = 1e-6
    act: str = "relu"
    tied: bool = True
    dropout: float = 0.1
    start: int = 0


# the rows of the paper's tables 2 and 3, for translation
PRESETS = {
    "synthesizer-dense": Sizes(),
    "synthesizer-factorised-dense": Sizes(logits="factorised-dense"),
    "synthesizer-random": Sizes(logits="random"),
    "synthesizer-fixed-random": Sizes(logits="random", fixed=True),
    "synthesizer-factorised-random": Sizes(logits="factorised-random"),
    "synthesizer-random-dense": Sizes(logits="random+dense"),
    "synthesizer-dense-vanilla": Sizes(logits="dense+dot"),
    "synthesizer-random-vanilla": Sizes(logits="random+dot"),
}
PARAMETERS: dict[str, int] = {}  # the paper's, in millions, are of tables of tokens whose sizes it does not give


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> EncoderDecoder | Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    position = position or (lambda causal: Positions([SinusoidalPositions(s.width)]))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act, dropout=s.dropout))
    tokens = Embedding(s.vocab, s.width).tokens  # one table for source, target and head
    kinds = s.logits.split("+")
    synthesise = partial(Synthesizer, kinds=kinds, context=s.context, rank=s.rank, fixed=s.fixed)

    def residual(inner: nn.Module) -> nn.Module:
        return PreNorm(norm(), inner, s.dropout)

    def stack(causal: bool) -> Stack:
        place = position(causal)
        blocks = []
        for _ in range(s.layers):
            given = {"mask": Causal() if causal else Full(), "dropout": s.dropout, **place.attention}
            parts = {"attention": residual((mixer or synthesise)(s.width, s.heads, **given))}
            if causal and s.encoder:
                parts["cross"] = residual(Attention(s.width, s.heads, dropout=s.dropout, cross=True))
            blocks.append(Block(**parts, feedforward=residual(feedforward())))
        steps = [*place.embedding, Dropout(s.dropout)]
        return Stack(Embedding(s.vocab, s.width, scale=s.width**0.5, steps=steps, tokens=tokens), blocks, norm())

    head = LanguageHead(s.width, s.vocab, tied=tokens if s.tied else None)
    model: EncoderDecoder | Model
    if s.encoder:
        model = EncoderDecoder(stack(False), stack(True), head, start=s.start, max_positions=s.context)
    else:
        model = Model(stack(True), head, causal=True, max_positions=s.context)
    initialise(model, std=s.width**-0.5)
    return model


MODEL_TYPES, read, write, weights = unpublished("the Synthesizer")

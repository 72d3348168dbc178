"""Linear Transformer. Decoder or encoder · LayerNorm after and at the end · sinusoidal positions · linear attention · ReLU.

Katharopoulos et al. 2020 (arXiv:2006.16236): attention's kernel is φ(q)·φ(k) with φ = elu + 1, so a decoder is a recurrent
network whose state does not grow. The layers are those of the authors' library. Deviations: a softmax over the values of a
pixel, where the paper's pictures have a mixture of ten logistic distributions; an encoder (`causal=False`) is read by the
heads of BERT, where the paper's recognises speech (CTC).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cutaway.attention import Causal, Full
from cutaway.families.sizes import Checked
from cutaway.families.unpublished import unpublished
from cutaway.parts import (
    Block,
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    LinearAttention,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    MaskedTransform,
    Model,
    Pooler,
    Positions,
    PostNorm,
    SinusoidalPositions,
    Stack,
    decoder_head,
    encoder_head,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 256
    width: int = 256
    layers: int = 8
    heads: int = 8
    hidden: int = 1024
    causal: bool = True
    eps: float = 1e-5
    act: str = "relu"
    tied: bool = False
    dropout: float = 0.1
    head: str = "lm"  # an encoder's: "none", "masked-lm", "sequence", "token", …
    labels: int = 2


PRESETS = {
    "linear-transformer-mnist": Sizes(),  # section 4.2.1
    "linear-transformer-cifar10": Sizes(layers=16),  # section 4.2.2
}
PARAMETERS: dict[str, int] = {}  # the paper gives none


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    position = position or (lambda causal: Positions([SinusoidalPositions(s.width)]))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act, dropout=s.dropout))
    place, mask = position(s.causal), Causal() if s.causal else Full()

    def attention() -> nn.Module:
        return (mixer or LinearAttention)(s.width, s.heads, mask=mask, bias=True, dropout=s.dropout, **place.attention)

    blocks = [
        Block(
            attention=PostNorm(attention(), norm(), s.dropout), feedforward=PostNorm(feedforward(), norm(), s.dropout)
        )
        for _ in range(s.layers)
    ]
    stack = Stack(Embedding(s.vocab, s.width, steps=[*place.embedding, Dropout(s.dropout)]), blocks, norm())
    tokens = stack.embedding.tokens
    if s.causal:
        head = decoder_head(s.head, tokens, s.labels, tied=s.tied, dropout=s.dropout)
    else:
        head = encoder_head(
            s.head,
            tokens,
            s.width,
            s.labels,
            tied=s.tied,
            transform=lambda: MaskedTransform(s.width, s.act, s.eps),
            pool=lambda: Pooler(s.width),
            dropout=s.dropout,
        )
    model = Model(stack, head, causal=s.causal, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES, read, write, weights = unpublished("the Linear Transformer")

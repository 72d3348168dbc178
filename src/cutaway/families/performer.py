"""Performer. Decoder or encoder · LayerNorm before and at the end · sinusoidal positions · attention by FAVOR+ · GELU.

Choromanski et al. 2021 (arXiv:2009.14794): softmax attention estimated by positive orthogonal random features. The layers
are those of the authors' published code. `kernel="relu"` is the paper's Performer-ReLU, for proteins. Deviations: nothing
is added to the features of the softmax kernel (the published code adds 0.0001), so the estimate is unbiased and a cache
gives what one pass gives; directions are drawn uniformly, with the signs that QR alone does not give.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

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
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    MaskedTransform,
    Model,
    PerformerAttention,
    Pooler,
    Positions,
    PreNorm,
    SinusoidalPositions,
    Stack,
    decoder_head,
    encoder_head,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 32000
    width: int = 512
    layers: int = 6
    heads: int = 8
    hidden: int = 2048
    causal: bool = True
    features: int = 256
    kernel: Literal["softmax", "relu"] = "softmax"
    redraw_every: int | None = None  # calls in training after which features are drawn anew
    eps: float = 1e-6
    act: str = "gelu_tanh"
    tied: bool = False
    dropout: float = 0.1
    head: str = "lm"  # an encoder's: "none", "masked-lm", "sequence", "token", …
    labels: int = 2


PRESETS = {
    "performer-base": Sizes(),  # the regular size of section 4, with 256 features
    "performer-protein": Sizes(vocab=33, layers=36, hidden=1024, kernel="relu"),  # section 4.4, one-directional
    "performer-protein-encoder": Sizes(
        vocab=33, layers=36, hidden=1024, kernel="relu", causal=False, head="masked-lm"
    ),  # section 4.4, bidirectional
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
    own = partial(PerformerAttention, features=s.features, kernel=s.kernel, redraw_every=s.redraw_every)

    def attention() -> nn.Module:
        given = {"mask": mask, "bias": True, "dropout": s.dropout, **place.attention}
        return (mixer or own)(s.width, s.heads, **given)

    blocks = [
        Block(attention=PreNorm(norm(), attention(), s.dropout), feedforward=PreNorm(norm(), feedforward(), s.dropout))
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


MODEL_TYPES, read, write, weights = unpublished("the Performer")

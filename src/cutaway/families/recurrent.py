"""LSTM and GRU language models. Decoder · recurrent layers instead of attention · no positions, norms or residuals.

The "before 2017" column. Zaremba et al. 2014 (arXiv:1409.2329: the sizes on the Penn Treebank, dropout between layers
only), Cho et al. 2014 (GRU, arXiv:1406.1078); tied embeddings as Press and Wolf 2017. Deviations: Zaremba's
initialisation (uniform in a range of its own for each size) is left to training code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cutaway.errors import ConfigError
from cutaway.families.sizes import Checked
from cutaway.families.unpublished import unpublished
from cutaway.parts import Block, Dropout, Embedding, MakeFeedForward, MakeMixer, MakeNorm, MakePosition, Model, Stack
from cutaway.parts.head import decoder_head
from cutaway.parts.recurrence import Alone, Recurrence


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 10000
    width: int = 200
    layers: int = 2
    cell: Literal["lstm", "gru"] = "lstm"
    tied: bool = False
    dropout: float = 0.0
    head: str = "lm"
    labels: int = 2


PRESETS = {
    "lstm-small": Sizes(),
    "lstm-medium": Sizes(width=650, dropout=0.5),
    "lstm-large": Sizes(width=1500, dropout=0.65),
    "gru-small": Sizes(cell="gru"),
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
    if norm or feedforward or mixer:
        raise ConfigError("a recurrent model has no norm, feed-forward network or attention to put another in place of")
    place = None if position is None else position(True)
    steps = [*(place.embedding if place else ()), Dropout(s.dropout)]
    blocks = [Block(recurrence=Alone(Recurrence(s.width, cell=s.cell), s.dropout)) for _ in range(s.layers)]
    stack = Stack(Embedding(s.vocab, s.width, steps=steps), blocks)
    head = decoder_head(s.head, stack.embedding.tokens, s.labels, tied=s.tied, dropout=s.dropout)
    return Model(stack, head, causal=True, max_positions=place.limit if place else None)


MODEL_TYPES, read, write, weights = unpublished("a recurrent language model")

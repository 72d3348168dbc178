"""LSTM encoder-decoder with attention. Encoder both ways · decoder looking at it before each token · additive attention.

Bahdanau et al. 2015 (arXiv:1409.0473; RNNsearch), which the 2017 Transformer was measured against. Deviations: LSTM cells
(the paper's gated unit is `cell="gru"`), a linear output layer instead of the paper's maxout, and a decoder that begins at
zero instead of from the encoder's last state. `tied` shares one table between source, target and head, which then reads
tanh(W [s_t; context_t]) of its width (Luong et al. 2015, equation 5; Press and Wolf 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from cutaway.errors import ConfigError
from cutaway.families.sizes import Checked
from cutaway.families.unpublished import unpublished
from cutaway.parts import (
    Block,
    Dropout,
    Embedding,
    EncoderDecoder,
    LanguageHead,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Stack,
)
from cutaway.parts.additive import AttentiveRecurrence
from cutaway.parts.recurrence import Alone, BothWays, Recurrence


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 30000  # of source and target, each with a table of its own unless `tied`
    width: int = 620
    hidden: int = 1000
    layers: int = 1
    cell: Literal["lstm", "gru"] = "lstm"
    tied: bool = False
    dropout: float = 0.0
    start: int = 0


PRESETS = {"rnnsearch": Sizes(cell="gru"), "lstm-attention": Sizes()}
PARAMETERS: dict[str, int] = {}  # the paper gives none


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> EncoderDecoder:
    if norm or position or feedforward or mixer:
        raise ConfigError("a recurrent encoder-decoder has none of the Transformer's parts to put another in place of")

    shared = Embedding(s.vocab, s.width).tokens if s.tied else None

    def table() -> Embedding:
        return Embedding(s.vocab, s.width, steps=[Dropout(s.dropout)], tokens=shared)

    encoder = [
        Block(recurrence=Alone(BothWays(2 * s.hidden if layer else s.width, s.hidden, cell=s.cell), s.dropout))
        for layer in range(s.layers)
    ]
    written = 3 * s.hidden  # the decoder's state beside what it looked at
    first = Block(cross=Alone(AttentiveRecurrence(s.width, s.hidden, 2 * s.hidden, cell=s.cell), s.dropout))
    rest = [Block(recurrence=Alone(Recurrence(written, written, cell=s.cell), s.dropout)) for _ in range(s.layers - 1)]
    readout = nn.Sequential(nn.Linear(written, s.width, bias=False), nn.Tanh()) if s.tied else None
    head = LanguageHead(s.width if s.tied else written, s.vocab, tied=shared, bias=True, transform=readout)
    return EncoderDecoder(Stack(table(), encoder), Stack(table(), [first, *rest]), head, start=s.start)


MODEL_TYPES, read, write, weights = unpublished("a recurrent encoder-decoder")

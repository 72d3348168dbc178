"""`inspect`: run a model once on a text and look at everything that can be seen: attention, positions, predictions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.inspection import bars, headview, heatmaps
from cutaway.inspection.codec import pack_patterns
from cutaway.inspection.encodings import figure_of as positions_figure
from cutaway.inspection.encodings import panel_of
from cutaway.inspection.errors import PictureError
from cutaway.inspection.palette import Theme
from cutaway.inspection.patterns import Pattern
from cutaway.inspection.picture import Picture

if TYPE_CHECKING:
    from torch import Tensor

NEXT = 10  # tokens a panel of the page lists
PANELS = 256  # positions whose predictions the page holds, the last ones


@dataclass(frozen=True)
class Inspection:
    """One forward of a model, open to look into. Patterns are computed when they are asked for, from what was recorded.

    Attributes:
        tokens: the tokens, as a reader can see them; of the source, where there is an encoder and a decoder.
        target_tokens: what the decoder read, or None.
        logits: (T, V) where the model has a language head, else None.
        output: what the model returned, whole.
    """

    title: str
    text: str
    tokens: tuple[str, ...]
    target_tokens: tuple[str, ...] | None
    output: Tensor
    logits: Tensor | None
    patterns: dict[str, Pattern]
    spell: bars.Decoder | None = field(repr=False)
    places: tuple[tuple[int, str], ...] = field(repr=False)  # (row of logits, label), what is predicted where
    start: int = field(repr=False)  # which of the places is shown first
    encodings: tuple[tuple[np.ndarray, Any, str], ...] = field(repr=False)

    def pattern(self, kind: str = "self") -> Pattern:
        """All attention of one kind: "self", "cross", "encoder".

        Raises:
            PictureError: the model has no attention of this kind.
        """
        if kind not in self.patterns:
            raise PictureError(
                f"this model has no attention of kind {kind!r}; it has {', '.join(self.patterns) or 'none'}"
            )
        return self.patterns[kind]

    def attention(self, layer: int, head: int, kind: str = "self") -> np.ndarray:
        """(Q, K) float32: row = the token that looks, column = the token looked at. Layers and heads count from 0."""
        return self.pattern(kind).choose(layer, head).layer(0)[0]

    def heatmap(self, layer: int | None = None, head: int | None = None, kind: str = "self") -> Picture:
        """All layers × heads, or only a layer, or one head alone (large)."""
        return heatmaps.picture_of(self.pattern(kind).choose(layer, head))

    def heads(self, layer: int | None = None, head: int | None = None, kind: str = "self") -> Picture:
        """Lines from each token to the tokens it looks at, a colour a head."""
        return headview.picture_of(self.pattern(kind).choose(layer, head))

    def next_tokens(self, k: int = 10) -> Picture:
        """The `k` most probable next tokens; at every position on the page, at the last (or every mask) in the figure.

        Raises:
            PictureError: the model has no language head.
        """
        if not self.places:
            raise PictureError("this model has no language head: it predicts no tokens")
        shown = [self.start] if self.causal else list(range(min(8, len(self.places))))
        return Picture(
            self.prediction_name,
            lambda theme: bars.figure_of([self._titled(place, k) for place in shown], theme),
            lambda: {**self._predictions(k), "view": "next"},
        )

    def positions(self) -> Picture:
        """How the model knows where a token stands; the figure shows the first of its encodings, the page all.

        Raises:
            PictureError: the model has no position encoding that can be drawn.
        """
        if not self.encodings:
            raise PictureError("this model has no position encoding that can be drawn")
        array, kind, name = self.encodings[0]
        return Picture(
            name,
            lambda theme: positions_figure(array, kind, name, theme),
            lambda: {"positions": self._positions(), "view": "positions"},
        )

    def save(self, path: str | Path, *, theme: Theme = "light") -> Path:
        """Everything as one `.html` page, or all layers × heads as `.png` or `.svg`."""
        return self.picture.save(path, theme=theme)

    def _repr_html_(self) -> str:
        return self.picture._repr_html_()

    @cached_property
    def picture(self) -> Picture:
        """All kinds of attention, predictions and positions together; predictions alone where there is no pattern."""
        first = next(iter(self.patterns.values()), None)
        if first is None and self.places:
            return Picture(self.title, self.next_tokens().draw, self._content)
        if first is None:
            raise PictureError("nothing was recorded: this model has no attention, and predicts no tokens")
        return Picture(self.title, lambda theme: heatmaps.figure_of(first, self.title, theme), self._content)

    def _content(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "attention": pack_patterns(self.patterns.values()),
            **(self._predictions(NEXT) if self.places else {}),
            "positions": self._positions(),
            "view": "heatmap" if self.patterns else "next",
        }

    @property
    def causal(self) -> bool:
        """Whether predictions are of what follows, not of what was masked."""
        return self.prediction_name == "Next token"

    @property
    def prediction_name(self) -> str:
        return "Next token" if self.places and self.places[0][1].startswith("after ") else "Tokens predicted"

    def _panel(self, place: int, k: int) -> dict[str, Any]:
        row, label = self.places[place]
        assert self.logits is not None
        return {"label": label, **bars.top(self.logits[row], self.spell, k)}

    def _titled(self, place: int, k: int) -> dict[str, Any]:
        panel = self._panel(place, k)
        return {**panel, "label": f"{self.prediction_name} {panel['label']}"}

    def _predictions(self, k: int) -> dict[str, Any]:
        first = max(0, len(self.places) - PANELS)
        panels = [self._panel(place, k) for place in range(first, len(self.places))]
        return {"next": panels, "panel": self.start - first, "nextName": self.prediction_name}

    def _positions(self) -> list[dict[str, Any]]:
        return [panel_of(array, kind, name) for array, kind, name in self.encodings]


def inspect(
    source: Any,
    text: str | None = None,
    target: str | None = None,
    *,
    ids: Any = None,
    target_ids: Any = None,
    tokens: Iterable[str] | None = None,
    target_tokens: Iterable[str] | None = None,
    title: str | None = None,
) -> Inspection:
    """Run a model once and keep what its attention saw; the numbers it computes stay the same to the bit.

    Args:
        source: anything `cutaway.load` takes, what it returned, or a model by itself (then give `ids`).
        text: what the model reads; with a tokenizer.
        target: what the decoder of an encoder-decoder reads; greedily generated if not given.
        ids, target_ids: (T,) or (1, T) token ids instead of texts; `target_ids` as the decoder reads them, start included.
        tokens, target_tokens: how to write the ids, where there is no tokenizer; else the ids are shown.
        title: of the page.

    Raises:
        PictureError: nothing to run on, a batch of several, or tokens that do not fit the ids.
    """
    from cutaway.inspection.run import run

    return run(source, text, target, ids, target_ids, tokens, target_tokens, title)

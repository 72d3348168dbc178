"""Next-token probabilities as bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.inspection.errors import PictureError
from cutaway.inspection.labels import visible
from cutaway.inspection.palette import ACCENT, FAINT, INK, RULE, Theme
from cutaway.inspection.patterns import as_array
from cutaway.inspection.picture import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Decoder = Callable[[int], str]


def next_tokens(
    scores: Any, tokens: Sequence[str] | Decoder | None = None, k: int = 10, *, title: str = "Next token"
) -> Picture:
    """The `k` most probable tokens.

    Args:
        scores: (V,) probabilities (in [0, 1], summing to 1) or logits (anything else; the softmax is taken).
        tokens: the vocabulary as V strings, or a function from an id to its string; without it, ids are shown.
        k: how many; at most V are drawn.

    Raises:
        PictureError: not one vector of finite numbers, `k` below 1, or a vocabulary of another size.
    """
    panel = top(scores, tokens, k)
    content = {"next": [{"label": title, **panel}], "view": "next"}
    return Picture(title, lambda theme: figure_of([{"label": title, **panel}], theme), lambda: content)


def probabilities(scores: Any) -> np.ndarray:
    """(V,) probabilities in float64; logits (negative, above 1, or not summing to 1) go through the softmax."""
    values = as_array(scores, "scores").astype(np.float64)
    if values.ndim != 1:
        raise PictureError(f"scores of shape {values.shape}: give one vector (V,), such as logits[0, -1]")
    if values.min() >= 0 and abs(values.sum() - 1) < 1e-2:
        return values / values.sum()
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def top(scores: Any, tokens: Sequence[str] | Decoder | None, k: int) -> dict[str, Any]:
    """The `k` most probable as `{"items": [{"id", "token", "p"}, ...], "rest"}`, ties by id; rest = all others' sum."""
    chances = probabilities(scores)
    if k < 1:
        raise PictureError(f"k = {k}: at least one token must be shown")
    if tokens is not None and not callable(tokens) and len(tokens) != len(chances):
        raise PictureError(f"a vocabulary of {len(tokens)} tokens does not fit scores of shape {chances.shape}")
    best = np.argsort(-chances, kind="stable")[:k]
    items = [
        {"id": int(index), "token": _spell(int(index), tokens), "p": round(float(chances[index]), 6)} for index in best
    ]
    return {"items": items, "rest": round(max(0.0, 1 - float(chances[best].sum())), 6)}


def _spell(index: int, tokens: Sequence[str] | Decoder | None) -> str:
    if tokens is None:
        return f"id {index}"
    return visible(tokens(index) if callable(tokens) else tokens[index])


def percent(p: float) -> str:
    """As many digits as one wants to read: 97.3 %, 0.42 %, <0.01 %."""
    if 0 < p < 1e-4:
        return "<0.01 %"
    return f"{100 * p:.2f} %" if p < 0.01 else f"{100 * p:.1f} %"


def figure_of(panels: Sequence[dict[str, Any]], theme: Theme) -> Figure:
    """One panel of bars, or several one under the other."""
    from cutaway.inspection.static import steady

    return steady(_figure)(panels, theme)


def _figure(panels: Sequence[dict[str, Any]], theme: Theme) -> Figure:
    from cutaway.inspection import static

    rows = [len(panel["items"]) for panel in panels]
    figure = static.new_figure(6.4, sum(0.3 * count + 1.1 for count in rows), theme)
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[count + 2.5 for count in rows])[:, 0]
    for axes, panel in zip(grid, panels, strict=True):
        chances = [item["p"] for item in panel["items"]]
        places = range(len(chances))
        axes.barh(places, chances, color=ACCENT[theme], height=0.68)
        static.plain(axes, theme)
        static.token_ticks(axes, "y", [item["token"] for item in panel["items"]], theme, 9.5)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.axvline(0, color=RULE[theme], linewidth=0.8)
        for place, p in zip(places, chances, strict=True):
            axes.annotate(
                percent(p), (p, place), (4, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK[theme]
            )
        axes.set(xlim=(0, max(max(chances), 1e-9) * 1.18), ylim=(len(chances) - 0.4, -0.6))
        axes.set_xticks([])
        axes.set_xlabel(f"all other tokens together {percent(panel['rest'])}", color=FAINT[theme], fontsize=8.5)
        static.headline(axes, panel["label"], "The most probable tokens, by the softmax of the logits.", theme)
    return figure

"""What all static figures share: paper, ink, literal labels, number scales. matplotlib's global state stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from textwrap import wrap
from typing import Any, ParamSpec, TypeVar

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, FuncNorm, LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.text import Text

from cutaway.inspection.fonts import typeset
from cutaway.inspection.labels import shorten
from cutaway.inspection.palette import FAINT, INK, PAPER, RULE, Theme, diverging, sequential

P = ParamSpec("P")
R = TypeVar("R")
LONGEST = 18  # characters of a token in a figure
LINE = 84  # characters that a line of a sentence may always have
MOST = 48  # labels along one side


def steady(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw by matplotlib's defaults whatever the user has set (`text.usetex` would make tokens into TeX)."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with style.context("default"):
            return draw(*args, **kwargs)

    return drawn


@steady
def write(figure: Figure, path: Path, dpi: int) -> None:
    """Save as PNG or SVG, the same bytes each time."""
    from matplotlib import rcParams

    rcParams["svg.hashsalt"] = "cutaway"
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
    figure.savefig(path, dpi=dpi, metadata=metadata)


def new_figure(width: float, height: float, theme: Theme) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), facecolor=PAPER[theme], layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # type: ignore[union-attr, call-arg]
    return figure


def literal(text: Text, content: str, **style: Any) -> None:
    """Set a text to exactly these characters: no mathtext in `$x_1$`, an escape for what no font here can draw."""
    (drawn,), families = typeset([content])
    if len(families) > 1:
        style["fontweight"] = "normal"  # the other fonts may have no bold face
    text.set_parse_math(False)
    text.set(text=drawn, fontfamily=families, **style)


def headline(axes: Axes, title: str, sentence: str, theme: Theme, lift: float = 0) -> None:
    """The title, and under it in smaller type the sentence that says what one sees, `lift` points above the axes."""
    lines = wrap(sentence, max(LINE, int(axes.figure.bbox.width / axes.figure.dpi * 13)))
    for content, height, size, weight, ink in (
        *((line, 7 + 11 * i, 8.5, "normal", FAINT[theme]) for i, line in enumerate(reversed(lines))),
        (title, 12 + 11 * len(lines), 12, "bold", INK[theme]),
    ):
        note = axes.annotate(
            "", (0, 1), xytext=(0, height + lift), xycoords="axes fraction", textcoords="offset points"
        )
        literal(note, content, fontsize=size, fontweight=weight, color=ink, verticalalignment="bottom")


def colours(theme: Theme, signed: bool = False) -> Colormap:
    """The ramp that the page uses too; masked cells show the paper."""
    ramp = diverging(theme) if signed else sequential(theme)
    return LinearSegmentedColormap.from_list("cutaway", list(ramp)).with_extremes(bad=PAPER[theme])


def roots(high: float, signed: bool) -> Normalize:
    """Colours by square roots, so that small weights show: from 0, or evenly to both sides of it."""
    if not signed:
        return PowerNorm(0.5, 0, high)

    def forward(x: np.ndarray) -> np.ndarray:
        return np.sign(x) * np.sqrt(np.abs(x))

    return FuncNorm((forward, lambda x: np.sign(x) * x**2), -high, high)


def plain(axes: Axes, theme: Theme) -> None:
    """Thin faint frame and ticks."""
    axes.set_facecolor(PAPER[theme])
    for spine in axes.spines.values():
        spine.set_color(RULE[theme])
    axes.tick_params(colors=FAINT[theme], labelsize=8, length=2.5, width=0.6)


def token_ticks(axes: Axes, which: str, tokens: Sequence[str], theme: Theme, size: float = 8.5) -> None:
    """Label an axis with tokens; where they are too many, every n-th."""
    step = max(1, -(-len(tokens) // MOST))
    places = range(0, len(tokens), step)
    drawn, families = typeset(shorten(tokens[place], LONGEST) for place in places)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(list(places), drawn)
    for label in axis.get_ticklabels():
        label.set_parse_math(False)
        label.set(fontfamily=families, fontsize=size if step == 1 else size - 2, color=INK[theme])
        if which == "x":
            label.set(rotation=90)
    axis.set_tick_params(length=0, pad=3)


def number_scale(figure: Any, axes: Axes | list[Axes], drawn: Any, label: str, theme: Theme, **place: Any) -> None:
    """The legend: which colour stands for which number."""
    bar = figure.colorbar(drawn, ax=axes, fraction=0.035, pad=0.015, **place)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(colors=FAINT[theme], labelsize=8, length=2, width=0.6)
    bar.set_label(label, color=FAINT[theme], fontsize=8.5)


def mosaic(blocks: np.ndarray, gap: int) -> np.ndarray:
    """(L, H, Q, K) laid out as one (L (Q + gap), H (K + gap)) sheet with gaps of NaN; far faster than L × H axes."""
    layers, heads, queries, keys = blocks.shape
    sheet = np.full((layers, queries + gap, heads, keys + gap), np.nan, np.float32)
    sheet[:, :queries, :, :keys] = blocks.transpose(0, 2, 1, 3)
    return sheet.reshape(layers * (queries + gap), heads * (keys + gap))[:-gap, :-gap]

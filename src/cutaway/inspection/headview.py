"""The head view: lines from each token that looks to the tokens it looks at, a colour a head.

The picture is Jesse Vig's (A Multiscale Visualization of Attention in the Transformer Model, 2019, section 2.1), drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.inspection.codec import pack_patterns
from cutaway.inspection.palette import FAINT, INK, PAPER, Theme, head_colour
from cutaway.inspection.patterns import Pattern, pattern, scale_of
from cutaway.inspection.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAINTEST = 0.02  # weights below leave no line
MOST = 128  # tokens a side in a figure


def heads(
    weights: Any,
    tokens: Iterable[object] | None = None,
    *,
    q_tokens: Iterable[object] | None = None,
    k_tokens: Iterable[object] | None = None,
    layer: int | None = None,
    head: int | None = None,
    kind: str = "self",
    title: str | None = None,
) -> Picture:
    """Attention weights as lines from the tokens that look (left) to the tokens looked at (right), a colour a head.

    The page has all layers and a selector; the static figure shows one layer (the first, unless `layer` names another).

    Args:
        weights: (L, H, Q, K), (H, Q, K) or (Q, K) after the softmax, numpy or torch; or a list of (1, H, Q, K), one a layer.
        tokens: the tokens of both sides; `q_tokens` and `k_tokens` where they differ. Without them, positions.
        layer, head: show only this one.
        kind: "self", "cross", "encoder", or a name of your own.

    Raises:
        PictureError: shapes that do not fit, empty, negative or non-finite weights, no such layer or head.
    """
    whole = pattern(weights, tokens, q_tokens=q_tokens, k_tokens=k_tokens, kind=kind)
    return picture_of(whole.choose(layer, head), title)


def picture_of(shown: Pattern, title: str | None = None) -> Picture:
    """The head view of a pattern that is already in form."""
    return Picture(
        title=title or f"{shown.name}, head view",
        draw=lambda theme: figure_of(shown, title, theme),
        content=lambda: {"attention": pack_patterns([shown]), "view": "heads"},
    )


def figure_of(shown: Pattern, title: str | None, theme: Theme) -> Figure:
    """The first layer of the pattern."""
    from cutaway.inspection.static import steady

    return steady(_figure)(shown, title, theme)


def _figure(shown: Pattern, title: str | None, theme: Theme) -> Figure:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    from cutaway.inspection import static

    weights = shown.layer(0)[:, :MOST, :MOST]  # (H, Q, K)
    queries, keys = weights.shape[1:]
    rows = max(queries, keys)
    figure = static.new_figure(7.2, max(3.0, 0.23 * rows + 1.5), theme)
    axes = figure.add_subplot()
    signed, high = scale_of([weights])
    for index, head in enumerate(shown.heads):
        for sign, style in ((1, "solid"), (-1, (0, (3, 2)))):
            q, k = np.nonzero(sign * weights[index] >= FAINTEST * high)
            beside = (index - (len(shown.heads) - 1) / 2) * min(0.1, 0.65 / len(shown.heads))
            ends = np.stack([np.stack([0.0 * q, q + beside], -1), np.stack([0.0 * k + 1, k + beside], -1)], axis=1)
            colour = np.empty((len(q), 4))
            colour[:, :3] = to_rgb(head_colour(head))
            colour[:, 3] = np.abs(weights[index, q, k]) / high
            lines = LineCollection(list(ends), colors=colour, linewidths=1.7, linestyles=[style], capstyle="butt")
            axes.add_collection(lines)
    for tokens, side, align in ((shown.q_tokens[:MOST], 0.0, "right"), (shown.k_tokens[:MOST], 1.0, "left")):
        for row, token in enumerate(tokens):
            text = axes.text(side + (0.02 if side else -0.02), row, "", ha=align, va="center")
            static.literal(text, static.shorten(token, static.LONGEST), fontsize=9, color=INK[theme])
    axes.set(xlim=(-0.45, 1.45), ylim=(rows - 0.4, -0.6), facecolor=PAPER[theme])
    axes.set_axis_off()
    _legend(axes, shown, theme)
    sentence = "Left = the token that looks, right = the token looked at; the stronger the line, the larger the weight."
    sentence += " Dashed: negative." if signed else ""
    if max(len(shown.q_tokens), len(shown.k_tokens)) > MOST:
        sentence += f" First {MOST} tokens of {max(len(shown.q_tokens), len(shown.k_tokens))}."
    where = f"layer {shown.layers[0]}" + (" (of several)" if len(shown.layers) > 1 else "")
    static.headline(axes, title or f"{shown.name}, head view, {where}", sentence, theme)
    return figure


def _legend(axes: Axes, shown: Pattern, theme: Theme) -> None:
    from matplotlib.lines import Line2D

    chips = [Line2D([], [], color=head_colour(head), linewidth=5) for head in shown.heads]
    legend = axes.legend(
        chips,
        [str(head) for head in shown.heads],
        title=shown.each,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        ncols=min(16, len(chips)),
        fontsize=8,
        frameon=False,
        handlelength=0.9,
        handletextpad=0.4,
        columnspacing=1.1,
        labelcolor=INK[theme],
    )
    legend.get_title().set(color=FAINT[theme], fontsize=8)

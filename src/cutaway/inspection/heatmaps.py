"""Heatmaps: one head large, or every layer and head as a sheet of small ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.inspection.codec import pack_patterns, pool
from cutaway.inspection.palette import FAINT, INK, RULE, Theme
from cutaway.inspection.patterns import Pattern, pattern, reading, scale_of, sums_to_one
from cutaway.inspection.picture import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THUMBNAIL = 56  # cells along a side of a small heatmap; longer sequences are pooled


def heatmap(
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
    """Attention weights as heatmaps, of any model: rows are queries (who looks), columns are keys (who is looked at).

    Args:
        weights: (Q, K), (H, Q, K) or (L, H, Q, K) after the softmax, numpy or torch; or a list of (1, H, Q, K), one a layer.
        tokens: the tokens of both sides; `q_tokens` and `k_tokens` where they differ. Without them, positions.
        layer, head: draw only this one. One head alone is drawn large; several as a sheet of all layers × heads.
        kind: "self", "cross", "encoder", or a name of your own.

    Raises:
        PictureError: shapes that do not fit, empty, negative or non-finite weights, no such layer or head.
    """
    whole = pattern(weights, tokens, q_tokens=q_tokens, k_tokens=k_tokens, kind=kind)
    return picture_of(whole.choose(layer, head), title)


def picture_of(shown: Pattern, title: str | None = None) -> Picture:
    """The heatmap picture of a pattern that is already in form."""
    name = title or _name(shown)
    return Picture(
        title=name,
        draw=lambda theme: figure_of(shown, name, theme),
        content=lambda: {"attention": pack_patterns([shown]), "view": "heatmap"},
    )


def _name(shown: Pattern) -> str:
    layers, heads = shown.layers, shown.heads
    where = f"layer {layers[0]}" if len(layers) == 1 else f"{len(layers)} layers"
    return f"{shown.name}, {where}, " + (
        f"{shown.each} {heads[0]}" if len(heads) == 1 else f"{len(heads)} {shown.each}s"
    )


def figure_of(shown: Pattern, title: str, theme: Theme) -> Figure:
    """One large heatmap, or the sheet."""
    from cutaway.inspection.static import steady

    draw = _large if len(shown.layers) == len(shown.heads) == 1 else _sheet
    return steady(draw)(shown, title, theme)


def _large(shown: Pattern, title: str, theme: Theme) -> Figure:
    from cutaway.inspection import static

    matrix = shown.layer(0)[0]  # (Q, K)
    queries, keys = matrix.shape
    cell = min(0.3, max(7.5 / max(queries, keys), 0.006))
    figure = static.new_figure(max(5.2, keys * cell + 2.4), max(3.2, queries * cell + 2.1), theme)
    axes = figure.add_subplot()
    signed, high = scale_of([matrix])
    drawn = axes.imshow(
        matrix,
        cmap=static.colours(theme, signed),
        norm=static.roots(high, signed),
        interpolation="nearest",
        aspect="equal",
    )
    static.plain(axes, theme)
    size = min(8.5, max(4.0, 66 * cell))
    static.token_ticks(axes, "x", shown.k_tokens, theme, size)
    static.token_ticks(axes, "y", shown.q_tokens, theme, size)
    axes.set_xlabel("looked at (key)", color=FAINT[theme], fontsize=9)
    axes.set_ylabel("looking (query)", color=FAINT[theme], fontsize=9)
    if max(queries, keys) <= 64:
        axes.set_xticks(np.arange(keys - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(queries - 1) + 0.5, minor=True)
        axes.grid(which="minor", color=RULE[theme], linewidth=0.3, alpha=0.6)
        axes.tick_params(which="minor", length=0)
    static.headline(axes, title, reading(sums_to_one(matrix[None]), signed, shown.note), theme)
    static.number_scale(figure, axes, drawn, "weight", theme, ticks=_ticks(high, signed))
    return figure


def _ticks(high: float, signed: bool) -> list[float]:
    """Numbers for the square-root scale, closer together where weights are small."""
    above = [high * share for share in ((0.05, 0.25, 0.6, 1) if signed else (0.02, 0.1, 0.25, 0.5, 0.75, 1))]
    return [*(-number for number in reversed(above) if signed), 0.0, *above]


def _sheet(shown: Pattern, title: str, theme: Theme) -> Figure:
    from cutaway.inspection import static

    step = math.ceil(max(len(shown.q_tokens), len(shown.k_tokens)) / THUMBNAIL)
    proper, small = True, []
    for layer in shown:
        proper = proper and sums_to_one(layer)
        small.append(pool(layer, step))
    blocks = np.stack(small)  # (L, H, Q/step, K/step)
    layers, heads, queries, keys = blocks.shape
    gap = max(1, round(max(queries, keys) / 12))
    side = max(0.16, min(1.7, 9.0 / max(heads, 4), 16.0 / layers))  # inches of a small heatmap
    tall = side * min(2.0, max(0.5, queries / keys))
    figure = static.new_figure(max(5.6, heads * side + 1.9), max(2.6, layers * tall + 1.6), theme)
    axes = figure.add_subplot()
    signed, high = scale_of(small)
    drawn = axes.imshow(
        static.mosaic(blocks, gap),
        cmap=static.colours(theme, signed),
        norm=static.roots(high, signed),
        interpolation="nearest",
        aspect=tall / side * (keys + gap) / (queries + gap),
    )
    static.plain(axes, theme)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _numbers(axes, "x", shown.heads, keys, gap, theme)
    _numbers(axes, "y", shown.layers, queries, gap, theme)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(shown.each, color=FAINT[theme], fontsize=9)
    axes.set_ylabel("layer", color=FAINT[theme], fontsize=9)
    sentence = reading(proper, signed, shown.note)
    if step > 1:
        sentence += f" Each cell: the largest weight of {step} × {step} tokens."
    static.headline(axes, title, sentence, theme, lift=24)
    static.number_scale(
        figure,
        axes,
        drawn,
        "weight",
        theme,
        ticks=_ticks(high, signed),
        aspect=20,
        shrink=min(1, 4 / (layers * tall)),
        anchor=(0, 1),
    )
    return figure


def _numbers(axes: Any, which: str, numbers: tuple[int, ...], cells: int, gap: int, theme: Theme) -> None:
    every = max(1, len(numbers) // 40)
    places = [index * (cells + gap) + (cells - 1) / 2 for index in range(0, len(numbers), every)]
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(places, [str(number) for number in numbers[::every]])
    axis.set_tick_params(length=0, labelsize=8, labelcolor=INK[theme])
    if which == "x":
        axis.tick_top()

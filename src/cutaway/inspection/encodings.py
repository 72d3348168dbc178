"""Pictures of how a model knows where a token stands: tables, rotary angles, biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cutaway.inspection.codec import deflate, encode
from cutaway.inspection.errors import PictureError
from cutaway.inspection.palette import FAINT, INK, RULE, Theme, head_colour
from cutaway.inspection.patterns import as_array
from cutaway.inspection.picture import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["table", "rotary", "bias"]
LONGEST = 512  # positions drawn; a pattern over positions shows itself long before
_SENTENCES = {
    "table": "Row = position, column = dimension; beside it, how alike two positions are (cosine).",
    "rotary": "Row = position, column = frequency: the cosine of the angle by which a query or key is turned.",
    "bias": "Row = query, column = key: what is added to the score before the softmax.",
}


def positions(encoding: Any, *, kind: Kind | None = None, title: str | None = None) -> Picture:
    """A picture of a position encoding.

    Args:
        encoding: for "table", (T, D) learned or sinusoidal vectors; for "rotary", (T, E/2) angles in radians;
            for "bias", (H, Q, K) or (Q, K) biases per head, as ALiBi's or T5's.
        kind: guessed as "bias" for three axes and "table" for two.

    Raises:
        PictureError: another number of axes, empty or non-finite values.
    """
    array = as_array(encoding, "position encoding")
    kind = kind or ("bias" if array.ndim == 3 else "table")
    if kind not in _SENTENCES:
        raise PictureError(f"there is no kind {kind!r} of positions: choose 'table', 'rotary' or 'bias'")
    if kind == "bias" and array.ndim == 2:
        array = array[None]
    if array.ndim != (3 if kind == "bias" else 2):
        wanted = {"table": "(T, D)", "rotary": "(T, E/2)", "bias": "(H, Q, K)"}[kind]
        raise PictureError(f"a position encoding of shape {array.shape} is no {kind}: give {wanted}")
    name = title or {"table": "Position vectors", "rotary": "Rotary angles", "bias": "Position bias"}[kind]
    panel = panel_of(array, kind, name)
    content = {"positions": [panel], "view": "positions"}
    return Picture(name, lambda theme: figure_of(array, kind, name, theme), lambda: content)


def cosines(table: np.ndarray) -> np.ndarray:
    """(T, D) to (T, T): the cosine of the angle between each two positions' vectors."""
    unit = table / np.maximum(np.linalg.norm(table, axis=-1, keepdims=True), 1e-12)
    return unit @ unit.T


def decay(angles: np.ndarray) -> np.ndarray:
    """(T, E/2) to (T,): the score of two equal vectors t positions apart, relative to t = 0.

    The mean cosine over the frequencies; Su et al., RoFormer (2021), section 3.4.3 (long-term decay).
    """
    return np.cos(angles - angles[:1]).mean(-1)


def by_distance(bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, Q, K) to distances key − query (Q+K−1,) and the mean bias at each (H, Q+K−1)."""
    queries, keys = bias.shape[1:]
    distances = np.arange(1 - queries, keys)
    lines = np.stack([[np.diagonal(head, distance).mean() for distance in distances] for head in bias])
    return distances, lines


def _matrices(array: np.ndarray, kind: Kind) -> list[tuple[str, np.ndarray, str, str]]:
    """What is drawn as heatmaps: (name, matrix, name of rows, name of columns)."""
    if kind == "table":
        return [("vectors", array, "position", "dimension"), ("likeness", cosines(array), "position", "position")]
    if kind == "rotary":
        return [("cosine of the angle", np.cos(array), "position", "frequency")]
    return [(f"head {index}", matrix, "query", "key") for index, matrix in enumerate(array)]


def _lines(array: np.ndarray, kind: Kind) -> dict[str, Any] | None:
    """What is drawn as curves."""
    if kind == "rotary":
        x, lines, across = np.arange(len(array)), decay(array)[None], "distance in tokens"
        names, up = ["decay"], "score of equal vectors, relative"
    elif kind == "bias":
        x, lines = by_distance(array)
        names, across, up = [f"head {index}" for index in range(len(lines))], "key − query", "bias"
    else:
        return None
    return {"x": x.tolist(), "lines": np.round(lines, 4).tolist(), "names": names, "across": across, "up": up}


def panel_of(array: np.ndarray, kind: Kind, name: str) -> dict[str, Any]:
    """The encoding as the page reads it."""
    array, note = _cut(array, kind)
    blocks = []
    for label, matrix, rows, columns in _matrices(array, kind):
        reach = float(np.abs(matrix).max()) or 1.0
        blocks.append(
            {
                "label": label,
                "shape": list(matrix.shape),
                "rows": rows,
                "columns": columns,
                "low": -reach,
                "high": reach,
                "bytes": deflate([encode(matrix, -reach, reach)]),
            }
        )
    return {"name": name, "sentence": _SENTENCES[kind] + note, "blocks": blocks, "curves": _lines(array, kind)}


def _cut(array: np.ndarray, kind: Kind) -> tuple[np.ndarray, str]:
    longest = max(array.shape[1:]) if kind == "bias" else len(array)
    if longest <= LONGEST:
        return array, ""
    cut = array[:, :LONGEST, :LONGEST] if kind == "bias" else array[:LONGEST]
    return cut, f" First {LONGEST} of {longest} positions."


def figure_of(array: np.ndarray, kind: Kind, title: str, theme: Theme) -> Figure:
    """Heatmaps side by side (biases in rows of four), curves under them."""
    from cutaway.inspection.static import steady

    return steady(_figure)(array, kind, title, theme)


def _figure(array: np.ndarray, kind: Kind, title: str, theme: Theme) -> Figure:
    from cutaway.inspection import static

    array, note = _cut(array, kind)
    matrices, curves = _matrices(array, kind), _lines(array, kind)
    across = min(4, len(matrices))
    down = -(-len(matrices) // across)
    figure = static.new_figure(
        max(6.4, 2.6 * across + 1), 0.9 + (3.6 if down == 1 else 2.1 * down) + 2.6 * bool(curves), theme
    )
    parts = figure.subfigures(
        2 if curves else 1, 1, squeeze=False, height_ratios=[3.6 if down == 1 else 2.1 * down, 2.6][: 1 + bool(curves)]
    )
    grid = parts[0, 0].subplots(down, across, squeeze=False)
    reach = float(max(np.abs(one[1]).max() for one in matrices)) or 1.0
    drawn = None
    for axes, block in zip(grid.flat, matrices, strict=False):
        label, matrix, rows, columns = block
        drawn = axes.imshow(
            matrix,
            cmap=static.colours(theme, signed=True),
            vmin=-reach,
            vmax=reach,
            aspect="auto",
            interpolation="nearest",
        )
        static.plain(axes, theme)
        axes.set_title(label, fontsize=9, color=INK[theme])
        axes.set_xlabel(columns, fontsize=8, color=FAINT[theme])
        axes.set_ylabel(rows, fontsize=8, color=FAINT[theme])
    for axes in list(grid.flat)[len(matrices) :]:
        axes.set_axis_off()
    static.number_scale(parts[0, 0], list(grid.flat), drawn, "value", theme)
    if curves:
        _curves(parts[1, 0].subplots(), curves, theme)
    static.literal(figure.suptitle("", x=0.02, ha="left"), title, fontsize=12, fontweight="bold", color=INK[theme])
    parts[0, 0].suptitle(_SENTENCES[kind] + note, x=0.02, ha="left", fontsize=8.5, color=FAINT[theme])
    return figure


def _curves(axes: Any, curves: dict[str, Any], theme: Theme) -> None:
    from cutaway.inspection import static

    for index, (name, line) in enumerate(zip(curves["names"], curves["lines"], strict=True)):
        axes.plot(curves["x"], line, color=head_colour(index), linewidth=1.4, label=name)
    static.plain(axes, theme)
    axes.grid(color=RULE[theme], linewidth=0.4)
    axes.set_xlabel(curves["across"], fontsize=8.5, color=FAINT[theme])
    axes.set_ylabel(curves["up"], fontsize=8.5, color=FAINT[theme])
    if len(curves["names"]) > 1:
        axes.legend(fontsize=7, frameon=False, labelcolor=INK[theme], ncols=2)

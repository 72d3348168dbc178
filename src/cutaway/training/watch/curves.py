"""The curves of a run as a picture, drawn from its log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.inspection.palette import FAINT, HEADS, INK, RULE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN = HEADS[0], HEADS[1], HEADS[2]


def draw(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Loss, validation loss, rate and norm of the gradient over the steps; `entries` are a log's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [e for e in entries if "loss" in e]
    valid = [e for e in entries if "valid" in e]
    if not steps:
        return
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, height_ratios=(2.2, 1))
    at, loss = [e["step"] for e in steps], [e["loss"] for e in steps]
    main = _axes(figure.add_subplot(grid[0, :]), "loss (nats a token)")
    main.plot(at, loss, color=BLUE, alpha=0.25, linewidth=0.8)
    main.plot(at, smooth(loss), color=BLUE, linewidth=1.8, label="training, smoothed")
    if valid:
        best = min(valid, key=lambda e: e["valid"])
        label = f"validation; lowest {best['valid']:.4f} after step {best['step']:,}"
        main.plot([e["step"] for e in valid], [e["valid"] for e in valid], "o-", color=ORANGE, ms=4, label=label)
    shown = [x for x in smooth(loss) if x < float("inf")]
    shown += [e["valid"] for e in valid]
    low, high = min(shown), max(shown)
    main.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    main.legend(frameon=False, labelcolor=INK["light"])
    for place, name, title, colour in (
        (0, "rate", "learning rate", GREEN),
        (1, "norm", "norm of the gradient", FAINT["light"]),
    ):
        small = _axes(figure.add_subplot(grid[1, place], sharex=main), title)
        small.plot(at, [e[name] for e in steps], color=colour, linewidth=1)
        small.set_xlabel("step", color=FAINT["light"])
        if name == "norm" and min(e[name] for e in steps) > 0:
            small.set_yscale("log")
            small.tick_params(which="both", colors=FAINT["light"], labelsize=8, length=0)
            for axis_labels in (small.yaxis.set_major_formatter, small.yaxis.set_minor_formatter):
                axis_labels("{x:g}")
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, dpi=140, format="png")
    partial.replace(path)


def smooth(values: Sequence[float], share: float = 0.02) -> list[float]:
    """An exponential average over about this share of the values, unbiased at the beginning (Kingma & Ba 2015, section 3)."""
    keep = 1 - 1 / max(1.0, share * len(values))
    total = weight = 0.0
    found = []
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        found.append(total / weight)
    return found


def _axes(axes: Axes, title: str) -> Axes:
    axes.set_title(title, loc="left", fontsize=10, color=INK["light"])
    axes.grid(color=RULE["light"], linewidth=0.6)
    axes.tick_params(colors=FAINT["light"], labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes

"""`cutaway verify`: is it the same model as in transformers?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from cutaway.cli.output import Json, Source, busy, console, emit, table
from cutaway.errors import CutawayError

if TYPE_CHECKING:
    from cutaway.lab.verify import Report


def verify(
    source: Source,
    *,
    text: Annotated[str | None, arg(metavar="TEXT", help="What both read.", help_behavior_hint="")] = None,
    new_tokens: int = 32,
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16"),
    json: Json = False,
) -> None:
    """Compare a model with the same one in transformers: every hidden state, the output, greedy tokens.

    Example:
        cutaway verify smollm2

    Needs transformers; in cutaway's own folder: pip install -e '.[verify]'. Errors are the largest difference of any
    number, absolute and relative to the largest number. In half precision two correct programs differ: the yardstick
    is how far transformers is from its own float32.

    With --json: {"max_abs_error", "max_rel_error", "greedy_tokens_equal"} of the output in the first dtype, and
    "dtypes" with the whole table.

    Args:
        new_tokens: How many tokens both continue the text with.
        dtypes: Compared one after the other.
    """
    from cutaway.lab import verify as lab

    if not dtypes:
        raise CutawayError("give at least one dtype: float32, bfloat16 or float16")
    with busy(f"comparing {source} with transformers"):
        reports = lab.verify(source, dtypes, text=text, new_tokens=new_tokens)
    if json:
        first = reports[0].json()
        del first["rows"]
        emit({"source": source, **first, "dtypes": {report.dtype: report.json() for report in reports}})
        return
    for report in reports:
        _show(report)


def _show(report: Report) -> None:
    out = console()
    out.print(f"[bold]{report.dtype}[/bold]")
    columns = ["", "max abs error>", "max rel error>"]
    rows = [[row.name, f"{row.max_abs_error:.1e}", f"{row.max_rel_error:.1e}"] for row in report.rows]
    if report.rows[0].yardstick is not None:
        columns.append("yardstick>")
        rows = [[*cells, f"{row.yardstick:.1e}"] for cells, row in zip(rows, report.rows, strict=True)]
    table(*columns, rows=rows)
    if report.note is not None:
        out.print(f"({report.note})", soft_wrap=True)
    if report.greedy_tokens_equal is not None and report.ours is not None and report.theirs is not None:
        same = next((i for i, (a, b) in enumerate(zip(report.ours, report.theirs, strict=True)) if a != b), None)
        count = len(report.ours)
        which = f"all {count}" if same is None else f"the first {same} of {count}"
        out.print(f"[{'green' if same is None else 'yellow'}]{which} greedy tokens are the same[/]")
    print()

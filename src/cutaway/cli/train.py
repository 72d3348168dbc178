"""`cutaway train`: from text files to a model."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, Suppress, arg

from cutaway.cli.output import Json, console, emit, table
from cutaway.errors import CutawayError

if TYPE_CHECKING:
    from cutaway.training.runner import Summary


def train(
    recipe: Annotated[
        Path | None,
        Positional,
        arg(
            metavar="[RECIPE.toml]",
            help="What to train, and how; a key is changed by --section.key.",
            help_behavior_hint="",
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        arg(metavar="RUN", help="The folder of the run, which is then a SOURCE everywhere.", help_behavior_hint=""),
    ] = None,
    show: bool = False,
    settings: Suppress[dict[str, str]] = {},  # noqa: B006 (never changed)
    json: Json = False,
) -> None:
    """Teach a model from text files. The same line again goes on where a run was stopped, exactly.

    Every key of a recipe can be given as --section.key VALUE; --show prints them all, each with what it means. Sections are
    data, model, objective, task, lora, optimizer, schedule, loop, evaluate, save, watch and parallel.

    Examples:
        cutaway train --data.path tiny.txt --data.tokenizer char --model.preset gpt2 --model.width 128 --model.layers 4
            --model.heads 4 --data.length 64 --loop.steps 500 --optimizer.rate 1e-3 --out runs/tiny
        cutaway train --out runs/tiny
        cutaway generate runs/tiny "ROMEO:"

    With --json: {"folder", "step", "steps", "loss", "valid", "best", "best_step", "tokens", "seconds", "parameters",
    "trained", "stopped", "goal", "early"}.

    Args:
        show: Print the whole recipe as TOML, with an explanation of each key, and train nothing.
    """
    from cutaway.training import run, toml
    from cutaway.training.recipe import Recipe

    held = run.recipe_of(out) if out and recipe is None else None  # a run knows its recipe
    chosen = toml.settings(settings, toml.load(recipe) if recipe else held or Recipe())
    if show:
        print(toml.dump(chosen, explained=True), end="")
        return
    if out is None:
        raise CutawayError("where to? Give --out RUN, the folder of the run")
    from cutaway.training.runner import train as work
    from cutaway.training.watch.live import Live
    from cutaway.training.world import is_main

    summary = work(chosen, out, watch=Live())
    if not is_main():
        sys.exit(143 if summary.stopped else 0)
    emit(dataclasses.asdict(summary)) if json else show_summary(summary)
    stopped(summary)


def stopped(summary: Summary) -> None:
    """Leaves with the status of the signal that ended the run, if one did."""
    if summary.stopped:
        again = f"cutaway train --out {summary.folder}"
        print(f"cutaway: stopped by {summary.stopped} after step {summary.step}; go on with: {again}", file=sys.stderr)
        sys.exit(130 if summary.stopped == "SIGINT" else 143)


def show_summary(summary: Summary, then: str = "cutaway generate {} TEXT") -> None:
    """How a run ended, for people, and what may be done with it `then`."""
    rows = [("steps", f"{summary.step:,} of {summary.steps:,}"), ("parameters", f"{summary.parameters:,}")]
    if summary.trained < summary.parameters:
        rows.append(("trained of them", f"{summary.trained:,} ({summary.trained / summary.parameters:.2%})"))
    if summary.loss is not None:
        rows.append(("loss of the last step", f"{summary.loss:.4f}"))
    if summary.best is not None:
        rows.append((f"best validation {summary.goal}", f"{summary.best:.4f} after step {summary.best_step:,}"))
    rows += [("tokens read", f"{summary.tokens:,}"), ("seconds", f"{summary.seconds:.1f}")]
    table("", "", rows=rows)
    console().print(f"\n{summary.folder} is a source now: {then.format(summary.folder)}", soft_wrap=True)

"""`cutaway finetune`, `cutaway eval` and `cutaway predict`: a trained model, tuned for a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, Suppress, arg

from cutaway.cli.output import Json, Source, busy, console, emit, standard_input, table
from cutaway.cli.train import show_summary, stopped
from cutaway.errors import CutawayError

if TYPE_CHECKING:
    from cutaway.training.recipe import Recipe

_TASKS = "classification, tokens, questions, translation, summarisation or instructions"
Files = Annotated[
    tuple[str, ...],
    arg(metavar="FILE...", help="Examples: TSV, CSV, JSONL, JSON, CoNLL or Parquet.", help_behavior_hint=""),
]
Task = Annotated[
    str | None,
    arg(metavar="TASK", help=f"{_TASKS}; by the run, or the model's head, if not given.", help_behavior_hint=""),
]


def finetune(
    source: Source,
    *,
    task: Annotated[str, arg(metavar="TASK", help=f"{_TASKS[0].upper()}{_TASKS[1:]}.", help_behavior_hint="")],
    data: Files,
    out: Annotated[
        Path,
        arg(metavar="RUN", help="The folder of the run, which is then a SOURCE everywhere.", help_behavior_hint=""),
    ],
    settings: Suppress[dict[str, str]] = {},  # noqa: B006 (never changed)
    json: Json = False,
) -> None:
    """Tune a trained model for a task. The same line again goes on where a run was stopped, exactly.

    Every key of a recipe can be given as --section.key VALUE; `cutaway train --show` explains them.

    Examples:
        cutaway finetune minilm --task classification --data train.tsv --data.columns label,text --out runs/movies
        cutaway finetune minilm --task tokens --data train.conll --data.valid valid.conll --loop.epochs 5 --out runs/names
        cutaway finetune minilm --task classification --data train.csv --task.frozen true --optimizer.rate 1e-3 --out runs/head

    With --json: as `cutaway train`.
    """
    from cutaway.training.runner import train as work
    from cutaway.training.tuning import recipe_for
    from cutaway.training.watch.live import Live

    summary = work(recipe_for(source, task, data, settings), out, watch=Live())
    emit(dataclasses.asdict(summary)) if json else show_summary(summary, "cutaway predict {} TEXT")
    stopped(summary)


def eval(
    source: Source,
    *,
    data: Files,
    task: Task = None,
    settings: Suppress[dict[str, str]] = {},  # noqa: B006 (never changed)
    json: Json = False,
) -> None:
    """Score a model on data: by its task, or a decoder by how well it foresees the texts.

    A run is scored as it was tuned. Its keys can be given anew, and those of another source: --data.columns, --task.text,
    --task.answer, --data.length, --evaluate.rows and the options of the task. Without a task a window of --data.length
    tokens slides over each text by --task.stride; --data.document says what one text is: file, line or paragraph.

    Examples:
        cutaway eval runs/movies --data test.tsv
        cutaway eval ./folder --task tokens --data test.conll --data.length 128
        cutaway eval smollm2 --data novel.txt --data.length 512 --task.stride 256

    With --json: the scores by name, and "examples"; without a task "perplexity", "bits_per_byte", "loss" (nats a token),
    "tokens", "bytes", "documents", "length" and "stride".
    """
    from cutaway.training.tuning import evaluate

    recipe = _recipe(source, task, settings, foreseen=True)
    with busy("scoring"):
        scores = evaluate(
            source,
            task=recipe.task.name,
            data=data,
            columns=recipe.data.columns,
            text=recipe.task.text,
            answer=recipe.task.answer,
            document=recipe.data.document,
            **{**_running(recipe), "length": recipe.data.length if "data.length" in settings else None},
        )
    if json:
        emit(scores)
    else:
        table("", ">", rows=[(name, f"{x:,}" if isinstance(x, int) else f"{x:.4f}") for name, x in scores.items()])


def predict(
    source: Source,
    texts: Annotated[
        tuple[str, ...],
        Positional,
        arg(
            metavar="TEXT...",
            help="What the model reads; - reads one a line from standard input.",
            help_behavior_hint="",
        ),
    ],
    *,
    task: Task = None,
    context: Annotated[
        str | None,
        arg(
            metavar="TEXT",
            help="The text that answers questions; - reads it from standard input.",
            help_behavior_hint="",
        ),
    ] = None,
    settings: Suppress[dict[str, str]] = {},  # noqa: B006 (never changed)
    json: Json = False,
) -> None:
    """Ask a tuned model about new texts.

    Examples:
        cutaway predict runs/movies "A quiet, moving film." "Two hours I will never get back."
        cutaway predict runs/answers "Who wrote Hamlet?" --context "Hamlet was written by Shakespeare about 1600."

    With --json: {"task", "predictions" (one object a text, with "text" and "score")}.
    """
    from cutaway.training.tuning import predict as work

    read: Sequence[Any] = [x for x in standard_input().splitlines() if x] if texts == ("-",) else list(texts)
    if not read:
        raise CutawayError("predict needs at least one text")
    recipe = _recipe(source, task, settings)
    task = recipe.task.name
    if (context is not None) != (task == "questions"):
        raise CutawayError("questions need --context TEXT, which holds the answers; other tasks take none")
    given = read if context is None else [(each, standard_input() if context == "-" else context) for each in read]
    answers = work(source, given, task=task, **_running(recipe))
    if json:
        emit({"task": task, "predictions": [{"input": x, **answer} for x, answer in zip(read, answers, strict=True)]})
    else:
        show(read, answers)


def show(texts: Sequence[str], answers: Sequence[Mapping[str, Any]]) -> None:
    """What a model said of texts, for people."""
    for text, answer in zip(texts, answers, strict=True):
        found = answer.get("entities", [answer])
        for each in found:
            score = f"{each['score']:.3f}" if each.get("score") is not None else "     "
            said = "  ".join(str(each[name]) for name in ("label", "text") if name in each)
            console().print(f"{score}  {said}", soft_wrap=True, markup=False)
        if not found:
            console().print("       nothing", markup=False)
        console().print(f"       {text}", style="dim", soft_wrap=True, markup=False)


def _recipe(source: str, task: str | None, settings: Mapping[str, str], foreseen: bool = False) -> Recipe:
    from cutaway.training import toml
    from cutaway.training.tuning import settled

    return toml.settings(settings, settled(source, task, foreseen))


def _running(recipe: Recipe) -> dict[str, Any]:
    """How a model is run: arguments of `evaluate` and `predict`."""
    return {
        "length": recipe.data.length,
        "rows": recipe.evaluate.rows or recipe.loop.rows,
        "device": recipe.loop.device,
        **recipe.task.options,
    }

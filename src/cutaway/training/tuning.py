"""Tuning a trained model for a task, scoring it on data, and asking it about new texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway import api
from cutaway.checkpoints import open_source
from cutaway.training import toml
from cutaway.training.data import examples
from cutaway.training.errors import TrainingError
from cutaway.training.metrics.perplexity import perplexity
from cutaway.training.recipe import Data, Evaluate, Loop, Optimizer, Recipe, Schedule, read
from cutaway.training.run import recipe_of
from cutaway.training.tasks.setup import kind_of, opened
from cutaway.training.tasks.task import Task
from cutaway.training.world import device_for

if TYPE_CHECKING:
    from cutaway.training.runner import Summary
    from cutaway.training.watch import Watch

# Devlin et al. 2019, appendix A.3: rates of 2e-5 to 5e-5, 16 or 32 rows, 2 to 4 epochs; AdamW and a linear schedule
TUNING = Recipe(
    optimizer=Optimizer(rate=5e-5, decay=0.01, betas=(0.9, 0.999)),
    schedule=Schedule(name="linear", warmup=0.1, final=0.0),
    loop=Loop(epochs=3.0, rows=16),
    data=Data(length=256),
    evaluate=Evaluate(rows=32),
)


def recipe_for(
    source: str, task: str, data: Sequence[str], settings: Mapping[str, str] | None = None, base: Recipe = TUNING
) -> Recipe:
    """The recipe that tunes `source`, with settings as a shell gives them: `{"loop.epochs": "2"}`."""
    made = read({"model": {"source": source}, "task": {"name": task}, "data": {"path": list(data)}}, base)
    return toml.settings(settings or {}, made)


def finetune(
    source: str | os.PathLike[str],
    *,
    task: str,
    data: str | Sequence[str],
    out: str | Path,
    valid: str | Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Summary:
    """Tunes a model for a task, in the folder of a run, which is a source afterwards; called again, it goes on.

    Args:
        source: of the model.
        task: classification, tokens, questions, translation, summarisation or instructions.
        data: files with examples.
        valid: files to validate with; a part of `data` that is drawn by the seed if not given.
        settings: other keys of the recipe: `{"loop.epochs": 2, "optimizer.rate": 3e-5}`.

    Raises:
        TrainingError, DataError: what cannot be, or data that are broken.
    """
    from cutaway.training.runner import train

    files = [data] if isinstance(data, str) else list(data)
    sections: dict[str, dict[str, Any]] = {"data": {"valid": [valid] if isinstance(valid, str) else list(valid)}}
    for name, value in (settings or {}).items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    return train(read(sections, recipe_for(os.fspath(source), task, files)), out, watch=watch)


def evaluate(
    source: str | os.PathLike[str],
    *,
    task: str | None = None,
    data: str | Sequence[str],
    columns: Sequence[str] | None = None,
    text: str | None = None,
    answer: str | None = None,
    document: str = "file",
    length: int | None = None,
    rows: int | None = None,
    device: str | None = None,
    **options: Any,
) -> dict[str, float]:
    """How good a model is on data: the scores of its task, and how many examples there were.

    A decoder is scored by how well it foresees the texts, where no task is given: perplexity, bits per byte, and what
    `metrics.perplexity` says of them.

    What is not given is as the run had it, where the source is one.

    Args:
        task: by the run, or by the model's head, if not given.
        columns: names of the columns, where the first line of a CSV or TSV file is data already.
        text, answer: which columns are read and compared, where the data do not call them as the task does.
        document: what one text of a text file is: the "file", a "line" or a "paragraph".
        length: the most tokens a row has; 256, or without a task what a run learnt with, or else what the model takes, up
            to 1,024.
        rows: how many at once.
        options: of the task; without one, the `stride` of the windows.
    """
    usual = settled(source, task, foreseen=True)
    columns = usual.data.columns if columns is None else columns
    given = examples(data, names=columns or None, document=document)
    rows = rows or usual.evaluate.rows or usual.loop.rows
    if usual.task.name is None:
        return _foreseen(source, given.texts(text), length, rows, device, options)
    kind = kind_of(usual.task.name)
    found = kind.read(given, text or usual.task.text, answer or usual.task.answer)
    model, made = _opened(source, kind, usual, length, device, options)
    made.check(found)
    answers = made.answers(model, [example.text for example in found], rows)
    return {**made.score(answers, found), "examples": len(found)}


def predict(
    source: str | os.PathLike[str],
    texts: Sequence[Any],
    *,
    task: str | None = None,
    length: int | None = None,
    rows: int | None = None,
    device: str | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """What a tuned model says of new texts, with scores.

    Args:
        texts: texts; for questions, pairs of a question and the text that holds its answer.
        task, length, rows, options: as for `evaluate`.

    Returns:
        For classes, "label", "score" and the "scores" of all; other tasks say theirs.
    """
    if isinstance(texts, str):
        raise TrainingError("predict takes a list of texts; wrap the one text in [ ]")
    usual = settled(source, task)
    kind = kind_of(usual.task.name or "")
    model, made = _opened(source, kind, usual, length, device, options)
    return made.answers(model, list(texts), rows or usual.evaluate.rows or usual.loop.rows)


def _opened(
    source: str | os.PathLike[str],
    kind: type[Task],
    usual: Recipe,
    length: int | None,
    device: str | None,
    options: Mapping[str, Any],
) -> tuple[Any, Task]:
    return opened(
        os.fspath(source),
        kind,
        length=length or usual.data.length,
        device=device or usual.loop.device,
        options={**usual.task.options, **options},
    )


def _foreseen(
    source: str | os.PathLike[str],
    texts: Iterable[tuple[tuple[str, ...], bool]],
    length: int | None,
    rows: int,
    device: str | None,
    options: Mapping[str, Any],
) -> dict[str, float]:
    """How well a decoder foresees texts."""
    if unknown := options.keys() - {"stride"}:
        raise TrainingError(f"without a task there is no option {', '.join(unknown)}; give --task, or leave it out")
    held = _of_run(Path(source).expanduser())
    loaded = api.load(source, "float32", device_for(device))
    if loaded.tokenizer is None:
        raise TrainingError(f"{os.fspath(source)} has no tokenizer, so there is nothing to read texts with")
    length = length or (held.data.length if held else None)
    pieces = ((text, whole) for (text,), whole in texts)
    return perplexity(loaded.model, loaded.tokenizer, pieces, length=length, rows=rows, **options)


HEADS = {"sequence": "classification", "token": "tokens", "span": "questions"}


def settled(source: str | os.PathLike[str], task: str | None = None, foreseen: bool = False) -> Recipe:
    """How a tuned model is asked: as it was tuned, where the source is a run for the task; its head may tell the task.

    Args:
        foreseen: where nothing tells a task, there may be none: texts are foreseen.

    Raises:
        TrainingError: nothing tells, or the model has no head for it.
    """
    held = _of_run(Path(source).expanduser())
    if held and held.task.name is not None and task in (None, held.task.name):
        return held
    own = HEADS.get(getattr(open_source(source).sizes, "head", None) or "")
    name = task or own
    if name is None and foreseen:
        return TUNING
    if name is None or (own != name and kind_of(name).head is not None):
        there = f"its head is for {own}" if own else "it has no head for a task"
        what = f"tune it for {name}" if name else "say which task, or tune it"
        raise TrainingError(f"{os.fspath(source)} cannot be asked: {there}; {what} (`cutaway finetune`)")
    return read({"task": {"name": name}}, TUNING)


def _of_run(folder: Path) -> Recipe | None:
    """The recipe of a run, or of the run of a checkpoint."""
    try:
        return recipe_of(folder) or (recipe_of(folder.parent.parent) if (folder / "trainer.json").is_file() else None)
    except OSError:  # no name of a file at all
        return None

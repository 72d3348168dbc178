"""The folder of a run, and its rules: one process at a time, one recipe, nothing half-written ever seen.

recipe.toml          what is computed
checkpoints/000500   after step 500; `last` and `best` are files that name one
log.jsonl            a line a step, and one an evaluation
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cutaway.training import toml
from cutaway.training.errors import TrainingError
from cutaway.training.lock import locked
from cutaway.training.recipe import Recipe, differences

RECIPE, CHECKPOINTS, LOG, LAST, BEST = "recipe.toml", "checkpoints", "log.jsonl", "last", "best"


class Run:
    """A folder that exists, belongs to this process until it ends, and holds `recipe`."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        self._checkpoints = folder / CHECKPOINTS
        self._remove_partial()

    def _remove_partial(self) -> None:
        """What a process that was killed had begun to write or to delete."""
        for path in [*self._checkpoints.glob(".*"), *self.folder.glob(".*.partial")]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """Of which there are checkpoints."""
        return sorted(int(path.name) for path in self._checkpoints.glob("[0-9]*"))

    def path(self, step: int) -> Path:
        return self._checkpoints / f"{step:06d}"

    def written(self, step: int, *, best: bool, keep: int) -> None:
        """A checkpoint is there: the files that name it say so, and those that nothing names any more go."""
        replace(self.folder / LAST, f"{CHECKPOINTS}/{step:06d}\n")
        if best:
            replace(self.folder / BEST, f"{CHECKPOINTS}/{step:06d}\n")
        named = named_in(self.folder, BEST)
        for old in self.steps()[:-keep]:
            if named is None or self.path(old) != named:
                aside = self._checkpoints / f".{old:06d}.partial"  # at once; deleting takes a while
                os.replace(self.path(old), aside)
                shutil.rmtree(aside, ignore_errors=True)

    def log(self, entry: dict[str, Any]) -> None:
        try:
            with open(self.folder / LOG, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{self.folder / LOG} cannot be written: {error.strerror}. Once it can, cutaway train --out {self.folder} "
                "goes on from the last checkpoint"
            ) from None

    def forget_after(self, step: int) -> None:
        """Drops what the log says of later steps, which are made anew, and a line that was cut off."""
        path = self.folder / LOG
        if path.exists():
            kept = [line for line in entries(path) if line["step"] <= step]
            replace(path, "".join(json.dumps(line) + "\n" for line in kept))


class Elsewhere(Run):
    """A run whose folder is another process's: nothing is written, and what there is was told."""

    def __init__(self, folder: Path, recipe: Recipe, steps: list[int]) -> None:
        self.folder, self.recipe, self._steps = folder, recipe, steps
        self._checkpoints = folder / CHECKPOINTS

    def steps(self) -> list[int]:
        return self._steps

    def written(self, step: int, *, best: bool, keep: int) -> None: ...

    def log(self, entry: dict[str, Any]) -> None: ...

    def forget_after(self, step: int) -> None: ...


def entries(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; the last may have been cut off."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def named_in(folder: Path, name: str) -> Path | None:
    """The checkpoint that `last` or `best` names."""
    file = folder / name
    return folder / file.read_text(encoding="utf-8").strip() if file.is_file() else None


def replace(path: Path, text: str) -> None:
    """The file has this text, or what it had before."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def recipe_of(folder: Path) -> Recipe | None:
    """Of the run that is there, if one is."""
    return toml.load(folder / RECIPE) if (folder / RECIPE).is_file() else None


@contextlib.contextmanager
def opened(folder: Path, recipe: Recipe) -> Iterator[Run]:
    """The run in a folder, begun or gone on with.

    Raises:
        TrainingError: it holds another run, or something else; another process trains in it.
    """
    folder = folder.expanduser().absolute()
    check(folder, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        replace(folder / RECIPE, toml.dump(recipe))
        (folder / CHECKPOINTS).mkdir(exist_ok=True)  # after what makes the folder a run
        yield Run(folder, recipe)


def check(folder: Path, recipe: Recipe) -> None:
    """That this recipe may begin, or go on, in a folder.

    Raises:
        TrainingError: it holds another run, or something else.
    """
    old = recipe_of(folder)
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder} is a file; a run is a folder: choose another --out")
    if old is None and folder.exists() and any(p for p in folder.iterdir() if not p.name.startswith(".")):
        raise TrainingError(f"{folder} holds files but no run; choose another folder")
    if old is not None and (changed := differences(old, recipe)):
        raise TrainingError(
            f"the run in {folder} has another recipe: {'; '.join(changed)}. Go on with its own, or choose another --out"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with locked(folder / ".lock", wait=False) as mine:
        if not mine:
            raise TrainingError(f"another process trains in {folder}; wait for it, or choose another folder")
        yield

"""A run from its recipe to its end, through whatever stops it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cutaway.training import checkpoint, run, toml
from cutaway.training.checkpoint import Position
from cutaway.training.errors import TrainingError
from cutaway.training.recipe import Recipe
from cutaway.training.saver import Saver
from cutaway.training.setup import Prepared, prepare
from cutaway.training.watch import Several, Start, Watch, asked, curves
from cutaway.training.world import World, joined


@dataclass(frozen=True)
class Summary:
    """How a run ended. `stopped`: the signal that ended it before its last step."""

    folder: str
    step: int
    steps: int
    loss: float | None  # of the last step made here
    valid: float | None  # the latest
    best: float | None
    best_step: int | None
    tokens: int
    seconds: float
    parameters: int
    trained: int  # of them, and of what an objective brings
    stopped: str | None
    goal: str  # what `best` is: the lowest "loss", or the highest score of that name
    early: bool  # no better evaluation for as long as the recipe's patience


def train(recipe: Recipe | None, folder: str | Path, *, watch: Watch | None = None) -> Summary:
    """Trains what `recipe` says, in `folder`; a run that is there already goes on where it was.

    Args:
        recipe: None goes on with the one in the folder.

    Raises:
        TrainingError: a recipe that cannot be; another run in the folder.
        CheckpointError: a checkpoint that cannot be read, or not be written (the one before stays).
    """
    folder = Path(folder)
    with joined() as world, torch.random.fork_rng(), _signals(world) as stop:
        recipe = toml.loads(world.told(lambda: toml.dump(_asked_for(recipe, folder))))  # refused before data are read
        watches = Several(*([watch] if watch else []), asked(recipe.watch)) if world.main else Watch()
        prepared = prepare(recipe, world, folder, watches)
        with _opened(folder, recipe, world) as opened:
            return _Going(prepared, opened, watches, stop).to_the_end()


def _asked_for(recipe: Recipe | None, folder: Path) -> Recipe:
    recipe = recipe or run.recipe_of(folder)
    if recipe is None:
        raise TrainingError(f"there is no run in {folder} to go on with: give a recipe")
    run.check(folder.expanduser().absolute(), recipe)
    return recipe


@contextmanager
def _opened(folder: Path, recipe: Recipe, world: World) -> Iterator[run.Run]:
    """The folder is the main process's; to the others it is as if they wrote into it."""
    with ExitStack() as held:
        mine: list[run.Run] = []
        steps = world.told(lambda: mine.append(held.enter_context(run.opened(folder, recipe))) or mine[0].steps())
        yield mine[0] if world.main else run.Elsewhere(folder, recipe, steps)


class _Going:
    """A run that goes on."""

    def __init__(self, prepared: Prepared, opened: run.Run, watch: Watch, stop: list[str]) -> None:
        self.prepared, self.trainer, self.run, self.watch, self.stop = prepared, prepared.trainer, opened, watch, stop
        self.recipe = opened.recipe
        self.steps = self.trainer.recipe.loop.steps
        self.every = self.trainer.recipe.evaluate.every or max(1, self.steps // 10)
        self.valid: float | None = None
        self.loss: float | None = None
        self.position = Position(data=prepared.fingerprint)
        self.world = self.trainer.world
        if done := opened.steps():
            tensors, self.position = checkpoint.shared(opened.path(done[-1]), self.world)
            if self.position.data != prepared.fingerprint:
                raise TrainingError(f"the data of the run in {opened.folder} has changed since it began; restore it")
            self.trainer.load(tensors)
            # it may have been killed after this checkpoint was there and before its name was
            opened.written(done[-1], best=self.position.best_step == done[-1], keep=self.recipe.save.last)
        opened.forget_after(self.position.step)
        self.saver = Saver(opened, self.trainer, prepared.tokenizer, prepared.copy, watch.saved)
        self.trainer.ready()
        self._began = self._saved = time.monotonic()
        self._saved_step = self.position.step
        self._late = False  # whether a checkpoint is due by the clock

    def to_the_end(self) -> Summary:
        at = self.position.step
        self.watch.began(Start(self.run.folder, self.trainer, self.prepared.tokenizer, self.steps, at))
        try:
            while not self._over() and not self._stopped():
                self._step(self.position.step + 1)
            self.saver.wait()
            if self.stop and self.position.step != self._saved_step:
                self._save(best=False)
        finally:
            try:
                self.saver.wait()
            finally:
                self.watch.ended()
        if self.recipe.watch.curves and self.world.main:
            curves.draw(run.entries(self.run.folder / run.LOG), self.run.folder / "curves.png")
        return self._summary()

    def _over(self) -> bool:
        return self.position.step >= self.steps or self._early()

    def _stopped(self) -> bool:
        """Whether any process was asked to stop. The main one's clock counts for all."""
        late = self.recipe.save.minutes is not None and time.monotonic() - self._saved > 60 * self.recipe.save.minutes
        stop, late = self.world.sum(
            torch.tensor([bool(self.stop), late and self.world.main], dtype=torch.int32)
        ).tolist()
        self._late = bool(late)
        if stop and not self.stop:
            self.stop.append("SIGTERM")
        return bool(stop)

    def _early(self) -> bool:
        patience, best = self.recipe.loop.patience, self.position.best_step
        return patience is not None and best is not None and (self.position.step - best) // self.every >= patience

    def _step(self, number: int) -> None:
        before = time.monotonic()
        step = self.trainer.step(number)
        seconds = time.monotonic() - before
        self.loss = step.loss
        self.position = replace(self.position, step=number, tokens=self.position.tokens + step.tokens)
        entry: dict[str, Any] = {"step": number, "loss": step.loss, "norm": step.norm, "rate": step.rate}
        entry |= {**step.extra, "tokens": self.position.tokens, "seconds": round(seconds, 4)}
        self.run.log(entry | ({"skipped": step.skipped} if step.skipped else {}))
        self.watch.stepped(step, seconds)
        if step.skipped:
            self.watch.noticed(number, step.skipped)
        if number == self.steps or number % self.every == 0:
            self._save(best=self._evaluate(number))
        elif self._due(number):
            self._save(best=False)

    def _due(self, number: int) -> bool:
        every = self.recipe.save.every
        return self._late or (every is not None and number % every == 0)

    def _evaluate(self, number: int) -> bool:
        """Whether it is the best so far."""
        if self.prepared.valid is None:
            return False
        self.valid = self.trainer.evaluate(self.prepared.valid, self.recipe.evaluate.batches)
        scores = self.prepared.scores() if self.prepared.scores else {}
        self.run.log({"step": number, "valid": self.valid, **scores})
        self.watch.evaluated(number, self.valid)
        if scores:
            self.watch.scored(number, scores)
            self.watch.noticed(number, "   ".join(f"{name} {score:.4f}" for name, score in scores.items()))
        goal = self.prepared.goal
        value, sign = (scores[goal], 1) if goal else (self.valid, -1)
        better = self.position.best is None or sign * value > sign * self.position.best
        if better:
            self.position = replace(self.position, best=value, best_step=number)
        return better

    def _save(self, *, best: bool) -> None:
        now = time.monotonic()
        self.position = replace(self.position, seconds=self.position.seconds + now - self._began)
        self._began = self._saved = now
        self._saved_step = self.position.step
        self.saver.save(self.position, best=best)

    def _summary(self) -> Summary:
        at = self.position
        return Summary(
            folder=str(self.run.folder),
            step=at.step,
            steps=self.steps,
            loss=self.loss,
            valid=self.valid,
            best=at.best,
            best_step=at.best_step,
            tokens=at.tokens,
            seconds=round(at.seconds, 3),
            parameters=sum(p.numel() for p in self.trainer.model.parameters()),
            trained=sum(p.numel() for p in self.trainer.trained),
            stopped=self.stop[0] if self.stop and not self._over() else None,
            goal=self.prepared.goal or "loss",
            early=self._early() and at.step < self.steps,
        )


@contextmanager
def _signals(world: World) -> Iterator[list[str]]:
    """SIGTERM and the first Ctrl-C ask the run to stop after its step: their names appear in the list.

    torchrun passes a Ctrl-C on to processes that have it from the terminal already: there the second is no other.
    """
    asked: list[str] = []

    def ask(number: int, _: object) -> None:
        if asked and number == signal.SIGINT and world.size == 1:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

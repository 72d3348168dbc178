"""Checkpoints written while training goes on: the numbers are copied at once, and a thread takes them to the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

import torch
from torch import Tensor, nn

from cutaway.training import adapt, checkpoint
from cutaway.training.checkpoint import Position
from cutaway.training.loop import Trainer
from cutaway.training.parallel.whole import whole
from cutaway.training.run import Run


@dataclass
class Saver:
    """One checkpoint at a time. An error of the thread is raised where the run next meets the saver."""

    run: Run
    trainer: Trainer
    tokenizer: object
    copy: nn.Module | None  # of the model, in the main process: what the thread reads, whatever the model has become
    done: Callable[[int], None]  # is told of each step whose checkpoint is there

    def __post_init__(self) -> None:
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def save(self, position: Position, *, best: bool) -> None:
        """Returns as soon as everything is copied.

        Raises:
            CheckpointError: the one before could not be written.
        """
        self.wait()
        tensors = {}
        for name, x in self.trainer.tensors().items():
            full = whole(x.detach())  # one after another: nobody has all of a divided model at once
            if self.copy is not None:
                tensors[name] = full.to("cpu", copy=True)
        if self.copy is None:
            return
        kind = "average" if self.trainer.average.values else "weights"
        with torch.no_grad():
            for name in adapt.kept(self.copy):
                self.copy.get_parameter(name).copy_(tensors[f"{kind}/model.{name}"])
        self._thread = Thread(target=self._write, args=(tensors, position, best), name="cutaway-saver")
        self._thread.start()

    def _write(self, tensors: dict[str, Tensor], position: Position, best: bool) -> None:
        try:
            checkpoint.write(self.run.path(position.step), self.copy, self.tokenizer, tensors, position)
            self.run.written(position.step, best=best, keep=self.run.recipe.save.last)
            self.done(position.step)
        except BaseException as error:
            self._error = error

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

"""Other programs' logs: TensorBoard, Weights & Biases. Neither is imported before it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from cutaway.training.errors import TrainingError
from cutaway.training.loop import Step
from cutaway.training.watch.watch import Speed, Start, Watch


def _module(name: str, install: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise TrainingError(f"{name} is not installed; run: pip install {install}") from None


class Numbers(Watch):
    """Everything that is a number, by its name."""

    def __init__(self) -> None:
        self.speed = Speed()

    def put(self, step: int, values: dict[str, float]) -> None:
        raise NotImplementedError

    def stepped(self, step: Step, seconds: float) -> None:
        per_second = self.speed.add(step.tokens, seconds)
        values = {"loss": step.loss, "norm": step.norm, "rate": step.rate, "tokens a second": per_second, **step.extra}
        self.put(step.number, {f"train/{name}": value for name, value in values.items()})

    def evaluated(self, step: int, loss: float) -> None:
        self.put(step, {"validation/loss": loss})

    def scored(self, step: int, scores: dict[str, float]) -> None:
        self.put(step, {f"validation/{name}": score for name, score in scores.items()})


class TensorBoard(Numbers):
    """Event files in the folder of the run: `tensorboard --logdir RUN`."""

    def began(self, start: Start) -> None:
        writer = _module("torch.utils.tensorboard", "'cutaway[train]'").SummaryWriter
        # what was logged of steps that are made anew is hidden
        self.writer = writer(str(start.folder / "tensorboard"), purge_step=start.done + 1)

    def put(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def ended(self) -> None:
        self.writer.close()


class WandB(Numbers):
    """A run of Weights & Biases in `project`; it goes on under the name of the folder."""

    def __init__(self, project: str) -> None:
        super().__init__()
        self.project = project
        self.module = _module("wandb", "wandb")

    def began(self, start: Start) -> None:
        from hashlib import blake2b

        known = blake2b(str(start.folder).encode(), digest_size=8).hexdigest()
        self.module.init(
            project=self.project, id=known, name=start.folder.name, resume="allow", config=start.trainer.recipe.flat()
        )

    def put(self, step: int, values: dict[str, float]) -> None:
        self.module.log(values, step=step)

    def ended(self) -> None:
        self.module.finish()

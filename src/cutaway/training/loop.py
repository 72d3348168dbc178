"""One step of training, and an evaluation: pure of files, clocks and screens.

Everything random in step n is drawn from the seed and n, dropout too: nothing of it has to be saved for a run to go on
exactly as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from cutaway.training import adapt, optimizers
from cutaway.training.average import Average
from cutaway.training.batch import Batch, Labelled, Loss, Pairs, Rows
from cutaway.training.errors import TrainingError
from cutaway.training.guard import Guard
from cutaway.training.objectives import Objective
from cutaway.training.parallel.shard import let_go
from cutaway.training.parallel.whole import like, total_norm
from cutaway.training.recipe import Recipe
from cutaway.training.recompute import recompute
from cutaway.training.schedules import factor
from cutaway.training.seeds import fold
from cutaway.training.world import World

VALIDATION = 1 << 40  # in place of a step's number: random numbers that no step has


class Batches(Protocol):
    """Batch number n, always the same."""

    fingerprint: str

    def __len__(self) -> int: ...

    def batch(self, n: int) -> Rows | Pairs | Labelled: ...


@dataclass(frozen=True)
class Step:
    """What one update was: numbers that depend on nothing but the recipe and the data."""

    number: int
    loss: float
    norm: float  # of the gradient, before clipping
    rate: float
    tokens: int  # read in this step, by all processes
    extra: dict[str, float] = field(default_factory=dict)
    skipped: str | None = None  # why the weights were left as they were


class Trainer:
    """The model, what it learns, and the optimizers; `step(1)`, `step(2)`, … train it.

    Args:
        accumulate: batches a step.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        data: Batches,
        recipe: Recipe,
        *,
        accumulate: int = 1,
        world: World | None = None,
    ) -> None:
        self.model, self.objective, self.data, self.recipe = model, objective, data, recipe
        self.accumulate, self.world = accumulate, world or World()
        self.modules = {"model": model, **{f"objective.{name}": m for name, m in objective.modules.items()}}
        self.names: dict[Tensor, str] = {}
        for part, module in self.modules.items():
            for name, p in module.named_parameters():
                self.names.setdefault(p, f"{part}.{name}")  # modules may share parameters
        named = {name: p for p, name in self.names.items()}
        kept = {f"{part}.{name}" for part, module in self.modules.items() for name in adapt.kept(module)}
        self.weights: dict[str, Tensor] = {name: p.data for name, p in named.items() if name in kept}
        self.base = adapt.left_out(model)
        self.trained = [p for p in named.values() if p.requires_grad]
        self.optimizers = optimizers.build(recipe.optimizer, self.modules)
        self.world.same([*self.weights.values(), *(b for _, b in self._buffers())])
        self.average = Average(self.weights, recipe.loop.ema)
        self.device = next(model.parameters()).device
        self.dtype: torch.dtype = getattr(torch, recipe.loop.dtype)
        self.guard = Guard(recipe.loop.spike, scaled=self.dtype is torch.float16)

    def ready(self) -> None:
        """Changes how the model runs, as the recipe says: without its activations, compiled."""
        if self.recipe.loop.recompute:
            for module in self.modules.values():
                recompute(module)
        if self.recipe.loop.compile:
            self.model.compile()

    def step(self, number: int) -> Step:
        """Update `number`, from 1: the gradient of the mean over all that is asked in it, however it is divided."""
        for module in self.modules.values():
            module.train()
        sums: dict[str, Tensor] = {}
        tokens = 0
        for part in range(self.accumulate):
            rows = self.data.batch((number - 1) * self.accumulate + part)
            loss, batch = self._loss(rows, number, part)
            (loss.total * self.guard.scale).backward()
            tokens += batch.tokens
            _add(sums, loss)
        self.world.sum_gradients(self.trained)
        total, count, extra, tokens = self._summed(sums, tokens)
        gradients = [p.grad for p in self.trained if p.grad is not None]
        for gradient in gradients:
            gradient.div_(max(count, 1.0) * self.guard.scale)
        norm = total_norm(gradients)
        skipped = self.guard.verdict(norm)
        rate = self._rate(number)
        if skipped is None:
            self._update(number, gradients, norm)
        for p in self.trained:
            p.grad = None
        return Step(number, total / max(count, 1.0), norm, rate, tokens, extra, skipped)

    def _update(self, number: int, gradients: list[Tensor], norm: float) -> None:
        clip = self.recipe.optimizer.clip
        if clip is not None and norm > clip:
            for gradient in gradients:
                gradient.mul_(clip / norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(number)

    def evaluate(self, data: Batches, batches: int | None = None) -> float:
        """The mean loss over validation data, of the averaged weights where there are such."""
        for module in self.modules.values():
            module.eval()
        sums: dict[str, Tensor] = {}
        with torch.no_grad(), self.average.in_place():
            for n in range(min(len(data), batches or len(data))):
                _add(sums, self._loss(data.batch(n), VALIDATION, n)[0])
        for module in self.modules.values():
            let_go(module)
        total, count, _, _ = self._summed(sums, 0)
        return total / max(count, 1.0)

    def _loss(self, rows: Rows | Pairs | Labelled, number: int, part: int) -> tuple[Loss, Batch]:
        seed = fold(self.recipe.loop.seed, number, part, self.world.share)
        batch = self.objective.batch(rows, torch.Generator().manual_seed(seed))
        torch.manual_seed(fold(seed, 1))  # dropout's
        moved = Batch(_to(batch.inputs, self.device), batch.targets.to(self.device), batch.tokens,
                      _to(batch.given, self.device))  # fmt: skip
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            return self.objective.loss(self.model, moved), batch

    def _rate(self, number: int) -> float:
        """Sets the rates of step `number`; returns the recipe's."""
        part = factor(self.recipe.schedule, number, self.recipe.loop.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * part
        return self.recipe.optimizer.rate * part

    def _summed(self, sums: dict[str, Tensor], tokens: int) -> tuple[float, float, dict[str, float], int]:
        """Over all processes: the loss, what was asked, the rest divided by that, the tokens."""
        names = list(sums)
        values = self.world.sum_rows(
            torch.stack([*(sums[name].double() for name in names), torch.tensor(float(tokens))])
        )
        found = dict(zip(names, values.tolist(), strict=False))
        total, count = found.pop("total"), found.pop("count")
        return total, count, {name: x / max(count, 1.0) for name, x in found.items()}, int(values[-1])

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""
        found = {f"weights/{name}": w for name, w in self.weights.items()}
        found |= {f"average/{name}": a for name, a in self.average.values.items()}
        found |= {f"buffers/{name}": b for name, b in self._buffers()}
        found["guard"] = self.guard.state()
        if len(self.base):
            found["base"] = self.base
        return found | {f"optimizer/{n}": x for n, x in optimizers.state(self.optimizers, self.names).items()}

    @torch.no_grad()
    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` gave.

        Raises:
            TrainingError: an adapter's base is not what it was.
        """
        if len(self.base) and not torch.allclose(saved["base"], self.base, rtol=1e-9):
            raise TrainingError("the source whose adapter is trained has changed since the run began; restore it")
        held = {
            **{f"weights/{n}": w for n, w in self.weights.items()},
            **{f"buffers/{n}": b for n, b in self._buffers()},
        }
        held |= {f"average/{n}": a for n, a in self.average.values.items()}
        for name, value in held.items():
            value.copy_(like(saved[name], value))
        states = {n.removeprefix("optimizer/"): x for n, x in saved.items() if n.startswith("optimizer/")}
        optimizers.load_state(self.optimizers, self.names, states)
        self.guard.load(saved["guard"])

    def _buffers(self) -> Iterable[tuple[str, Tensor]]:
        return [(f"{part}.{n}", b) for part, m in self.modules.items() for n, b in m.named_buffers()]


def _to(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: x.to(device) for name, x in tensors.items()}


def _add(sums: dict[str, Tensor], loss: Loss) -> None:
    for name, value in {"total": loss.total, "count": loss.count, **loss.extra}.items():
        sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.detach().double().cpu()

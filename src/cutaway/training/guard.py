"""What is done about gradients that would spoil the weights: the update is left out, and it is said.

Not finite: in float16 the loss was scaled too high, and is scaled by half from then on (Micikevicius et al. 2018, section
3.2; after 2,000 good updates by twice). Elsewhere ten in a row end the run. Much larger than of late: a spike, left out too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cutaway.training.errors import TrainingError

IN_A_ROW = 10
KNOWN = 50  # updates before a norm can be called unusual
PATIENCE = 2000


class Guard:
    """
    Args:
        spike: how many times the mean of late a norm may be; None: any.
        scaled: whether the loss is scaled: for float16.
    """

    def __init__(self, spike: float | None = None, *, scaled: bool = False) -> None:
        self.spike, self.scaled = spike, scaled
        self.scale = 2.0**10 if scaled else 1.0
        self.mean, self.seen, self.bad, self.good = 0.0, 0, 0, 0

    def verdict(self, norm: float) -> str | None:
        """Why this update is left out; None where it is made.

        Raises:
            TrainingError: nothing comes of going on.
        """
        if not math.isfinite(norm):
            self.bad, self.good = self.bad + 1, 0
            if self.bad >= IN_A_ROW and self.scale <= 1:
                raise TrainingError(
                    f"the gradient was not finite {IN_A_ROW} times in a row: the last checkpoint is whole; try a lower "
                    "--optimizer.rate, more --schedule.warmup or --loop.dtype float32"
                )
            if self.scaled and self.scale > 1:
                self.scale /= 2
                return f"the gradient overflowed float16: update left out, loss scaled by {self.scale:g} from now on"
            return "the gradient is not finite: update left out"
        self.bad = 0
        if self.spike is not None and self.seen >= KNOWN and norm > self.spike * self.mean:
            self.mean *= 1.1  # should it stay so high, it will be the usual
            return f"the gradient's norm is {norm:.3g}, of late {self.mean / 1.1:.3g}: update left out"
        self.seen += 1
        self.mean += (norm - self.mean) / min(self.seen, KNOWN)
        self.good += 1
        if self.scaled and self.good % PATIENCE == 0:
            self.scale *= 2
        return None

    def state(self) -> Tensor:
        return torch.tensor([self.scale, self.mean, self.seen, self.bad, self.good], dtype=torch.float64)

    def load(self, state: Tensor) -> None:
        self.scale, self.mean = float(state[0]), float(state[1])
        self.seen, self.bad, self.good = (int(x) for x in state[2:])

"""Muon (Jordan et al. 2024): momentum, made a matrix of nearly equal singular values, is the step of a matrix.

    B ← μB + (1-μ)G        U = (1-μ)G + μB        W ← (1-ηλ)W - η · 0.2√max(rows, columns) · orthogonal(U)

The factor makes the root mean square of a step 0.2, as AdamW's is about, so that both take the same rate and decay
(Liu et al. 2025, "Muon is scalable for LLM training", section 2.2). torch.optim.Muon does the same in bfloat16, which
CPUs multiply slowly; here it is float32 on a CPU and bfloat16 elsewhere, and matrices of one shape are turned together.
A matrix that is divided among processes is gathered for it, and each of them turns it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from cutaway.training.parallel.whole import like, whole

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # steepest at 0; singular values end between about 0.7 and 1.2
ROUNDS, EPS = 5, 1e-7


def orthogonal(x: Tensor, rounds: int = ROUNDS) -> Tensor:
    """(..., M, N) with its singular values brought near 1: rounds of X ← aX + b(XXᵀ)X + c(XXᵀ)²X."""
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPS)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For matrices that map hidden states to hidden states. Embeddings, heads, norms and biases take another."""

    def __init__(
        self, params: Any, lr: float = 3e-4, weight_decay: float = 0.1, momentum: float = 0.95, rounds: int = ROUNDS
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.rounds = rounds

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.shape, p.device].append(p)
            for params in alike.values():
                self._step(params, group["lr"], group["weight_decay"], group["momentum"])

    def _step(self, params: list[Tensor], rate: float, decay: float, momentum: float) -> None:
        updates = []
        for p in params:
            assert p.grad is not None
            held = self.state[p].setdefault("momentum", torch.zeros_like(p))
            held.lerp_(p.grad, 1 - momentum)
            updates.append(whole(p.grad.lerp(held, momentum)))
        turned = torch.stack(updates)
        turned = turned if turned.device.type == "cpu" else turned.bfloat16()
        turned = orthogonal(turned, self.rounds).to(params[0].dtype)
        scale = 0.2 * math.sqrt(max(params[0].shape))
        for p, step in zip(params, turned.unbind(), strict=True):
            p.mul_(1 - rate * decay).add_(like(step, p), alpha=-rate * scale)

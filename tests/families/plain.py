"""A Transformer in the plainest words, for families whose reference is their paper's equations.

One row at a time, without padding or cache, in float64, every pattern a T × T matrix. What is shared with the model under
test are its weights. Each family's file gives `mix(attention, x, q, k, v)`, the equation of its attention.
"""

import itertools
import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from tests.families.case import Batch, Case, target_ids
from torch import Tensor, nn

from cutaway.parts import EncoderDecoder, GridPositions, LearnedPositions

Mix = Callable[[Any, Tensor, Tensor, Tensor, Tensor, bool], Tensor]


class Plain(nn.Module):
    """`order` is "post" or "pre". `mix(attention, x (T, D), q, k, v (H, T, E), causal)` is (H, T, E)."""

    def __init__(self, ours: nn.Module, mix: Mix, order: str) -> None:
        super().__init__()
        self.ours, self.mix, self.order = ours, mix, order

    def forward(self, ids: Tensor, target: Tensor | None = None) -> Tensor:
        model: Any = deepcopy(self.ours).double()
        if target is None:
            x = self.stack(model.stack, ids, model.causal)
        else:
            x = self.stack(model.decoder, target, True, self.stack(model.encoder, ids, False))
        head = model.head
        if head is None:
            return x
        if getattr(head, "transform", None) is not None:
            x = normal(head.transform.norm, head.transform.act(linear(head.transform.dense, x)))
        return x @ head.tokens.weight.T + (0 if head.bias is None else head.bias)

    def stack(self, stack: Any, ids: Tensor, causal: bool, memory: Tensor | None = None) -> Tensor:
        x = stack.embedding.tokens.weight[ids] * stack.embedding.scale
        for step in stack.embedding.steps:
            if isinstance(step, LearnedPositions):
                x = x + step.weight[: len(ids)]
            elif isinstance(step, GridPositions):
                x = x + coordinates(len(ids), [*step.tables])
            elif hasattr(step, "table"):
                x = x + waves(*x.shape)
            elif hasattr(step, "eps"):
                x = normal(step, x)
        for block in stack.blocks:
            x = self.around(block.attention, x, lambda y, a=block.attention.inner: self.attention(a, y, causal))
            if memory is not None:
                x = self.around(block.cross, x, lambda y, a=block.cross.inner: cross(a, y, memory))
            f = block.feedforward.inner
            x = self.around(block.feedforward, x, lambda y, f=f: linear(f.down, f.act(linear(f.up, y))))
        return x if stack.norm is None else normal(stack.norm, x)

    def around(self, residual: Any, x: Tensor, inner: Callable[[Tensor], Tensor]) -> Tensor:
        return normal(residual.norm, x + inner(x)) if self.order == "post" else x + inner(normal(residual.norm, x))

    def attention(self, a: Any, x: Tensor, causal: bool) -> Tensor:
        def heads(project: Any) -> Any:
            return None if project is None else linear(project, x).unflatten(1, (a.heads, -1)).transpose(0, 1)

        mixed = self.mix(a, x, heads(a.q), heads(a.k), heads(a.v), causal)
        return linear(a.out, mixed.transpose(0, 1).flatten(1))


def cross(a: Any, x: Tensor, memory: Tensor) -> Tensor:
    q, k, v = (
        linear(p, y).unflatten(1, (-1, a.head_width)).transpose(0, 1)
        for p, y in ((a.q, x), (a.k, memory), (a.v, memory))
    )
    return linear(a.out, ((q @ k.mT / math.sqrt(a.head_width)).softmax(-1) @ v).transpose(0, 1).flatten(1))


def linear(project: Any, x: Tensor) -> Tensor:
    return x @ project.weight.T + (0 if project.bias is None else project.bias)


def normal(norm: Any, x: Tensor) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias


def waves(length: int, width: int) -> Tensor:
    pos, i = torch.arange(length).double()[:, None], torch.arange(width // 2).double()
    angle = pos / 10000 ** (2 * i / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def coordinates(length: int, tables: list[Tensor]) -> Tensor:
    grid = itertools.product(*tables)  # the last coordinate counts fastest
    return torch.stack([sum(vectors, start=torch.zeros(())) for vectors in itertools.islice(grid, length)])


def reference(case: Case, family: Any, tiny: dict[str, Any], mix: Mix, order: str, spread: float = 0.3) -> nn.Module:
    """A model of ours with weights that hide nothing, and its forward in plain words."""
    ours = family.compose(family.Sizes(**{**tiny, **case.config})).eval()
    with torch.no_grad():
        for p in ours.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * (0.1 if p.ndim == 1 else spread))
    return Plain(ours, mix, order)


def counterpart(theirs: Any) -> nn.Module:
    return deepcopy(theirs.ours)


def outputs(case: Case, ours: nn.Module, theirs: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    pairs = []
    if isinstance(ours, EncoderDecoder):
        target = target_ids()
        found = ours(batch.ids, target, batch.padding)
        pairs = [(found[i], theirs(batch.ids[i][real], target[i])) for i, real in enumerate(batch.real)]
    else:
        found = ours(batch.ids, batch.padding)
        pairs = [(found[i, real], theirs(batch.ids[i][real])) for i, real in enumerate(batch.real)]
    mine, expected = zip(*pairs, strict=True)
    return torch.cat(mine), torch.cat(expected)


def softmax(logits: Tensor, causal: bool) -> Tensor:
    future = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
    return logits.masked_fill(future & torch.tensor(causal), -torch.inf).softmax(-1)


def divided(weights: Tensor, causal: bool) -> Tensor:
    weights = weights.tril() if causal else weights
    return weights / weights.sum(-1, keepdim=True)

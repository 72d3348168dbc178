"""Reversible layers: the inputs of a layer are computed back from its outputs, so that training keeps no activations.

    y₁ = x₁ + f(x₂)          x₂ = y₂ - g(y₁)
    y₂ = x₂ + g(y₁)          x₁ = y₁ - f(x₂)

(Gomez et al. 2017, equations 8 and 9; in a Transformer f is attention, g the feed-forward network, each with its norm:
Kitaev et al. 2020, section 3.) Both halves begin as the embeddings and are joined again at the end.

Memory for activations is that of one layer, whatever the depth; time is one forward more. Gradients are those of plain
layers up to rounding: float16 and bfloat16 lose digits at every subtraction, so keep the states in float32 there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cutaway.axes import Float, Int
from cutaway.parts.context import Context
from cutaway.parts.dropout import drop
from cutaway.parts.embedding import Embedding
from cutaway.parts.model import Stack

Draws = tuple[int, int] | None


class Branch(nn.Module):
    """dropout(inner(norm(x))): f or g, which the residual stands outside of.

    Args:
        chunk: for an inner part that works on each token alone, how many tokens it is given at a time (section 3,
            "chunking"). In training each piece is computed once more, so that only one piece's hidden numbers are alive.
    """

    def __init__(self, norm: nn.Module, inner: nn.Module, dropout: float = 0.0, chunk: int | None = None) -> None:
        super().__init__()
        self.norm, self.inner, self.dropout, self.chunk = norm, inner, dropout, chunk

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        if self.chunk is None or x.shape[1] <= self.chunk:
            return self._all(x, ctx)
        pieces = x.split(self.chunk, 1)
        if torch.is_grad_enabled():
            return torch.cat([checkpoint(self._all, piece, ctx, use_reentrant=False) for piece in pieces], 1)
        return torch.cat([self._all(piece, ctx) for piece in pieces], 1)

    def _all(self, x: Tensor, ctx: Context) -> Tensor:
        return drop(self, self.inner(self.norm(x, ctx), ctx), self.dropout)


class ReversibleBlock(nn.Module):
    """(x₁, x₂) -> (y₁, y₂) with f = `attention` and g = `feedforward`, and back."""

    def __init__(self, attention: nn.Module, feedforward: nn.Module) -> None:
        super().__init__()
        self.attention, self.feedforward = attention, feedforward

    def draw(self) -> Draws:
        """In training, seeds for f and g: dropout and random hashes must be the same when they run again."""
        return tuple(torch.randint(2**62, (2,), device="cpu").tolist()) if self.training else None  # type: ignore[return-value]

    def forward(self, x1: Tensor, x2: Tensor, ctx: Context, seeds: Draws = None) -> tuple[Tensor, Tensor]:
        y1 = x1 + self.f(x2, ctx, seeds)
        return y1, x2 + self.g(y1, ctx, seeds)

    def f(self, x: Tensor, ctx: Context, seeds: Draws) -> Tensor:
        with _seeded(x, seeds and seeds[0]):
            return self.attention(x, ctx.enter("attention"))

    def g(self, x: Tensor, ctx: Context, seeds: Draws) -> Tensor:
        with _seeded(x, seeds and seeds[1]):
            return self.feedforward(x, ctx.enter("feedforward"))


class ReversibleStack(Stack):
    """embedding → both halves → reversible blocks → halves joined (B, T, 2D) → norm → dropout.

    `plain` keeps activations as other stacks do: the same numbers, for comparison. So does a forward that torch compiles.
    """

    def __init__(
        self,
        embedding: Embedding,
        blocks: Sequence[ReversibleBlock],
        norm: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embedding, blocks, norm)
        self.plain, self.dropout = False, dropout

    def forward(self, ids: Int[Tensor, "b t"], ctx: Context) -> Float[Tensor, "b t d2"]:
        x = self.embedding(ids, ctx)
        blocks: list[Any] = list(self.blocks)
        seeds = [block.draw() for block in blocks]
        alone = ctx.state is None and ctx.memory is None  # else a layer's inputs are more than the two halves
        if torch.is_grad_enabled() and alone and not self.plain and not torch.compiler.is_compiling():
            own = replace(ctx, memo={})  # what is shared is made anew where a gradient must flow through it
            parameters = [p for p in self.blocks.parameters() if p.requires_grad]
            y1, y2 = _Reversible.apply(x, x, own, blocks, seeds, parameters, *parameters)
        else:
            y1 = y2 = x
            for i, (block, seed) in enumerate(zip(blocks, seeds, strict=True)):
                y1, y2 = block(y1, y2, ctx.enter(f"blocks.{i}"), seed)
        y = torch.cat([y1, y2], -1)
        return drop(self, y if self.norm is None else self.norm(y, ctx), self.dropout)


class _Reversible(torch.autograd.Function):
    """All blocks in one step of autograd, which keeps their last outputs and nothing else."""

    @staticmethod
    def forward(
        ctx: Any,
        x1: Tensor,
        x2: Tensor,
        where: Context,
        blocks: list[ReversibleBlock],
        seeds: list[Draws],
        parameters: list[nn.Parameter],
        *_: Tensor,
    ) -> tuple[Tensor, Tensor]:
        for i, (block, seed) in enumerate(zip(blocks, seeds, strict=True)):
            x1, x2 = block(x1, x2, where.enter(f"blocks.{i}"), seed)
        ctx.save_for_backward(x1, x2)
        ctx.how, ctx.cast = (where, blocks, seeds, parameters), _autocast(x1)
        return x1, x2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        where, blocks, seeds, parameters = ctx.how
        y1, y2 = (y.detach() for y in ctx.saved_tensors)
        d1, d2 = grads
        total: dict[nn.Parameter, Tensor] = {}

        def through(
            run: Any, part: nn.Module, x: Tensor, site: Context, seed: Draws, grad: Tensor
        ) -> tuple[Tensor, Tensor]:
            """The value of f or g at x once more, and what its gradient gives x; the parameters' are added up."""
            own = [p for p in part.parameters() if p.requires_grad]
            x = x.requires_grad_()
            with torch.enable_grad(), ctx.cast():
                value = run(x, replace(site, memo={}), seed)
            found = torch.autograd.grad(value, [x, *own], grad, allow_unused=True)
            for p, g in zip(own, found[1:], strict=True):
                if g is not None:
                    total[p] = g if p not in total else total[p] + g
            x = x.detach()
            return value.detach(), torch.zeros_like(x) if found[0] is None else found[0]

        for i, (block, seed) in reversed(list(enumerate(zip(blocks, seeds, strict=True)))):
            site = where.enter(f"blocks.{i}")
            value, given = through(block.g, block.feedforward, y1.detach(), site, seed, d2)
            y2, d1 = y2 - value, d1 + given
            value, given = through(block.f, block.attention, y2.detach(), site, seed, d1)
            y1, d2 = y1 - value, d2 + given
        return d1, d2, None, None, None, None, *(total.get(p) for p in parameters)


@contextmanager
def _seeded(x: Tensor, seed: int | None) -> Iterator[None]:
    """Random numbers inside are those of `seed`; outside nothing is noticed."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _autocast(x: Tensor) -> Any:
    """Makes the mixed precision of now, whenever it is called."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

    def cast() -> AbstractContextManager[Any]:
        return torch.autocast(kind, dtype=dtype, enabled=enabled)

    return cast

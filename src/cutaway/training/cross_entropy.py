"""-log p(target) over a vocabulary, without ever holding logits (B, T, V): a language head is gone through in pieces.

    z = c·tanh(y / c) or y,  y = W x + b        loss = lse(z) - (1-ε) z_target - ε mean(z)        ε: label smoothing
    ∂loss/∂z = softmax(z) - (1-ε)·onehot(target) - ε/V

The gradient of a piece is a product of what the forward pass has at hand, so it is taken there and then, and the logits
are forgotten: the work is that of the plain way, the memory one piece's. Label smoothing as in Szegedy et al. 2016
(arXiv:1512.00567), section 7. Only tokens that something is asked of reach the head at all.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cutaway.axes import Float, Int
from cutaway.parts import LanguageHead
from cutaway.parts.adaptive import AdaptiveSoftmax
from cutaway.training.batch import IGNORED
from cutaway.training.errors import TrainingError

ELEMENTS = 1 << 23  # logits a piece: 32 MB in float32


def cross_entropy(
    head: nn.Module,
    x: Float[Tensor, "... d"],
    targets: Int[Tensor, "..."],
    *,
    smoothing: float = 0.0,
    rows: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The sum over all targets but IGNORED, in float32 or wider: with its gradient as smoothed, and plainly without.

    Args:
        head: a `LanguageHead`, tied or not, with or without bias, scale, softcap and transform; or an adaptive softmax.
        x: the states below it.
        smoothing: ε.
        rows: tokens a piece; by default as many as have 8 million logits.

    Raises:
        TrainingError: another kind of head, or a smoothing outside [0, 1).
    """
    if not isinstance(head, LanguageHead):
        kind = "no head" if head is None else f"a {type(head).__name__}"
        raise TrainingError(f"words are guessed by a language head; this model has {kind}")
    if not 0 <= smoothing < 1:
        raise TrainingError(f"smoothing cannot be {smoothing}; it is from 0 to below 1")
    x, targets = x.flatten(0, -2), targets.flatten()
    asked = (targets != IGNORED).nonzero()[:, 0]
    if len(asked) < len(targets):
        x, targets = x.index_select(0, asked), targets[asked]  # (N, D), (N,)
    if isinstance(head, AdaptiveSoftmax):
        return _adaptive(head, x, targets, smoothing)
    if head.transform is not None:
        x = head.transform(x)
    if head.scale != 1.0:
        x = x * head.scale
    weight = head.tokens.weight
    rows = rows or max(1, ELEMENTS // len(weight))
    return _Pieces.apply(x, weight, head.bias, targets, head.softcap, smoothing, rows)  # type: ignore[return-value]


def _adaptive(head: AdaptiveSoftmax, x: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    if smoothing:
        raise TrainingError("an adaptive softmax never asks for all words, which label smoothing needs")
    total = head.nll(x[None], targets[None]).float().sum()  # of the words' own clusters only
    return total, total.detach()


class _Pieces(torch.autograd.Function):
    """The loss, and in the same pass its gradients where they are needed."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
        smoothing: float,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        needs = ctx.needs_input_grad[:3]
        dx = torch.zeros_like(x) if needs[0] else None
        wide = torch.promote_types(weight.dtype, torch.float32)  # of what is summed over many pieces
        dw = torch.zeros_like(weight, dtype=wide) if needs[1] else None
        db = torch.zeros_like(bias, dtype=wide) if bias is not None and needs[2] else None
        total, plain = x.new_zeros(2, dtype=wide).unbind()
        for start in range(0, len(x), rows):
            piece = slice(start, start + rows)
            target = targets[piece, None]
            z = F.linear(x[piece], weight, bias)
            kind = z.dtype  # under autocast not that of the weights
            z = z.to(wide) if softcap is None else softcap * torch.tanh(z.to(wide) / softcap)  # (n, V)
            lse, hit = z.logsumexp(-1, keepdim=True), z.gather(-1, target)
            plain = plain + (lse - hit).sum()
            total = total + (lse - (1 - smoothing) * hit - smoothing * z.mean(-1, keepdim=True)).sum()
            if not any(needs):
                continue
            slope = None if softcap is None else 1 - (z / softcap).square()
            z = z.sub_(lse).exp_().sub_(smoothing / z.shape[-1])
            z = z.scatter_add_(-1, target, torch.full_like(lse, smoothing - 1))
            z = z if slope is None else z.mul_(slope)
            if db is not None:
                db += z.sum(0)
            z = z.to(kind)
            if dx is not None:
                dx[piece] = z @ weight.to(kind)
            if dw is not None and z.dtype == x.dtype == wide:
                dw.addmm_(z.t(), x[piece])  # without a second table
            elif dw is not None:
                dw += z.t() @ x[piece].to(z.dtype)
        ctx.save_for_backward(dx, dw, db)
        ctx.kinds = weight.dtype, None if bias is None else bias.dtype
        ctx.mark_non_differentiable(plain)
        return total, plain

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        dx, dw, db = ctx.saved_tensors
        kind, bias_kind = ctx.kinds
        return (
            None if dx is None else dx * by[0].to(dx.dtype),
            None if dw is None else (dw * by[0]).to(kind),
            None if db is None else (db * by[0]).to(bias_kind),
            *[None] * 4,
        )

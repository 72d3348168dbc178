"""FlashAttention, written out (Dao et al. 2022, algorithms 1 and 4; Dao 2023 for the loop order).

The T × T pattern is never stored. Queries and keys are cut into tiles; a tile's logits live only while it is being
added. The softmax is *online*: for each query we keep the largest logit so far m, the sum l of exp(logit - m), and the
unnormalised output o. When a new tile raises m, what was summed before shrinks by exp(m_old - m_new):

    m' = max(m, max x)      l' = e^(m - m')·l + Σ e^(x - m')      o' = e^(m - m')·o + e^(x - m')·v

Backward recomputes each tile's pattern p = exp(x - lse) from lse = m + log l, the only thing kept beside the output:

    dv = pᵀ·do      dx = p ∘ (do·vᵀ - rowsum(do ∘ o))      dq = scale·dx·k      dk = scale·dxᵀ·q

Memory is linear in the length, forward and backward; tests hold both against the definition.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cutaway.attention.scores import Scores
from cutaway.axes import Float

TILE = 128


def tiled(scores: Scores, v: Float[Tensor, "b g k e"]) -> Float[Tensor, "b h q e"]:
    """Attention by tiles: the same result as `weights(scores) @ v`, without ever holding the pattern."""
    groups = scores.q.shape[1] // scores.k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (scores.k, v))
    bias = None if scores.bias is None else scores.fitting(scores.bias, "bias")
    return _Tiled.apply(scores.q, k, v, bias, scores)


def _spans(length: int) -> list[slice]:
    return [slice(start, min(start + TILE, length)) for start in range(0, length, TILE)]


def _tile(x: Tensor, rows: slice, columns: slice) -> Tensor:
    """A view of the tile of a matrix that broadcasts to (B, H, Q, K): axes of size 1 stay whole."""
    return x[:, :, rows if x.shape[2] > 1 else slice(None), columns if x.shape[3] > 1 else slice(None)]


def _allowed(scores: Scores, rows: slice, columns: slice) -> Tensor:
    q_pos, k_pos = scores.q_pos[:, None, rows, None], scores.k_pos[:, None, None, columns]
    allowed, same = scores.mask.allowed(q_pos, k_pos), scores.same(rows, columns)
    allowed = allowed if same is None else allowed & same
    return allowed if scores.packing == "none" else allowed & (k_pos >= 0)


def _added(bias: Tensor | None, scores: Scores, rows: slice, columns: slice) -> Tensor | None:
    """The tile of the bias, and of what the mask adds."""
    tile = None if bias is None else _tile(bias, rows, columns)
    repeats = scores.mask.repeats(scores.q_pos[:, None, rows, None], scores.k_pos[:, None, None, columns])
    return repeats if tile is None else tile if repeats is None else tile + repeats


def _logits(q: Tensor, k: Tensor, bias: Tensor | None, scores: Scores) -> tuple[Tensor, Tensor | float]:
    """The tile's logits in float32, and the derivative of the soft cap at them."""
    x, slope = (q @ k.transpose(-1, -2)).float() * scores.scale, 1.0
    if scores.softcap is not None:
        t = torch.tanh(x / scores.softcap)
        x, slope = scores.softcap * t, 1 - t * t
    return (x if bias is None else x + bias), slope


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scores: Scores) -> Tensor:
        out = q.new_zeros((*q.shape[:3], v.shape[-1]))
        lse = q.new_full(q.shape[:3], torch.inf, dtype=torch.float32)  # inf: exp(x - lse) = 0 on an empty row
        for i in _spans(q.shape[2]):
            o = torch.zeros_like(out[:, :, i], dtype=torch.float32)
            m = torch.full_like(lse[:, :, i], torch.finfo(torch.float32).min)
            l = torch.zeros_like(m)  # noqa: E741  (the paper's symbol)
            for j in _spans(k.shape[2]):
                allowed = _allowed(scores, i, j)
                if not allowed.any():
                    continue
                x, _ = _logits(q[:, :, i], k[:, :, j], _added(bias, scores, i, j), scores)
                x = x.masked_fill(~allowed, -torch.inf)
                higher = torch.maximum(m, x.amax(-1))
                p, shrink = torch.exp(x - higher[..., None]), torch.exp(m - higher)
                m, l = higher, shrink * l + p.sum(-1)  # noqa: E741
                o = shrink[..., None] * o + p @ v[:, :, j].float()
            seen = l > 0
            out[:, :, i] = torch.where(seen[..., None], o / l[..., None].clamp(min=1e-38), 0.0).to(out.dtype)
            lse[:, :, i] = torch.where(seen, m + l.log(), torch.inf)
        ctx.save_for_backward(q, k, v, bias, out, lse)
        ctx.scores = scores
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():  # create_graph: even where nothing asks for it yet, it would be silently wrong
            raise RuntimeError("tiled attention has no second derivative; compute it by backend('eager')")
        q, k, v, bias, out, lse = ctx.saved_tensors
        do, scores = grads[0], ctx.scores
        dq, dk, dv = (torch.zeros_like(x, dtype=torch.float32) for x in (q, k, v))
        db = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[3] else None
        delta = (do.float() * out.float()).sum(-1)  # (B, H, Q)
        for i in _spans(q.shape[2]):
            for j in _spans(k.shape[2]):
                allowed = _allowed(scores, i, j)
                if not allowed.any():
                    continue
                qi, kj, vj, doi = (q[:, :, i].float(), k[:, :, j].float(), v[:, :, j].float(), do[:, :, i].float())
                x, slope = _logits(q[:, :, i], k[:, :, j], _added(bias, scores, i, j), scores)
                p = torch.exp(x - lse[:, :, i, None]).masked_fill(~allowed, 0.0)
                dv[:, :, j] += p.transpose(-1, -2) @ doi
                dx = p * (doi @ vj.transpose(-1, -2) - delta[:, :, i, None])
                if db is not None:
                    tile = _tile(db, i, j)
                    tile += dx.sum_to_size(tile.shape)
                dx = dx * slope * scores.scale
                dq[:, :, i] += dx @ kj
                dk[:, :, j] += dx.transpose(-1, -2) @ qi
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), db, None

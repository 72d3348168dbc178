"""State space duality: Mamba-2's scan, whose decay is one number a head, so that most of it is matrix products.

    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_tᵀ        y_t = C_t h_t + D x_t

for every head alone, x_t of width E, a state of N × E (Dao and Gu 2024, arXiv:2405.21060, section 6, listing 1).
`ssd_by_definition` says it so. `ssd` computes the same in chunks: inside one, attention with the decays as a mask;
between them, their states. Time O(T·(C + N)·H·E) for chunks of C; what it remembers is h, however long the text.

    B batch, T tokens, H heads, G groups of heads that share B and C;  x (B, T, H, E);  dt (B, T, H);  A, skip (H,);
    b, c (B, T, G, N);  h (B, H, N, E)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.axes import Float

CHUNK = 64


def ssd_by_definition(
    x: Float[Tensor, "b t h e"],
    dt: Float[Tensor, "b t h"],
    A: Float[Tensor, "h"],
    b: Float[Tensor, "b t g n"],
    c: Float[Tensor, "b t g n"],
    skip: Float[Tensor, "h"],
    h: Float[Tensor, "b h n e"],
) -> tuple[Float[Tensor, "b t h e"], Float[Tensor, "b h n e"]]:
    """One token after another, as the equations stand: y (B, T, H, E), and the last state."""
    b, c = (y.repeat_interleave(x.shape[2] // y.shape[2], 2) for y in (b, c))  # (B, T, H, N)
    ys = []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        h = decay * h + b[:, t, :, :, None] * (dt[:, t, :, None] * x[:, t])[:, :, None]
        ys.append((c[:, t, :, :, None] * h).sum(2) + skip[:, None] * x[:, t])
    return torch.stack(ys, 1), h


def ssd(
    x: Float[Tensor, "b t h e"],
    dt: Float[Tensor, "b t h"],
    A: Float[Tensor, "h"],
    b: Float[Tensor, "b t g n"],
    c: Float[Tensor, "b t g n"],
    skip: Float[Tensor, "h"],
    h: Float[Tensor, "b h n e"],
) -> tuple[Float[Tensor, "b t h e"], Float[Tensor, "b h n e"]]:
    """The same in chunks. The last may be short: padding has Δ = 0, which leaves the state as it is."""
    tokens, groups = x.shape[1], b.shape[2]
    if tokens == 1:
        return ssd_by_definition(x, dt, A, b, c, skip, h)
    size = min(CHUNK, tokens)

    def chunks(y: Tensor) -> Tensor:
        """(B, T, heads or groups, …) as (B, chunks, G, heads of each, C, …)"""
        y = F.pad(y, (0, 0) * (y.ndim - 2) + (0, -tokens % size)).unflatten(1, (-1, size))
        return y.unflatten(3, (groups, -1)).movedim(2, 4)

    inputs = chunks(x * dt[..., None])  # (B, c, G, R, C, E)
    a = chunks((dt * A)[..., None]).squeeze(-1)  # (B, c, G, R, C)
    b, c = chunks(b), chunks(c)  # (B, c, G, 1, C, N)
    decay = span(a).exp().tril()  # [q, k]: what is left at q of what came at k
    y = (c @ b.transpose(-1, -2) * decay) @ inputs
    added = b.transpose(-1, -2) @ (inputs * decay[..., -1, :, None])  # to the state at the end of each chunk
    since = a.cumsum(-1).exp()[..., None]  # (B, c, G, R, C, 1): what is left of the state before the chunk
    held, before = h.unflatten(1, (groups, -1)), []
    for i in range(a.shape[1]):
        before.append(held)
        held = since[:, i, :, :, -1:] * held + added[:, i]
    y = y + since * (c @ torch.stack(before, 1))
    y = y.movedim(4, 2).flatten(3, 4).flatten(1, 2)[:, :tokens]  # (B, T, H, E)
    return y + skip[:, None] * x, held.flatten(1, 2)


def pattern(
    dt: Float[Tensor, "b t h"],
    A: Float[Tensor, "h"],
    b: Float[Tensor, "b t g n"],
    c: Float[Tensor, "b t g n"],
    skip: Float[Tensor, "h"],
) -> Float[Tensor, "b h t t"]:
    """The matrix M with y = M x (Dao and Gu 2024, equation 3): C_q·B_k exp(A (Δ_{k+1} + … + Δ_q)) Δ_k for k ≤ q, plus D."""
    tokens, heads, groups = dt.shape[1], dt.shape[2], b.shape[2]
    scores = torch.einsum("bqgn,bkgn->bgqk", c, b).repeat_interleave(heads // groups, 1)
    decay = span((dt * A).transpose(1, 2)).exp()
    found = (scores * decay * dt.transpose(1, 2)[:, :, None]).tril()
    return found + torch.diag_embed(skip[:, None].expand(-1, tokens))


def span(x: Float[Tensor, "... t"]) -> Float[Tensor, "... t t"]:
    """x_{k+1} + … + x_q for k < q, and 0 elsewhere: summed column by column, since differences of sums lose digits."""
    tokens = x.shape[-1]
    return x[..., None].expand(*x.shape, tokens).tril(-1).cumsum(-2).tril(-1)

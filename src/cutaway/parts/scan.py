"""The selective scan: a linear recurrence whose decay and input depend on the token. Mamba's mixing of tokens.

    h_t = exp(Δ_t A) ∘ h_{t-1} + (Δ_t u_t) B_t        y_t = C_t · h_t + D ∘ u_t

for every channel alone; each has a state of N numbers (Gu and Dao 2023, arXiv:2312.00752, equation 2 with section
3.2's selection; the input is discretised by Euler's rule, as in the authors' code). `scan_by_definition` says it so.

`selective_scan` computes the same in pieces that stay in the cache: decays and inputs of a few tokens at once, then
token after token in place. Its backward, written out, keeps only the state before each piece and computes the others
again. Only decays of at most 1 are ever multiplied, so nothing overflows however long the sequence.
Time O(T·N·D); memory O(T·D) besides pieces, and O(T·N·D / piece) for training.

    B batch, T tokens, D channels, N state;  u, dt (B, T, D);  A (N, D) < 0;  b, c (B, T, N);  states (B, N, D)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.axes import Float

PIECE = 2**17  # numbers of the states a core works on at once: with their decays 1 MB, which stays in its cache
SHARED = 2**16  # numbers of one token's states from which on torch gives a step to several cores


def scan_by_definition(
    u: Float[Tensor, "b t d"],
    dt: Float[Tensor, "b t d"],
    A: Float[Tensor, "n d"],
    b: Float[Tensor, "b t n"],
    c: Float[Tensor, "b t n"],
    skip: Float[Tensor, "d"],
    h: Float[Tensor, "b n d"],
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b n d"]]:
    """One token after another, as the equations stand: y (B, T, D), and the last state."""
    ys = []
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, None] * A) * h + (dt[:, t] * u[:, t])[:, None] * b[:, t, :, None]  # (B, N, D)
        ys.append((c[:, t, :, None] * h).sum(1) + skip * u[:, t])
    return torch.stack(ys, 1), h


def selective_scan(
    u: Float[Tensor, "b t d"],
    dt: Float[Tensor, "b t d"],
    A: Float[Tensor, "n d"],
    b: Float[Tensor, "b t n"],
    c: Float[Tensor, "b t n"],
    skip: Float[Tensor, "d"],
    h: Float[Tensor, "b n d"],
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b n d"]]:
    """The same, fast. Differentiable once, and one operation to the compiler."""
    if u.shape[1] == 1:
        return scan_by_definition(u, dt, A, b, c, skip, h)
    inputs = (u, dt, A, b, c, skip, h)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    y, last, _ = _scan(*inputs, *extent(u, A), keep)
    return y, last


def extent(u: Tensor, A: Tensor) -> tuple[int, int]:
    """How many rows are worked on together, and how many tokens make a piece."""
    cores = 1 if torch.compiler.is_compiling() else torch.get_num_threads()
    rows = min(u.shape[0], max(1, SHARED // A.numel()))
    return rows, min(u.shape[1], max(1, PIECE * cores // (4 * rows * A.numel())) * 4)


def _pieces(x: Tensor, tokens: int) -> Tensor:
    """(B, T, X) as (pieces, B·tokens, X), with zeros after the end: Δ = 0 leaves the state as it is."""
    missing = -x.shape[1] % tokens
    padded = F.pad(x, (0, 0, 0, missing)) if missing else x
    return padded.unflatten(1, (-1, tokens)).transpose(0, 1).flatten(1, 2)


def _whole(x: Tensor, like: Tensor) -> Tensor:
    """The inverse: (pieces, B·tokens, X) as (B, T, X)."""
    rows, tokens = like.shape[:2]
    return x.unflatten(1, (rows, -1)).transpose(0, 1).flatten(1, 2)[:, :tokens]


def _steps(x: Tensor, rows: int) -> Sequence[Tensor]:
    """(B·tokens, N, D) as one (B, N, D) a token."""
    return x.unflatten(0, (rows, -1)).unbind(1)


def _fill(
    dt: Tensor, dtu: Tensor, A: Tensor, b: Tensor, h: Tensor, decays: Tensor, states: Tensor, steps: Sequence
) -> None:
    """A piece's decays and states, (B·tokens, N, D), from the state `h` (B, N, D) before it, which moves on.

    `dt` and `dtu` are (B·tokens, 1, D) and `b` is (B·tokens, N, 1); `steps` are the decay and the state of each token.
    """
    torch.mul(dt, A, out=decays)
    decays.exp_()
    torch.mul(b, dtu, out=states)
    now = h
    for decay, state in steps:
        now = state.addcmul_(decay, now)
    h.copy_(now)


def _forward(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, skip: Tensor, h: Tensor, rows: int, tokens: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    y, last, before = _outputs(u, dt, A, b, c, skip, h, rows, tokens, keep)
    last.copy_(h)
    dtu = dt * u
    for row in range(0, len(u), rows):
        own = slice(row, row + rows)
        held = last[own]
        dt_, dtu_, b_, c_ = (_pieces(x[own], tokens).unsqueeze(2) for x in (dt, dtu, b, c))
        decays, states = u.new_empty(2, len(held) * tokens, *A.shape)
        steps = list(zip(_steps(decays, len(held)), _steps(states, len(held)), strict=True))
        mixed = torch.empty_like(dt_)
        for i, (now, dtu_now, b_now, c_now, y_now) in enumerate(zip(dt_, dtu_, b_.mT, c_, mixed, strict=True)):
            if keep:
                before[i, own] = held
            _fill(now, dtu_now, A, b_now, held, decays, states, steps)
            torch.bmm(c_now, states, out=y_now)
        torch.addcmul(_whole(mixed.squeeze(2), u[own]), u[own], skip, out=y[own])
    return y, last, before


def _outputs(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, skip: Tensor, h: Tensor, rows: int, tokens: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and room for those before each piece: shapes alone, which is all the compiler asks."""
    before = u.new_empty(-(-u.shape[1] // tokens), *h.shape) if keep else u.new_empty(0)
    return u.new_empty(u.shape), u.new_empty(h.shape), before


def _backward(
    gy: Tensor,
    glast: Tensor,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor,
    before: Tensor,
    rows: int,
    tokens: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """With g_t the gradient of h_t: g_t = C_t gy_t + exp(Δ_{t+1} A) ∘ g_{t+1}, from the last token to the first."""
    gu, gdt, gA, gb, gc, gskip, gh = _gradients(gy, glast, u, dt, A, b, c, skip, before, rows, tokens)
    gA.zero_()
    gh.copy_(glast)
    dtu = dt * u
    for row in range(0, len(u), rows):
        own = slice(row, row + rows)
        after = gh[own]  # the gradient of the state after a piece
        sums = torch.zeros_like(after)
        dt_, dtu_, b_, c_, gy_ = (_pieces(x[own], tokens).unsqueeze(2) for x in (dt, dtu, b, c, gy))
        gexponent, gdtu, gb_, gc_ = (torch.empty_like(x) for x in (dt_, dt_, b_.mT, c_.mT))
        decays, states, gs = u.new_empty(3, len(after) * tokens, *A.shape)
        decay, state, g = (_steps(x, len(after)) for x in (decays, states, gs))
        for i in reversed(range(len(dt_))):
            held = before[i, own]
            _fill(dt_[i], dtu_[i], A, b_[i].mT, held.clone(), decays, states, list(zip(decay, state, strict=True)))
            torch.bmm(states, gy_[i].mT, out=gc_[i])

            torch.mul(c_[i].mT, gy_[i], out=gs)
            g[-1].add_(after)
            for t in range(tokens - 1, 0, -1):
                g[t - 1].addcmul_(decay[t], g[t])
            torch.mul(decay[0], g[0], out=after)
            torch.bmm(gs, dtu_[i].mT, out=gb_[i])
            torch.bmm(b_[i], gs, out=gdtu[i])

            decays.mul_(gs)  # becomes the gradient of the exponent Δ_t A: decay ∘ g_t ∘ h_{t-1}
            for by, past, step in zip(decay, (held, *state), _steps(dt_[i], len(after)), strict=False):
                sums.addcmul_(by.mul_(past), step)
            torch.sum(decays.mul_(A), 1, keepdim=True, out=gexponent[i])
        gA += sums.sum(0)
        of_dtu = _whole(gdtu.squeeze(2), u[own])
        torch.addcmul(_whole(gexponent.squeeze(2), u[own]), of_dtu, u[own], out=gdt[own])
        torch.addcmul(of_dtu * dt[own], gy[own], skip, out=gu[own])
        gb[own], gc[own] = (_whole(x.squeeze(3), u[own]) for x in (gb_, gc_))
    torch.sum(gy * u, (0, 1), out=gskip)
    return gu, gdt, gA, gb, gc, gskip, gh


def _gradients(
    gy: Tensor,
    glast: Tensor,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor,
    before: Tensor,
    rows: int,
    tokens: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Room for the gradient of each input."""
    gu, gdt, gA, gb, gc, gskip, gh = (x.new_empty(x.shape) for x in (u, dt, A, b, c, skip, glast))
    return gu, gdt, gA, gb, gc, gskip, gh


_TENSORS = "Tensor u, Tensor dt, Tensor A, Tensor b, Tensor c, Tensor skip"
_SEVEN = ", ".join(["Tensor"] * 7)
_scan = torch.library.custom_op(
    "cutaway::selective_scan",
    _forward,
    mutates_args=(),
    schema=f"({_TENSORS}, Tensor h, SymInt rows, SymInt tokens, bool keep) -> (Tensor, Tensor, Tensor)",
)
_scan_backward = torch.library.custom_op(
    "cutaway::selective_scan_backward",
    _backward,
    mutates_args=(),
    schema=f"(Tensor gy, Tensor glast, {_TENSORS}, Tensor before, SymInt rows, SymInt tokens) -> ({_SEVEN})",
)
_scan.register_fake(_outputs)
_scan_backward.register_fake(_gradients)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, _, rows, tokens, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.extent = rows, tokens


def _differentiate(ctx: Any, gy: Tensor, glast: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    gradients = _scan_backward(gy.contiguous(), glast.contiguous(), *ctx.saved_tensors, *ctx.extent)
    return (*gradients, None, None, None)


_scan.register_autograd(_differentiate, setup_context=_remember)

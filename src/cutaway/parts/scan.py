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

import torch
from torch import Tensor

from cutaway.axes import Float

PIECE = 2**17  # numbers of the states worked on at once: with their decays 1 MB, which stays in a core's cache
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
    y, last, _ = _scan(*inputs, keep)
    return y, last


class _Room:
    """Memory for what is worked on: as many rows and tokens of (N, D) as stay in the cache, used again for each piece."""

    def __init__(self, u: Tensor, A: Tensor, count: int) -> None:
        self.rows, self.tokens = extent(u, A)
        self.buffers = [u.new_empty(self.rows * self.tokens, *A.shape) for _ in range(count)]
        self.views: dict[tuple[int, int], list[tuple[Tensor, Sequence[Tensor]]]] = {}

    def __call__(self, rows: int, tokens: int) -> list[tuple[Tensor, Sequence[Tensor]]]:
        """Each buffer as (B·T, N, D) of a piece, and its tokens, (B, N, D) each."""
        if (rows, tokens) not in self.views:
            wholes = [buffer[: rows * tokens] for buffer in self.buffers]
            self.views[rows, tokens] = [(x, x.unflatten(0, (rows, tokens)).unbind(1)) for x in wholes]
        return self.views[rows, tokens]


def extent(u: Tensor, A: Tensor) -> tuple[int, int]:
    """How many rows and tokens make a piece."""
    rows = min(u.shape[0], max(1, SHARED // A.numel()))
    return rows, min(u.shape[1], max(4, PIECE // (rows * A.numel())))


def _fill(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, h: Tensor, room: list[tuple[Tensor, Sequence[Tensor]]]
) -> Tensor:
    """Fills the first two buffers with a piece's decays and states, from the state `h` before it; gives the last state."""
    (decays, decay), (states, state) = room[:2]
    torch.mul(dt.flatten(0, 1)[:, None], A, out=decays)
    decays.exp_()
    torch.mul(b.flatten(0, 1)[..., None], (dt * u).flatten(0, 1)[:, None], out=states)
    for by, now in zip(decay, state, strict=True):
        h = now.addcmul_(by, h)
    return h


def _forward(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, skip: Tensor, h: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    y, last, before = _outputs(u, dt, A, b, c, skip, h, keep)
    room = _Room(u, A, 2)
    for row in range(0, u.shape[0], room.rows):
        rows = slice(row, row + room.rows)
        held = h[rows]
        for i, (u_, dt_, b_, c_, y_) in enumerate(_split(room.tokens, rows, u, dt, b, c, y)):
            if keep:
                before[rows, i] = held
            work = room(*u_.shape[:2])
            held = last[rows].copy_(_fill(u_, dt_, A, b_, held, work))
            mixed = torch.bmm(c_.flatten(0, 1)[:, None], work[1][0])  # (B·T, 1, D)
            torch.addcmul(mixed.view_as(u_), u_, skip, out=y_)
    return y, last, before


def _split(tokens: int, rows: slice, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """The rows' tokens, (B, T, ...), piece by piece."""
    return list(zip(*(x[rows].split(tokens, 1) for x in tensors), strict=True))


def _outputs(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, skip: Tensor, h: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and room for those before each piece: shapes alone, which is all the compiler asks."""
    before = u.new_empty(u.shape[0], -(-u.shape[1] // extent(u, A)[1]), *A.shape) if keep else u.new_empty(0)
    return u.new_empty(u.shape), u.new_empty(h.shape), before


def _backward(
    gy: Tensor, glast: Tensor, u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, skip: Tensor, before: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """With g_t the gradient of h_t: g_t = C_t gy_t + exp(Δ_{t+1} A) ∘ g_{t+1}, from the last token to the first."""
    gu, gdt, gA, gb, gc, gskip, gh = _gradients(gy, glast, u, dt, A, b, c, skip, before)
    room = _Room(u, A, 3)
    gA.zero_()
    gskip.zero_()
    for row in range(0, u.shape[0], room.rows):
        rows = slice(row, row + room.rows)
        after = glast[rows].clone()
        sums = torch.zeros_like(after)
        parts = _split(room.tokens, rows, gy, u, dt, b, c, gu, gdt, gb, gc)
        for i, (gy_, u_, dt_, b_, c_, gu_, gdt_, gb_, gc_) in reversed(list(enumerate(parts))):
            held = before[rows, i]
            (decays, decay), (states, state), (gs, g) = work = room(*u_.shape[:2])
            _fill(u_, dt_, A, b_, held, work)
            gc_.copy_(torch.bmm(states, gy_.flatten(0, 1)[..., None]).view_as(gc_))

            torch.mul(c_.flatten(0, 1)[..., None], gy_.flatten(0, 1)[:, None], out=gs)
            g[-1].add_(after)
            for t in range(len(g) - 1, 0, -1):
                g[t - 1].addcmul_(decay[t], g[t])
            torch.mul(decay[0], g[0], out=after)
            gb_.copy_(torch.bmm(gs, (dt_ * u_).flatten(0, 1)[..., None]).view_as(gb_))
            of_input = torch.bmm(b_.flatten(0, 1)[:, None], gs).view_as(u_)  # the gradient of Δ_t u_t

            decays.mul_(gs)  # becomes the gradient of the exponent Δ_t A: decay ∘ g_t ∘ h_{t-1}
            for by, past, step in zip(decay, (held, *state), dt_.unbind(1), strict=False):
                sums.addcmul_(by.mul_(past), step[:, None])
            torch.addcmul(dt_ * of_input, gy_, skip, out=gu_)
            torch.addcmul(decays.mul_(A).sum(1).view_as(u_), of_input, u_, out=gdt_)
            gskip += (gy_ * u_).sum((0, 1))
        gh[rows] = after
        gA += sums.sum(0)
    return gu, gdt, gA, gb, gc, gskip, gh


def _gradients(
    gy: Tensor, glast: Tensor, u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, skip: Tensor, before: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Room for the gradient of each input."""
    gu, gdt, gA, gb, gc, gskip, gh = (x.new_empty(x.shape) for x in (u, dt, A, b, c, skip, glast))
    return gu, gdt, gA, gb, gc, gskip, gh


_TENSORS = "Tensor u, Tensor dt, Tensor A, Tensor b, Tensor c, Tensor skip"
_scan = torch.library.custom_op(
    "cutaway::selective_scan",
    _forward,
    mutates_args=(),
    schema=f"({_TENSORS}, Tensor h, bool keep) -> (Tensor, Tensor, Tensor)",
)
_scan_backward = torch.library.custom_op(
    "cutaway::selective_scan_backward",
    _backward,
    mutates_args=(),
    schema=f"(Tensor gy, Tensor glast, {_TENSORS}, Tensor before) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_scan.register_fake(_outputs)
_scan_backward.register_fake(_gradients)


def _remember(ctx, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:6], output[2])
    ctx.set_materialize_grads(True)


def _differentiate(ctx, gy: Tensor, glast: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*_scan_backward(gy.contiguous(), glast.contiguous(), *ctx.saved_tensors), None)


_scan.register_autograd(_differentiate, setup_context=_remember)

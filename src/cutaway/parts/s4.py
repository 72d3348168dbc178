"""Structured state spaces: a linear system for each channel, computed as a long convolution or as a recurrence.

    x' = A x + B u,  y = Re(C x) + D u          N numbers x for each of D channels; A from HiPPO (`hippo`)
    x_k = Ā x_{k-1} + B̄ u_k                     discretised with the step Δ of the channel
    y = K * u,  K_l = C Ā^l B̄                   the same at once: a convolution as long as the text, by FFT

S4 (Gu et al. 2022, arXiv:2111.00396): A = Λ - p p*, bilinear Ā = (1 - Δ/2 A)⁻¹ (1 + Δ/2 A). K is had from its spectrum
at the roots of unity, K̂(z) = C (1 - Ā^L)(1 - Āz)⁻¹ B̄ (algorithm 1), which the Woodbury identity makes four sums of the
form Σ_n v_n / d_n(z) (Cauchy). S4D (arXiv:2206.11893): A = Λ alone, zero-order hold Ā = exp(ΔΛ), K_l = Σ_n C_n B̄_n Ā_n^l.

Time O(T·N + T log T) a channel, memory O(T); what it remembers of a text, however long, is x. All in float32 or better.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cutaway.attention import Causal, Implied, Mask
from cutaway.attention.record import listening
from cutaway.axes import Float
from cutaway.errors import ConfigError
from cutaway.parts.compact import Rows
from cutaway.parts.context import Context
from cutaway.parts.hippo import diagonal_plus_low_rank, rates

CHUNK = 2**21  # numbers of a spectrum's sums that are held at once


class S4(nn.Module):
    """W · gelu(y), where y is each channel's state space applied to its own numbers. Padding may stand anywhere.

    Args:
        width: D channels.
        mask: must be causal.
        state: N, even: numbers come in conjugate pairs, of which one is kept.
        kind: "s4" or "s4d".
        start: of S4D, what Λ begins as: "legs", "lin" or "inv".
        step: the smallest and largest Δ at the beginning, log-uniform between.
        attention: what else attention is given in this place has no counterpart here.

    Raises:
        ConfigError: the mask lets tokens look ahead; another kind; an odd state.
    """

    keeps_documents = False

    def __init__(
        self,
        width: int,
        *heads: int | None,
        mask: Mask = Causal(),
        state: int = 64,
        kind: Literal["s4", "s4d"] = "s4",
        start: str = "legs",
        step: tuple[float, float] = (1e-3, 1e-1),
        **attention: Any,
    ) -> None:
        super().__init__()
        if not mask.causal:
            raise ConfigError("S4 reads from left to right: it cannot stand where tokens look ahead, as in an encoder")
        if kind not in ("s4", "s4d"):
            raise ConfigError(f"no state space {kind!r}; there are s4 and s4d")
        self.width, self.state, self.kind = width, state, kind
        rate, p, b, _ = diagonal_plus_low_rank(state)
        if kind == "s4d":
            rate, b = rates(start, state), torch.ones_like(b)

        def each(x: Tensor) -> nn.Parameter:
            """A complex (N/2,) for every channel, as real numbers: (D, N/2, 2)."""
            return nn.Parameter(torch.view_as_real(x.to(torch.complex64)).expand(width, -1, -1).clone())

        low, high = math.log(step[0]), math.log(step[1])
        self.log_step = nn.Parameter(torch.rand(width) * (high - low) + low)
        self.log_decay = nn.Parameter((-rate.real).log().float().expand(width, -1).clone())  # Re Λ = -exp of it
        self.frequency = nn.Parameter(rate.imag.float().expand(width, -1).clone())
        self.p = each(p) if kind == "s4" else None
        self.B = each(b)
        self.C = nn.Parameter(torch.randn(width, state // 2, 2) * 0.5**0.5)
        self.D = nn.Parameter(torch.randn(width))
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        rows = Rows.of(ctx)
        u = _wide(rows.compact(x))
        y = self.convolve(u) if ctx.state is None else self.recur(u, rows, ctx)
        y = rows.restore(y + u * _wide(self.D))
        trace = listening()
        if trace is not None and ctx.fresh:
            taps, skip = self.kernel(x.shape[1]).detach(), _wide(self.D.detach())
            v = rows.restore(u.detach()).transpose(1, 2)[..., None]  # (B, D, T, 1)
            trace.records.append(
                Implied(
                    ctx.site, "self", lambda: rows.restore_pattern(pattern(taps, skip, len(v))), v, ctx.pos, ctx.pos
                )
            )
        return self.out(F.gelu(y).to(x.dtype))

    def convolve(self, u: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """K * u for all tokens at once, by FFT of twice the length so that the end does not reach the beginning."""
        length = u.shape[1]
        spectrum = torch.fft.rfft(u.mT, 2 * length) * torch.fft.rfft(self.kernel(length), 2 * length)
        return torch.fft.irfft(spectrum, 2 * length)[..., :length].mT

    def recur(self, u: Float[Tensor, "b t d"], rows: Rows, ctx: Context) -> Float[Tensor, "b t d"]:
        """The same, one token after another, from the remembered x (B, D, N/2) and on."""
        assert ctx.state is not None
        begin = u.new_zeros(*u.shape[::2], self.state // 2, 2)
        held = ctx.state.cells(ctx.site, lambda: {"x": begin})["x"]
        x, advance = torch.view_as_complex(held.clone()), self.stepper()
        c, outputs = self._complex(self.C), []
        for t in range(u.shape[1]):
            new = advance(x, u[:, t])
            x = torch.where(rows.real[:, t, None, None], new, x) if rows.padded else new
            outputs.append(2 * (c * x).real.sum(-1))
        held.copy_(torch.view_as_real(x))
        return torch.stack(outputs, 1)

    def kernel(self, length: int) -> Float[Tensor, "d t"]:
        """K, (D, T)."""
        return self._cauchy(length) if self.kind == "s4" else self._powers(length)

    def stepper(self) -> Any:
        """(x_{k-1}, u_k (B, D)) ↦ x_k, in O(N) a channel."""
        rate, b, dt = self._rates(), self._complex(self.B), _wide(self.log_step).exp()[:, None]  # (D, N/2), (D, 1)
        if self.kind == "s4d":
            turn, enter = (dt * rate).exp(), b * ((dt * rate).exp() - 1) / rate
            return lambda x, u: turn * x + enter * u[..., None]
        assert self.p is not None
        p = self._complex(self.p)
        backward = 1 / (1 - dt / 2 * rate)  # of 1 - Δ/2 A the diagonal part; its low rank by Woodbury
        weight = dt / 2 / (1 + dt / 2 * _paired(p.conj() * p * backward))

        def advance(x: Tensor, u: Tensor) -> Tensor:
            forward = x + dt / 2 * (rate * x - p * _paired(p.conj() * x)) + dt * b * u[..., None]
            solved = backward * forward
            return solved - weight * backward * p * _paired(p.conj() * solved)

        return advance

    def _powers(self, length: int) -> Float[Tensor, "d t"]:
        """Σ_n w_n Ā_n^l for all l = i·m + j, as a product of matrices: Ā^(i·m) times Ā^j, with m near √T."""
        rate, b, dt = self._rates(), self._complex(self.B), _wide(self.log_step).exp()[:, None]
        turn = dt * rate  # (D, N/2)
        weight = self._complex(self.C) * b * (turn.exp() - 1) / rate
        size = math.isqrt(length - 1) + 1
        near = torch.arange(size, device=dt.device, dtype=dt.dtype)
        far = size * torch.arange(-(-length // size), device=dt.device, dtype=dt.dtype)
        powers = (turn[:, None] * far[:, None]).exp() * weight[:, None]  # (D, i, N/2)
        found = 2 * (powers @ (turn[..., None] * near).exp()).real  # (D, i, j)
        return found.flatten(1)[:, :length]

    def _cauchy(self, length: int) -> Float[Tensor, "d t"]:
        assert self.p is not None
        rate, p, b, c = (_both(x) for x in (self._rates(), *map(self._complex, (self.p, self.B, self.C))))  # (D, N)
        half = _wide(self.log_step).exp()[:, None] / 2
        eye = torch.eye(self.state, dtype=rate.dtype, device=rate.device)
        a = torch.diag_embed(rate) - p[..., None] * p.conj()[..., None, :]
        discrete = torch.linalg.solve(eye - half[..., None] * a, eye + half[..., None] * a)  # Ā (D, N, N)
        c = c - (c[..., None, :] @ torch.linalg.matrix_power(discrete, length))[..., 0, :]  # C (1 - Ā^L)

        sums = torch.stack([c * b, c * p, p.conj() * b, p.conj() * p], -2)  # (D, 4, N)

        def some(half: Tensor, rate: Tensor, sums: Tensor, at: Tensor) -> Tensor:
            angle = -2 * math.pi / length * at
            z = torch.complex(angle.cos(), angle.sin())
            low_rank = half * (1 + z)  # (D, z)
            d = ((1 - z) - low_rank[:, None] * rate[..., None]).reciprocal()  # (D, N, z): finite at z = -1 too
            cb, cp, qb, qp = (sums @ d).unbind(-2)  # (D, z)
            return 2 * half * (cb - low_rank * cp * qb / (1 + low_rank * qp))

        roots = torch.arange(length // 2 + 1, device=half.device, dtype=half.dtype)
        # a few at a time, each made again for its gradient: memory O(T), not O(T·N)
        pieces = roots.split(max(1, CHUNK // rate.numel()))
        spectrum = [checkpoint(some, half, rate, sums, piece, use_reentrant=False) for piece in pieces]
        return torch.fft.irfft(torch.cat(spectrum, -1), length)

    def _rates(self) -> Tensor:
        return torch.complex(-_wide(self.log_decay).exp(), _wide(self.frequency))

    def _complex(self, x: Tensor) -> Tensor:
        return torch.view_as_complex(_wide(x).contiguous())


def pattern(taps: Float[Tensor, "d t"], skip: Float[Tensor, "d"], rows: int) -> Float[Tensor, "b d t t"]:
    """What token q takes of u_k in each channel: K_{q-k}, and D more on the diagonal."""
    at = torch.arange(taps.shape[1], device=taps.device)
    found = taps[:, (at[:, None] - at).clamp(min=0)].tril() + torch.diag_embed(skip[:, None].expand_as(taps))
    return found.expand(rows, -1, -1, -1)


def _both(x: Tensor) -> Tensor:
    return torch.cat([x, x.conj()], -1)


def _paired(x: Tensor) -> Tensor:
    """The sum over conjugate pairs, of which one of each is given."""
    return 2 * x.real.sum(-1, keepdim=True)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()

"""Recurrent layers: what mixed tokens before attention did. Each token changes a state of fixed size, one after another.

    LSTM   i, f, o = σ(W x + U h + b + d)   g = tanh(W x + U h + b + d)     Hochreiter and Schmidhuber 1997; the forget
           c ← f ∘ c + i ∘ g                h = o ∘ tanh(c)                 gate of Gers et al. 2000
    GRU    r, z = σ(W x + U h + b + d)      n = tanh(W x + b + r ∘ (U h + d))
           h ← (1 - z) ∘ n + z ∘ h                                          Cho et al. 2014, as cuDNN computes it

Time O(T·D²), one token after another; state at decoding O(D), whatever the length.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.attention import Full, Implied, Mask
from cutaway.attention.record import listening
from cutaway.axes import Bool, Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.compact import both_axes
from cutaway.parts.context import Context
from cutaway.parts.gates import gates, pattern

GATES = {"lstm": 4, "gru": 3}


class Recurrence(nn.Module):
    """One recurrent layer of `cell` "lstm" or "gru", from width D to `hidden` numbers (D by default).

    `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh` are, tensor for tensor, those that `torch.nn.LSTM` and
    `torch.nn.GRU` call `weight_ih_l0`, … and that cuDNN reads (gates in the order i, f, g, o and r, z, n).

    Args:
        reverse: read from the last token to the first (the second half of a bidirectional layer).

    Raises:
        ConfigError: another cell; a state to continue from in reverse.
    """

    keeps_documents = False

    def __init__(self, width: int, hidden: int | None = None, *, cell: str = "lstm", reverse: bool = False) -> None:
        super().__init__()
        if cell not in GATES:
            raise ConfigError(f"no recurrent cell {cell!r}; there are {' and '.join(GATES)}")
        hidden = hidden or width
        self.width, self.hidden, self.cell, self.reverse = width, hidden, cell, reverse
        gates = GATES[cell] * hidden
        self.weight_ih, self.weight_hh = (
            nn.Parameter(torch.empty(gates, width)),
            nn.Parameter(torch.empty(gates, hidden)),
        )
        self.bias_ih, self.bias_hh = nn.Parameter(torch.zeros(gates)), nn.Parameter(torch.zeros(gates))
        for weight in (self.weight_ih, self.weight_hh):
            nn.init.uniform_(weight, -(hidden**-0.5), hidden**-0.5)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t h"]:
        cells = None
        if ctx.state is not None:
            if self.reverse:
                raise ConfigError(f"{ctx.site} reads from the end: it cannot continue from a state")
            cells = ctx.state.cells(ctx.site, lambda: self.beginning(x))
        start = self.beginning(x) if cells is None else {name: held.clone() for name, held in cells.held.items()}
        real = None if ctx.packing == "none" else (ctx.pos >= 0).expand(x.shape[0], -1)
        turned = backwards(x.shape[1], real) if self.reverse else None
        if ctx.packing == "right" and cells is None:
            real = None  # what follows a text does not change it, so the fast form serves
        if turned is not None:
            turned = turned.to(x.device)
            x, real = x.take_along_dim(turned, 1), None if real is None else real.take_along_dim(turned[..., 0], 1)
        y, end = (self.fused if real is None else self.plain)(x, start, real)
        if cells is not None:
            for name, held in cells.held.items():
                held.copy_(end[name])
        self._show(x, y, real, turned, ctx)
        return y if turned is None else y.take_along_dim(turned, 1)

    def _show(self, x: Tensor, y: Tensor, real: Tensor | None, turned: Tensor | None, ctx: Context) -> None:
        """What came before a call is in the state and has no pattern any more: only whole texts are recorded."""
        trace = listening()
        if trace is None or not ctx.fresh:
            return
        with torch.no_grad():
            before = F.pad(y, (0, 0, 1, -1))  # the state that each token met
            given = F.linear(x, self.weight_ih, self.bias_ih)
            made = gates(self.cell, given, F.linear(before, self.weight_hh, self.bias_hh), real)

        def shown() -> Tensor:
            return pattern(made) if turned is None else both_axes(pattern(made), turned[..., 0])

        v = made.new if turned is None else made.new.take_along_dim(turned, 1)
        trace.records.append(Implied(ctx.site, "self", shown, v.mT[..., None], ctx.pos, ctx.pos))

    def beginning(self, x: Tensor) -> dict[str, Tensor]:
        """The state before the first token: zeros."""
        return {name: x.new_zeros(x.shape[0], self.hidden) for name in ("h", "c")[: GATES[self.cell] - 2]}

    def plain(self, x: Tensor, state: dict[str, Tensor], real: Bool[Tensor, "b t"] | None = None) -> Any:
        """The definition, one token after another; padding leaves the state as it is. Gives (B, T, H) and the last state."""
        given = x @ self.weight_ih.mT + self.bias_ih  # (B, T, gates · H), all tokens at once
        outputs = []
        for t in range(x.shape[1]):
            new = self.step(given[:, t], state)
            if real is not None:
                new = {name: torch.where(real[:, t, None], new[name], state[name]) for name in new}
            state = new
            outputs.append(state["h"])
        return torch.stack(outputs, 1), state

    def step(self, given: Float[Tensor, "b g"], state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state after one more token, of which `given` is W x + b."""
        h = state["h"]
        known = h @ self.weight_hh.mT + self.bias_hh
        if self.cell == "lstm":
            i, f, g, o = (given + known).chunk(4, -1)
            c = f.sigmoid() * state["c"] + i.sigmoid() * g.tanh()
            return {"h": o.sigmoid() * c.tanh(), "c": c}
        (r, z, n), (rh, zh, nh) = given.chunk(3, -1), known.chunk(3, -1)
        z = (z + zh).sigmoid()
        return {"h": (1 - z) * (n + (r + rh).sigmoid() * nh).tanh() + z * h}

    def fused(self, x: Tensor, state: dict[str, Tensor], real: Tensor | None = None) -> Any:
        """The same without padding, by PyTorch's kernel for a whole sequence (cuDNN on a GPU)."""
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        begin = [held[None] for held in state.values()]
        run: Any = torch.lstm if self.cell == "lstm" else torch.gru
        y, *end = run(x, begin if self.cell == "lstm" else begin[0], weights, True, 1, 0.0, self.training, False, True)
        return y, {name: held[0] for name, held in zip(state, end, strict=True)}


def backwards(length: int, real: Bool[Tensor, "b t"] | None) -> Int[Tensor, "#b t 1"]:
    """Which token stands where when each row's tokens are turned round, its padding staying in its place; its own inverse."""
    if real is None:
        return torch.arange(length - 1, -1, -1)[None, :, None]
    place = torch.arange(length, device=real.device).expand_as(real)
    first, count = real.int().argmax(1, keepdim=True), real.sum(1, keepdim=True)
    return torch.where(real, 2 * first + count - 1 - place, place)[..., None]


class BothWays(nn.Module):
    """Two recurrences side by side, one from each end: (B, T, D) to (B, T, 2 · hidden) (Schuster and Paliwal 1997)."""

    def __init__(self, width: int, hidden: int, *, cell: str = "lstm") -> None:
        super().__init__()
        self.forwards, self.backwards = (
            Recurrence(width, hidden, cell=cell),
            Recurrence(width, hidden, cell=cell, reverse=True),
        )

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t h"]:
        y = torch.cat([self.forwards(x, ctx), self.backwards(x, ctx)], -1)
        if (trace := listening()) is not None and ctx.fresh:  # both halves' channels side by side, as in y
            one, other = trace.records[-2:]
            trace.records[-2:] = [
                Implied(
                    ctx.site, "self", lambda: torch.cat([one.weights(), other.weights()], 1),
                    torch.cat([one.v, other.v], 1), ctx.pos, ctx.pos,
                )
            ]  # fmt: skip
        return y


class RecurrentMixer(nn.Module):
    """A recurrence in attention's place: one layer (two halves where all look at all) and a projection back to D.

    Takes what `Attention` takes and has no use for heads, positions or biases of scores.
    """

    def __init__(self, width: int, heads: int = 1, *, cell: str = "lstm", mask: Mask = Full(), **_: Any) -> None:
        super().__init__()
        causal = mask.causal
        self.inner: nn.Module = Recurrence(width, cell=cell) if causal else BothWays(width, width, cell=cell)
        self.out = nn.Linear(width if causal else 2 * width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        return self.out(self.inner(x, ctx))


class Alone(nn.Module):
    """f(x), then dropout: a sublayer without a residual connection, as recurrent models are stacked."""

    def __init__(self, inner: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner, self.dropout = inner, nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t h"]:
        return self.dropout(self.inner(x, ctx))

"""Additive attention inside a recurrent decoder: where attention began (Bahdanau et al. 2015, section 3.1, appendix A).

    e_tj = aᵀ tanh(W s_{t-1} + U h_j)      how well source token j fits what is about to be written
    α_t  = softmax over the source of e_t
    s_t  = LSTM([y_{t-1}; Σ_j α_tj h_j], s_{t-1})

The pattern depends on the state it leads to, so the target is read token by token, in training too: O(T·S·D) time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.attention.record import Implied, listening
from cutaway.attention.scores import masked_softmax
from cutaway.axes import Float
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.recurrence import Recurrence


class AdditiveAttention(nn.Module):
    """α_t over the source: `query` is W, `key` is U, `score` is a; of width `hidden`."""

    def __init__(self, query: int, key: int, hidden: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(query, hidden), nn.Linear(key, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(
        self, state: Float[Tensor, "b d"], keys: Float[Tensor, "b s a"], allowed: Tensor
    ) -> Float[Tensor, "b s"]:
        """The weights of one target token; `keys` are U h_j, and nobody looks where `allowed` is False."""
        energy = self.score(torch.tanh(self.query(state)[:, None] + keys)).squeeze(-1)  # (B, S)
        return masked_softmax(energy[:, None, None].float(), allowed[:, None, None])[:, 0, 0].to(energy.dtype)


class AttentiveRecurrence(nn.Module):
    """A recurrent layer that looks at the encoder's states (B, S, D) before each token, and then writes to it.

    Gives [s_t; context_t], (B, T, hidden + D): what the prediction is made from.
    """

    def __init__(self, width: int, hidden: int, memory: int, *, cell: str = "lstm") -> None:
        super().__init__()
        self.attention = AdditiveAttention(hidden, memory, hidden)
        self.recurrence = Recurrence(width + memory, hidden, cell=cell)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t o"]:
        if ctx.memory is None or ctx.memory_pos is None:
            raise ConfigError(f"{ctx.site} looks at an encoder's output: give it one")
        memory, cell = ctx.memory, self.recurrence
        keys, allowed = self.attention.key(memory), (ctx.memory_pos >= 0).expand(x.shape[0], -1)
        cells = None if ctx.state is None else ctx.state.cells(ctx.site, lambda: cell.beginning(x))
        state = cell.beginning(x) if cells is None else {name: held.clone() for name, held in cells.held.items()}
        # what follows a text does not change it
        plain = ctx.packing == "none" or (ctx.packing == "right" and cells is None)
        real = None if plain else (ctx.pos >= 0).expand(x.shape[0], -1)
        own, looked = cell.weight_ih.split([x.shape[-1], memory.shape[-1]], 1)
        given = x @ own.mT + cell.bias_ih  # all tokens at once
        outputs, patterns = [], []
        for t in range(x.shape[1]):
            pattern = self.attention(state["h"], keys, allowed)
            seen = (pattern[:, None] @ memory)[:, 0]  # (B, D)
            new = cell.step(given[:, t] + seen @ looked.mT, state)
            if real is not None:
                new = {name: torch.where(real[:, t, None], new[name], state[name]) for name in new}
            state = new
            outputs.append(torch.cat([state["h"], seen], -1))
            patterns.append(pattern)
        if cells is not None:
            for name, held in cells.held.items():
                held.copy_(state[name])
        trace = listening()
        if trace is not None:
            weights = torch.stack(patterns, 1)[:, None].detach()  # (B, 1, T, S)
            v = memory.detach()[:, None]
            trace.records.append(Implied(ctx.site, "cross", lambda: weights, v, ctx.pos, ctx.memory_pos))
        return torch.stack(outputs, 1)

"""Segment recurrence: a text is read in segments, each of which looks at what those before it left (Dai et al. 2019).

    h̃ = [SG(m) ∘ h]        q = W_q h,   k = W_k h̃,   v = W_v h̃        (section 3.2)

m are the last states that entered this layer, SG stops the gradient: a segment's loss does not reach back into earlier
ones. Where gradients are wanted, a `State` keeps m itself, so that W_k and W_v learn from it too and are applied anew
after they changed. Where none are, it keeps keys and values, which is the same and costs nothing at the next token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.errors import ConfigError
from cutaway.parts.attention import Attention
from cutaway.parts.context import Context
from cutaway.parts.state import KV, State


class RecurrentAttention(Attention):
    """`Attention` whose state is a memory that can be trained with: feed one segment after the other, `state=state`.

    Raises:
        ConfigError: a state made while gradients were wanted goes on without them, or the other way round.
    """

    def _own(self, x: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor, object]:
        learns = torch.is_grad_enabled()
        found = None if ctx.state is None else ctx.state.sites.get(ctx.site)
        if isinstance(found, KV) and learns != (found.v.shape[-1] == 0):
            raise ConfigError("a memory is made for training or under torch.no_grad(), and goes on as it began")
        if ctx.state is None or not learns:
            return super()._own(x, ctx)
        states = x.detach()[:, None]  # (B, 1, T, D): as keys of one head, with values of width 0
        nothing = states[..., :0]
        held, _, k_pos, owner = ctx.state.kv(ctx.site, states, nothing, self.mask.window).extend(states, nothing, ctx)
        if owner == "own":
            both = x
        elif isinstance(owner, tuple) and owner[0] == "extended":
            both = torch.cat([held[:, 0, : -x.shape[1]], x], 1)
        else:  # a single token, in whatever place it is kept
            both = torch.where((k_pos == ctx.pos)[..., None], x, held[:, 0])
        return *self._keys(both), k_pos, owner


class ZeroMemory(State):
    """A state that begins as if every layer remembered `tokens` vectors of zeros, at which the first tokens look.

    Transformer-XL was published so, and its reference begins so; the paper has nothing there. Only where norms come
    after the layers: before them, a norm would make something of zero.
    """

    def __init__(self, batch: int, capacity: int, tokens: int, device: torch.device | str | None = None) -> None:
        super().__init__(batch, capacity + tokens, device)
        self.next += tokens
        self.fed, self.calls, self.zeros = tokens, 1, tokens

    def kv(self, site: str, k: Tensor, v: Tensor, window: int | None) -> KV:
        known = set(self.slots)
        held = super().kv(site, k, v, window)
        if held.slots.capacity not in known:  # its keys and values are zeros already
            pos = torch.arange(self.zeros, device=k.device)[-held.slots.capacity :]
            held.slots.pos[:, pos % held.slots.capacity] = pos
        return held

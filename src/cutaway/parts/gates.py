"""What a gated recurrence took of each token: the pattern that its gates, once known, come to.

    LSTM   h_q = Σ_{k ≤ q} r_q · f_q ⋯ f_{k+1} · i_k · g_k     where r_q = o_q tanh(c_q) / c_q
    GRU    h_q = Σ_{k ≤ q} z_q ⋯ z_{k+1} · (1 - z_k) · n_k

A channel has a pattern of its own, and mixes g or n (Levy et al. 2018, arXiv:1805.03716, for the LSTM's c). The gates
depend on the states before, so this explains an output that is there already; it cannot compute one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.axes import Bool, Float
from cutaway.parts.ssd import span


class Gates(NamedTuple):
    """Of each token and channel: how much stays (a logarithm), how much enters, and what; an LSTM's o."""

    stays: Float[Tensor, "b t h"]
    enters: Float[Tensor, "b t h"]
    new: Float[Tensor, "b t h"]
    out: Float[Tensor, "b t h"] | None


def gates(cell: str, given: Tensor, known: Tensor, real: Bool[Tensor, "b t"] | None) -> Gates:
    """From W x + b of each token (`given`) and U h + d of the state before it (`known`), (B, T, gates · H) both."""
    out = None
    if cell == "lstm":
        enters, stays, new, out = (given + known).chunk(4, -1)
        new, out = new.tanh(), out.sigmoid()
    else:
        (r, stays, n), (rh, zh, nh) = given.chunk(3, -1), known.chunk(3, -1)
        stays, new = stays + zh, (n + (r + rh).sigmoid() * nh).tanh()
        enters = -stays
    stays, enters = F.logsigmoid(stays), enters.sigmoid()
    if real is not None:  # padding changes nothing: all stays
        stays, enters = (x.masked_fill(~real[..., None], 0.0) for x in (stays, enters))
    return Gates(stays, enters, new, out)


def pattern(made: Gates) -> Float[Tensor, "b h t t"]:
    """What token q took of `new` at k. H·T² numbers a row of the batch."""
    stays, enters, new = (x.mT for x in made[:3])  # (B, H, T)
    found = span(stays).exp().tril() * enters[:, :, None]
    if made.out is None:
        return found
    c = (found @ new[..., None])[..., 0]
    ratio = torch.where(c == 0, 1.0, c.tanh() / c)  # tanh(c) / c goes to 1
    return found * (made.out.mT * ratio)[..., None]

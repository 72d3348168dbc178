"""Ways to compute attention. Each agrees with `scores.weights(...) @ v`; the first that supports the case runs.

`eager` is the definition itself, `sdpa` PyTorch's fused kernels, `sparse` computes only what a sparse mask allows
(windows, strides, blocks, global tokens) and leaves to the others what has no such mask, `tiled` is FlashAttention
written out in Python (memory linear in the length).
`with backend("eager"): ...` insists on one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.attention.masks import Causal, Full
from cutaway.attention.scores import Scores, weights
from cutaway.attention.sparse import sparse, supports, worthwhile
from cutaway.attention.tiled import tiled
from cutaway.axes import Float
from cutaway.errors import ConfigError


@dataclass(frozen=True)
class Backend:
    """`run(scores, v, dropout)` computes; `supports(scores, dropout)` says whether it can, from static facts alone."""

    run: Callable[[Scores, Tensor, float], Tensor]
    supports: Callable[[Scores, float], bool]


def _eager(scores: Scores, v: Tensor, dropout: float) -> Tensor:
    pattern = F.dropout(weights(scores), dropout).to(v.dtype)
    return pattern @ v.repeat_interleave(scores.q.shape[1] // v.shape[1], dim=1)


def _sdpa(scores: Scores, v: Tensor, dropout: float) -> Tensor:
    q, k, scale = scores.q, scores.k, scores.scale
    heads, groups = q.shape[1], k.shape[1]
    # PyTorch aligns `is_causal` to the top left, which is only right when keys and queries are the same tokens
    plain = scores.own and scores.bias is None and scores.documents is None and scores.packing != "any"
    if plain and isinstance(scores.mask, Causal):
        causal = q.shape[2] > 1
        return F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=groups != heads
        )
    if scores.bias is not None and q.shape[2] > 1:  # of a decoding step's the kernels complain themselves
        scores.fitting(scores.bias, "bias")
    added = scores.additive()
    if q.shape[2] == 1 and groups != heads:  # decoding: a group's heads become its queries, so no key is copied
        q = q.reshape(q.shape[0], groups, heads // groups, -1)
        if added is not None and added.shape[1] == heads:
            added = added.expand(-1, -1, 1, k.shape[2]).reshape(-1, groups, heads // groups, k.shape[2])
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=dropout, scale=scale)
        return out.reshape(q.shape[0], heads, 1, -1)
    if added is not None:
        added = added.expand(-1, -1, q.shape[2], k.shape[2])
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=added, dropout_p=dropout, scale=scale, enable_gqa=groups != heads
    )


def _sparse(scores: Scores, v: Tensor, dropout: float) -> Tensor:
    mixed = sparse(scores, v, dropout) if supports(scores) else None
    return _dense(scores, dropout).run(scores, v, dropout) if mixed is None else mixed


BACKENDS = {
    "sdpa": Backend(_sdpa, lambda scores, dropout: scores.softcap is None),
    "sparse": Backend(_sparse, lambda scores, dropout: True),
    "tiled": Backend(lambda scores, v, dropout: tiled(scores, v), lambda scores, dropout: dropout == 0.0),
    "eager": Backend(_eager, lambda scores, dropout: True),
}
_wanted: ContextVar[str | None] = ContextVar("cutaway_backend", default=None)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Compute attention by one backend in this block.

    Raises:
        ConfigError: there is no such backend, or (when attention runs) it cannot do what is asked of it.
    """
    if name not in BACKENDS:
        raise ConfigError(f"no attention backend {name!r}; there are {', '.join(sorted(BACKENDS))}")
    token = _wanted.set(name)
    try:
        yield
    finally:
        _wanted.reset(token)


def choose(scores: Scores, dropout: float) -> Backend:
    """The backend to use: the one insisted on, else `sparse` where it pays, else `sdpa`, else the definition."""
    wanted = None if torch.compiler.is_compiling() else _wanted.get()
    if wanted is None:
        return BACKENDS["sparse"] if worthwhile(scores) else _dense(scores, dropout)
    if not BACKENDS[wanted].supports(scores, dropout):
        what = "a soft cap on its logits" if scores.softcap is not None else "dropout inside its pattern"
        raise ConfigError(f"the {wanted!r} attention backend cannot compute attention with {what}; use 'eager'")
    return BACKENDS[wanted]


def _dense(scores: Scores, dropout: float) -> Backend:
    return BACKENDS["sdpa"] if BACKENDS["sdpa"].supports(scores, dropout) else BACKENDS["eager"]


def attend(scores: Scores, v: Float[Tensor, "b g k e"], dropout: float = 0.0) -> Float[Tensor, "b h q e"]:
    """Mix the values by the pattern: (B, H, Q, E). `dropout` is the probability now: pass 0 in evaluation."""
    if scores.mask == Full() and scores.k.shape[2] == 0:
        return scores.q.new_zeros((*scores.q.shape[:3], v.shape[-1]))
    return choose(scores, dropout).run(scores, v, dropout)

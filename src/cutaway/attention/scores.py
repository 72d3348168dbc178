"""What attention *is*. Every backend computes this, and every picture shows this.

    weights = softmax( softcap( scale · q kᵀ ) + bias,  over the keys the mask allows )
    output  = weights · v

Vaswani et al. 2017, equation 1, with what later models added: an additive bias (T5, ALiBi), a soft cap
c·tanh(x/c) on the logits (Gemma 2), and fewer key/value heads than query heads (Ainslie et al. 2023).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from cutaway.attention.masks import Full, Mask, Padding, sees_all_past
from cutaway.axes import Bool, Float, Int
from cutaway.errors import ConfigError

Packing = Literal["none", "right", "any"]


@dataclass(eq=False)
class Scores:
    """Everything that determines one attention pattern.

    Where several texts share a row, `documents` tells them apart: nobody looks at another text's keys. Positions are then
    counted within each text, so no mask has to know of it.

    `own`, `newest` and `packing` are facts known without reading a tensor: the keys are the queries' own tokens; the
    keys are all the past of one newest query; where padding may stand. They never change the result, only its cost.
    """

    q: Float[Tensor, "b h q e"]
    k: Float[Tensor, "b g k e"]
    q_pos: Int[Tensor, "#b q"]
    k_pos: Int[Tensor, "#b k"]
    mask: Mask = Full()
    bias: Float[Tensor, "..."] | None = None  # broadcasts to (B, H, Q, K)
    scale: float = 1.0
    softcap: float | None = None
    own: bool = False
    newest: bool = False
    packing: Packing = "any"
    documents: tuple[Int[Tensor, "#b q"], Int[Tensor, "#b k"]] | None = None  # which text queries and keys are of
    owner: Hashable = None  # names the keys within one forward, so that layers share one dense mask
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.bias is not None and self.bias.ndim < 4:
            self.bias = self.bias[(None,) * (4 - self.bias.ndim)]

    def dense(self) -> Bool[Tensor, "..."] | None:
        """The mask with padding, broadcastable to (B, H, Q, K), built once a forward; None allows everything."""
        if self.newest and sees_all_past(self.mask):
            return None
        mask = self.mask if self.packing == "none" else self.mask & Padding()
        if isinstance(mask, Full) and self.documents is None:
            return None
        key = (mask, self.owner)
        if key not in self.memo:
            allowed = mask.dense(self.q_pos, self.k_pos)
            same = self.same(slice(None), slice(None))
            self.memo[key] = self.fitting(allowed if same is None else allowed & same, "mask")
        return self.memo[key]

    def same(self, rows: slice, columns: slice) -> Bool[Tensor, "b 1 q k"] | None:
        """Where query and key are of one text; None where there is only one."""
        if self.documents is None:
            return None
        of_queries, of_keys = self.documents
        return of_queries[:, None, rows, None] == of_keys[:, None, None, columns]

    def repeats(self) -> Float[Tensor, "..."] | None:
        """What the mask adds to the logits of pairs that count more than once."""
        key = ("repeats", self.mask, self.owner)
        if key not in self.memo:
            self.memo[key] = self.mask.repeats(self.q_pos[:, None, :, None], self.k_pos[:, None, None, :])
        return self.memo[key]

    def fitting(self, x: Tensor, name: str) -> Tensor:
        """x, after checking that it broadcasts to (B, H, Q, K)."""
        whole = (*self.q.shape[:3], self.k.shape[2])
        if x.ndim != 4 or any(size not in (1, full) for size, full in zip(x.shape, whole, strict=True)):
            raise ConfigError(f"the {name} is {tuple(x.shape)}, which does not spread over {whole}: (B, H, Q, K)")
        return x

    def additive(self) -> Float[Tensor, "..."] | None:
        """Mask and bias as what is added to the logits, in q's dtype: what fused kernels take. None adds nothing."""
        allowed = self.dense()
        if self.bias is not None:
            repeats = self.repeats()
            bias = (self.bias if repeats is None else self.bias + repeats).to(self.q.dtype)
            return bias if allowed is None else bias.masked_fill(~allowed, -torch.inf)
        if allowed is None:
            return None
        key = ("additive", self.mask, self.owner)  # once a forward: kernels given booleans would convert in every layer
        if key not in self.memo:
            repeats = self.repeats()
            once = torch.zeros((), device=self.q.device) if repeats is None else repeats
            self.memo[key] = torch.where(allowed, once.to(self.q.dtype), -torch.inf)
        return self.memo[key]


def weights(scores: Scores) -> Float[Tensor, "b h q k"]:
    """The attention pattern (B, H, Q, K) in float32: each row sums to 1, or is zero where nothing may be looked at."""
    allowed = scores.dense()
    if scores.bias is not None:  # a bias of -inf forbids as a mask does
        some = scores.bias != -torch.inf
        allowed = some if allowed is None else allowed & some
    return masked_softmax(logits(scores), allowed)


def logits(scores: Scores) -> Float[Tensor, "b h q k"]:
    """softcap(scale · q kᵀ) + bias, in float32, before the mask."""
    heads, groups = scores.q.shape[1], scores.k.shape[1]
    k = scores.k.repeat_interleave(heads // groups, dim=1) if groups != heads else scores.k
    x = torch.matmul(scores.q * scores.scale, k.transpose(-1, -2)).float()
    if scores.softcap is not None:
        x = scores.softcap * torch.tanh(x / scores.softcap)
    repeats = scores.repeats()
    x = x if repeats is None else x + repeats
    return x if scores.bias is None else x + scores.fitting(scores.bias, "bias")


def masked_softmax(x: Float[Tensor, "b h q k"], allowed: Bool[Tensor, "..."] | None) -> Float[Tensor, "b h q k"]:
    """Softmax over the allowed keys. A row without any is zero: not NaN (as by -inf), not uniform (as by a large number)."""
    if allowed is None:
        return x.softmax(-1)
    # a finite fill keeps the empty row's gradient finite; the second fill makes it and every forbidden key exactly zero
    return x.masked_fill(~allowed, torch.finfo(x.dtype).min).softmax(-1).masked_fill(~allowed, 0.0)

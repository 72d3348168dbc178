"""Performer: softmax attention estimated by random features (FAVOR+), in time linear in the length.

    exp(q·k) = E_w[ φ_w(q) φ_w(k) ]      φ_w(x) = exp(w·x - |x|²/2),   w ~ N(0, I)

(Choromanski et al. 2021, lemma 1). M draws of w, orthogonal to each other within each E of them (section 2.4), make M
positive features; their mean is unbiased, and its error falls as 1/sqrt(M). With these features attention is linear:
the sums, chunks and decoding state are those of `LinearAttention`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.axes import Bool, Float
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.linear_attention import FeatureMap, LinearAttention
from cutaway.parts.mixing import check_heads


class Favor(FeatureMap):
    """The random feature map φ, (B, H, T, E) -> (B, H, T, M), the same for all heads.

    Args:
        head_width: E.
        features: M; `None` is E ln E, rounded (section 4: "m = Θ(d log d)").
        kernel: "softmax" as above, or "relu", φ_w(x) = max(w·x, 0) + 0.001 (section 4.2: "generalized attention").
        scale: of q·k inside the kernel; `None` is 1/sqrt(E).
        orthogonal: whether the w of a block are orthogonal, or independent.

    `projection` (M, E) holds the w. It is saved with the model but never trained.
    """

    def __init__(
        self,
        head_width: int,
        features: int | None = None,
        kernel: str = "softmax",
        *,
        scale: float | None = None,
        orthogonal: bool = True,
    ) -> None:
        super().__init__()
        features = max(1, round(head_width * math.log(head_width))) if features is None else features
        if features < 1 or kernel not in ("softmax", "relu"):
            raise ConfigError(
                f"FAVOR+ needs features >= 1 and a kernel 'softmax' or 'relu', not {features}, {kernel!r}"
            )
        self.kernel, self.orthogonal = kernel, orthogonal
        self.scale = head_width**-0.5 if scale is None else scale
        self.projection = nn.Parameter(torch.empty(features, head_width), requires_grad=False)
        self.redraw()

    @torch.no_grad()
    def redraw(self) -> None:
        """Draws the w anew, in place."""
        if not self.projection.is_meta:
            features, width = self.projection.shape
            drawn = orthogonal(features, width) if self.orthogonal else torch.randn(features, width)
            self.projection.copy_(drawn)

    def logits(self, x: Float[Tensor, "b h t e"]) -> Float[Tensor, "b h t m"]:
        """ln φ(x) of the softmax kernel, whose product over two vectors has the mean exp(scale · q·k)."""
        x = x * self.scale**0.5
        return self._projected(x) - (x.square().sum(-1, keepdim=True) + math.log(len(self.projection))) / 2

    def count(self, head_width: int) -> int:
        return len(self.projection)

    def queries(self, x: Float[Tensor, "b h t e"]) -> Float[Tensor, "b h t m"]:
        """Features of queries. Each query's largest is 1: the factor cancels, and nothing overflows."""
        if self.kernel == "relu":
            return self._rectified(x)
        logits = self.logits(x)
        return (logits - logits.detach().amax(-1, keepdim=True)).exp()

    def keys(
        self, x: Float[Tensor, "b h t e"], real: Bool[Tensor, "#b 1 t 1"] | None
    ) -> tuple[Float[Tensor, "b h t m"], Float[Tensor, "b h 1 1"] | None]:
        """Features of keys, zero on padding, and the logarithm of what they were divided by: the largest of their head."""
        if self.kernel == "relu":
            return super().keys(x, real)
        logits = self.logits(x)
        if real is not None:
            logits = logits.masked_fill(~real, -torch.inf)
        shift = logits.detach().amax((-2, -1), keepdim=True).clamp(min=torch.finfo(x.dtype).min)
        return (logits - shift).exp(), shift

    def _projected(self, x: Tensor) -> Tensor:
        return x @ self.projection.to(x.dtype).t()

    def _rectified(self, x: Tensor) -> Tensor:
        return F.relu(self._projected(x * self.scale**0.5)) + 1e-3


class PerformerAttention(LinearAttention):
    """Attention by FAVOR+: `LinearAttention` with the features of `Favor`.

    Args:
        width, heads, kv_heads, head_width, others: as in `LinearAttention`.
        features, kernel, scale: as in `Favor`.
        redraw_every: in training, draw new features after so many calls (section 4.2); `None` keeps them. `redraw()` draws now.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        head_width: int | None = None,
        *,
        features: int | None = None,
        kernel: str = "softmax",
        scale: float | None = None,
        redraw_every: int | None = None,
        **others: Any,
    ) -> None:
        _, inner = check_heads(width, heads, kv_heads, head_width)
        favor = Favor(inner, features, kernel, scale=scale)
        super().__init__(width, heads, kv_heads, head_width, features=favor, **others)
        self.redraw_every, self.calls = redraw_every, 0

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        if self.training and self.redraw_every is not None and torch._C._current_graph_task_id() == -1:
            # a checkpoint's second forward, inside a backward, must see the features of its first
            if self.calls and self.calls % self.redraw_every == 0:
                self.redraw()
            self.calls += 1
        return super().forward(x, ctx)

    def redraw(self) -> None:
        """Draws new features."""
        assert isinstance(self.features, Favor)
        self.features.redraw()


def orthogonal(rows: int, width: int) -> Float[Tensor, "m e"]:
    """Vectors each distributed as N(0, I), those of each block of `width` orthogonal to each other (section 2.4).

    Directions are uniform only where R has a positive diagonal: LAPACK's choice of signs would bias the estimate.
    """
    blocks = -(-rows // width)
    q, r = torch.linalg.qr(torch.randn(blocks, width, width))
    directions = (q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]).transpose(-1, -2).flatten(0, 1)[:rows]
    return directions * torch.randn(rows, width).norm(dim=1, keepdim=True)

"""Linear attention: the softmax's kernel exp(q·k) becomes φ(q)·φ(k), and the sum over keys no longer depends on the query.

    out_i = φ(q_i)ᵀ S_i / φ(q_i)ᵀ z_i        S_i = Σ_j φ(k_j) v_jᵀ,   z_i = Σ_j φ(k_j)

over all real tokens j in an encoder, over j ≤ i in a decoder (Katharopoulos et al. 2020, equations 5, 6, 9 and 10).
z is S's last column when v is given a last column of ones, and so it is computed here.

Time O(T·M·E) and memory O(T·(M + E)) for M features a head. A decoder's state is S and z: it does not grow with the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.attention import Full, Implied, Mask
from cutaway.attention.record import listening
from cutaway.axes import Bool, Float
from cutaway.parts.context import Context
from cutaway.parts.dropout import drop
from cutaway.parts.mixing import check_heads, no_logits, reads_causally, split_heads, wide

CHUNK = 64  # tokens whose mutual pattern is computed at once
SEGMENT = 1024  # tokens worked on at a time


class FeatureMap(nn.Module):
    """A φ whose numbers are not negative, applied to each token alone."""

    def count(self, head_width: int) -> int:
        """M."""
        raise NotImplementedError

    def queries(self, x: Float[Tensor, "b h t e"]) -> Float[Tensor, "b h t m"]:
        """Features of queries; each query's may be scaled by any number, which cancels."""
        raise NotImplementedError

    def keys(
        self, x: Float[Tensor, "b h t e"], real: Bool[Tensor, "#b 1 t 1"] | None
    ) -> tuple[Float[Tensor, "b h t m"], Float[Tensor, "b h 1 1"] | None]:
        """Features of keys, zero on padding, and the logarithm of what they are to be multiplied by; None is 0."""
        features = self.queries(x)
        return (features if real is None else features * real), None


class EluPlusOne(FeatureMap):
    """φ(x) = elu(x) + 1: x + 1 above 0 and exp(x) below (Katharopoulos et al. 2020, equation 7). M = E.

    Spelled so that exp(x) keeps its digits where elu(x) rounds to -1.
    """

    def count(self, head_width: int) -> int:
        return head_width

    def queries(self, x: Float[Tensor, "b h t e"]) -> Float[Tensor, "b h t m"]:
        return F.relu(x) + x.clamp(max=0).exp()


class LinearAttention(nn.Module):
    """out = φ(q) (φ(k)ᵀ v), normalised, by heads; see above for the symbols.

    Args:
        width, heads, kv_heads, head_width: D, H, G and E as in `Attention`.
        mask: `Full()` or a causal mask, of which nothing else is used.
        features: the feature map φ, an `EluPlusOne` unless given.
        q_steps, k_steps: parts that turn queries and keys before φ.
        scale: multiplies queries before φ.
        dropout: of the mixed values; there is no pattern whose weights could be dropped.

    Raises:
        ConfigError: the heads do not divide, or there is something to add to logits, which do not exist here.
    """

    keeps_documents = False

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        head_width: int | None = None,
        *,
        mask: Mask = Full(),
        features: FeatureMap | None = None,
        bias: bool = False,
        out_bias: bool | None = None,
        q_steps: Sequence[nn.Module] = (),
        k_steps: Sequence[nn.Module] = (),
        score_bias: nn.Module | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.kv_heads, self.head_width = check_heads(width, heads, kv_heads, head_width)
        self.causal, self.heads, self.scale, self.dropout = reads_causally(mask), heads, scale, dropout
        no_logits(score_bias, "linear attention")
        self.features: FeatureMap = EluPlusOne() if features is None else features
        self.q = nn.Linear(width, heads * self.head_width, bias=bias)
        self.k = nn.Linear(width, self.kv_heads * self.head_width, bias=bias)
        self.v = nn.Linear(width, self.kv_heads * self.head_width, bias=bias)
        self.out = nn.Linear(heads * self.head_width, width, bias=bias if out_bias is None else out_bias)
        self.q_steps, self.k_steps = nn.ModuleList(q_steps), nn.ModuleList(k_steps)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        q = split_heads(self.q(x), self.heads)  # (B, H, T, E)
        k, v = (split_heads(project(x), self.kv_heads) for project in (self.k, self.v))
        for step in self.q_steps:
            q = step(q, ctx)
        for step in self.k_steps:
            k = step(k, ctx)
        q = q if self.scale is None else q * self.scale
        groups = self.heads // self.kv_heads
        k, v = (y.repeat_interleave(groups, 1) if groups > 1 else y for y in (k, v))
        q, k, v = wide(q), wide(k), wide(v)
        real = None if ctx.packing == "none" else ctx.once("real", lambda: (ctx.pos >= 0)[:, None, :, None])
        self._show(q, k, v, real, ctx)
        if self.causal:
            mixed = self._causal(q, k, v, real, ctx)
        else:
            sums = self._nothing(v)
            for piece in _segments(k, v, real):
                phi_k, u, sums = self._toward(*piece, sums)
                sums = sums._replace(total=sums.total + phi_k.transpose(-1, -2) @ u)
            parts = [_normalised(self.features.queries(piece) @ sums.total) for piece in q.split(SEGMENT, 2)]
            mixed = torch.cat(parts, 2)
        mixed = drop(self, mixed.to(x.dtype).transpose(1, 2).flatten(2), self.dropout)
        return self.out(mixed)

    def _causal(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None, ctx: Context) -> Float[Tensor, "b h t e"]:
        """Segment by segment, from the sums that earlier tokens left to those that later ones will need."""
        sums, cells = self._nothing(v), None
        if ctx.state is not None:
            # a feature map that asks for no shift leaves it as it is, at the least there is
            cells = ctx.state.cells(ctx.site, lambda: {"total": v.new_zeros(self._shape(v)), "shift": sums.shift})
            sums = Sums(cells["total"], cells["shift"])
        parts = []
        for queries, piece in zip(q.split(SEGMENT, 2), _segments(k, v, real), strict=True):
            phi_k, u, sums = self._toward(*piece, sums)
            part, total = prefix(self.features.queries(queries), phi_k, u, sums.total)
            parts.append(_normalised(part))
            sums = sums._replace(total=total)
        if cells is not None:
            cells["total"].copy_(sums.total)
            cells["shift"].copy_(sums.shift)
        return torch.cat(parts, 2) if len(parts) > 1 else parts[0]

    def _toward(self, k: Tensor, v: Tensor, real: Tensor | None, sums: Sums) -> tuple[Tensor, Tensor, Sums]:
        """The features of keys, v with its column of ones, and the sums so far, as multiples of the same number."""
        phi_k, shift = self.features.keys(k, real)
        v = F.pad(v, (0, 1), value=1.0)  # a last column of ones: its sums are z
        if shift is None:
            return phi_k, v, sums
        common = torch.maximum(sums.shift, shift)
        return phi_k * (shift - common).exp(), v, Sums(sums.total * (sums.shift - common).exp(), common)

    def _nothing(self, v: Tensor) -> Sums:
        least = v.new_full((*v.shape[:2], 1, 1), torch.finfo(v.dtype).min)
        return Sums(v.new_zeros(()), least)

    def _shape(self, v: Tensor) -> tuple[int, ...]:
        return (*v.shape[:2], self.features.count(self.head_width), self.head_width + 1)

    def _show(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None, ctx: Context) -> None:
        """What was seen before a call has been summed up and has no pattern any more: only whole texts are recorded."""
        trace = listening()
        if trace is None or (self.causal and not ctx.fresh):
            return
        q, k, v = q.detach(), k.detach(), v.detach()

        def shown() -> Tensor:
            return pattern(self.features.queries(q), self.features.keys(k, real)[0], self.causal)

        trace.records.append(Implied(ctx.site, "self", shown, v, ctx.pos, ctx.pos))


class Sums(NamedTuple):
    """[S, z] of the tokens so far, divided by exp(shift)."""

    total: Float[Tensor, "b h m e1"]
    shift: Float[Tensor, "b h 1 1"]


def pattern(phi_q: Float[Tensor, "b h q m"], phi_k: Float[Tensor, "b h k m"], causal: bool) -> Float[Tensor, "b h q k"]:
    """The definition: weights φ(q_i)·φ(k_j), divided by their sum over j. A row with nothing to look at is zero."""
    weights = phi_q @ phi_k.transpose(-1, -2)  # (B, H, Q, K)
    weights = weights.tril() if causal else weights
    return weights / _above_zero(weights.sum(-1, keepdim=True))


def prefix(
    phi_q: Float[Tensor, "b h t m"], phi_k: Float[Tensor, "b h t m"], v: Float[Tensor, "b h t e"], before: Tensor
) -> tuple[Float[Tensor, "b h t e"], Float[Tensor, "b h m e"]]:
    """φ(q_i)ᵀ (before + Σ_{j ≤ i} φ(k_j) v_jᵀ) for every i, and the whole sum.

    Within a chunk by the triangle of its own pattern, what came before it by the sums over earlier chunks.
    """
    tokens = phi_q.shape[2]
    if tokens == 1:
        total = before + phi_k.transpose(-1, -2) * v
        return phi_q @ total, total
    chunk = min(CHUNK, tokens)
    q, k, v = (F.pad(x, (0, 0, 0, -tokens % chunk)).unflatten(2, (-1, chunk)) for x in (phi_q, phi_k, v))
    own = k.transpose(-1, -2) @ v  # (B, H, N, M, E)
    until = torch.cat([before.expand_as(own[:, :, 0])[:, :, None], own], 2).cumsum(2)
    within = (q @ k.transpose(-1, -2)).tril() @ v
    return (within + q @ until[:, :, :-1]).flatten(2, 3)[:, :, :tokens], until[:, :, -1]


def _segments(k: Tensor, v: Tensor, real: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """A text in pieces: what is made of one stays in the processor's cache until it is used."""
    ks, vs = k.split(SEGMENT, 2), v.split(SEGMENT, 2)  # slices would each have a gradient of full length
    reals = [None] * len(ks) if real is None else real.split(SEGMENT, 2)
    return zip(ks, vs, reals, strict=True)


def _normalised(x: Float[Tensor, "b h t e1"]) -> Float[Tensor, "b h t e"]:
    return x[..., :-1] / _above_zero(x[..., -1:])


def _above_zero(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, 1.0)

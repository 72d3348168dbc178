"""Permutation language modelling: a text is guessed token by token in any order (Yang et al. 2019, section 2.2).

    log p(x) = Σ_t log p(x_{z_t} | x_{z_<t})        z: an order of the positions

Two streams run through the same layers (section 2.3). The content stream h, the ordinary pass, sees tokens up to z_t;
the query stream g begins as one learned vector, knows its place, and sees those before z_t only, so that it can guess:

    h_{z_t} = Attention(Q = h_{z_t}, K, V = h_{z_≤t})        g_{z_t} = Attention(Q = g_{z_t}, K, V = h_{z_<t})
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cutaway.axes import Bool, Int
from cutaway.errors import ConfigError
from cutaway.parts.call import check
from cutaway.parts.model import Model, Stack
from cutaway.parts.relative_shift import RelativeScores
from cutaway.parts.state import State
from cutaway.parts.streams import with_queries


class PermutedModel(Model):
    """A `Model` that can also be asked for tokens it has not seen. `query` is what g begins as (w in the paper)."""

    def __init__(self, stack: Stack, head: nn.Module | None = None, **rest: Any) -> None:
        super().__init__(stack, head, **rest)
        self.query = nn.Parameter(nn.init.normal_(torch.empty(1, 1, stack.width), std=0.02))

    def permuted(
        self,
        ids: Int[Tensor, "b t"],
        order: Int[Tensor, "..."],
        targets: Int[Tensor, "..."],
        padding: Bool[Tensor, "b t"] | None = None,
        *,
        segments: Int[Tensor, "#b t"] | None = None,
        state: State | None = None,
        head: bool = True,
    ) -> Tensor:
        """What the head says of `targets` (B, P, ...), each guessed from the tokens before it in `order`.

        Args:
            order: (B, T), the place of each token in the order of guessing. Tokens with the same place see each other
                and do not guess one another: all that is given may have place 0.
            targets: (B, P), columns of `ids` to guess. The token that stands there is not looked at; any will do.
            padding, segments, state, head: as for a call. What came before is seen by all.

        A target that nothing comes before sees nothing, and attention gives zeros. Memory and time are those of a text
        of T + P tokens.

        Raises:
            ConfigError: shapes that do not fit, targets that are no columns, or a model that reads from left to right or
                whose attention or positions were swapped.
        """
        if self.causal:
            raise ConfigError("a model that reads from left to right guesses in that order only")
        biases = [getattr(block.attention.inner, "score_bias", None) for block in self.stack.blocks]  # type: ignore[union-attr]
        if not all(isinstance(bias, RelativeScores) for bias in biases):
            raise ConfigError(
                "guesses in any order go with XLNet's own attention and positions, which were swapped here"
            )
        if order.shape != ids.shape or targets.ndim != 2 or len(targets) != len(ids):
            given = f"{tuple(order.shape)} and {tuple(targets.shape)}"
            raise ConfigError(f"order is (B, T) and targets are (B, P), not {given} beside ids {tuple(ids.shape)}")
        check(targets, ids.shape[1], "targets")
        ctx = self.stack.called(ids, padding, state, self.max_positions, None, segments)

        def at_targets(x: Tensor) -> Tensor:
            return x.expand(len(ids), -1).gather(1, targets.long())

        tokens = ids.shape[1]
        before = order[:, None, :] < at_targets(order)[:, :, None]  # (B, P, T)
        seen = torch.cat([order[:, None, :] <= order[:, :, None], before], 1)
        seen = nn.functional.pad(seen, (0, targets.shape[1]))  # nobody sees a query
        own = None if segments is None else at_targets(segments)
        x = torch.cat([self.stack.embedding(ids, ctx), self.query.expand(*targets.shape, -1)], 1)
        both = with_queries(ctx, at_targets(ctx.pos), seen, own)
        x = self.stack.through(x, both)[:, tokens:]
        return self.head(x, ctx) if head and self.head is not None else x

"""BigBird's attention: blocks look at their neighbours, at the first and the last block, and at a few random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cutaway.attention import Full, Mask
from cutaway.attention.patterns import Blocks
from cutaway.axes import Int
from cutaway.errors import ConfigError
from cutaway.parts.attention import Attention
from cutaway.parts.context import Context

OLD = (1024, 3072, 4096)  # lengths for which random blocks are drawn by the paper's first plan


class BlockSparseAttention(Attention):
    """softmax( q kᵀ / sqrt(E) ) v over the keys of a few blocks. Zaheer et al. 2020, section 2 and appendix D.

    The text is cut into N blocks of b tokens. Block i looks at blocks i-1, i and i+1 (window), at the first and the last
    one (global), and at r others (random), which each head draws for itself; the first and the last block look at all.
    Texts of at most (5 + 2r)·b tokens have full attention. O(T·(5 + r)·b) time, O(T) memory.

    The random blocks are those of the published code: drawn from `seed`, the layer's number, in training. In evaluation
    the reference draws none and has the first block stand in their place, where it counts r times more; so do we.

    Args:
        width, heads, …: as for `Attention`, without a mask.
        block, random: b and r.
        context: the longest text, for which the paper's first plan draws.
        seed: of the random blocks.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        head_width: int | None = None,
        *,
        mask: Mask = Full(),
        block: int = 64,
        random: int = 3,
        context: int = 4096,
        seed: int = 0,
        **given: Any,
    ) -> None:
        if not isinstance(mask, Full):
            raise ConfigError(
                f"BigBird's pattern is made for encoders, which look both ways; it cannot follow {mask!r}"
            )
        super().__init__(width, heads, kv_heads, head_width, **given)
        self.block, self.random, self.context, self.seed = block, random, context, seed

    def pattern(self, ctx: Context) -> Mask:
        if ctx.pos.shape[1] <= self.full:
            return Full()
        key = ("bigbird", self.block, self.random, self.seed if self.training else None)
        return ctx.once(key, lambda: self._pattern(ctx.pos, ctx.documents is not None))

    @property
    def full(self) -> int:
        """Up to how many tokens everybody looks at everybody."""
        return (5 + 2 * self.random) * self.block

    def _pattern(self, pos: Int[Tensor, "#b t"], documents: bool) -> Mask:
        lengths = (pos.amax(1) + 1).tolist()  # each row's own, whatever padding stands beside it
        if max(lengths) <= self.full:
            return Full()
        if documents:
            raise ConfigError(
                f"BigBird's blocks are those of one text a row: documents that share one have up to {self.full} tokens here, "
                f"not {max(lengths)}"
            )
        total = -(-max(lengths) // self.block)
        made = {n: torch.from_numpy(self.layout(n, total)) for n in dict.fromkeys(lengths)}
        return Blocks(torch.stack([made[n] for n in lengths]).to(pos.device), self.block)

    def layout(self, tokens: int, total: int) -> np.ndarray:
        """How often each block of queries looks at each block of keys, (H, total, total), in a text of `tokens`."""
        count = -(-tokens // self.block)
        counts = np.zeros((self.heads, total, total), dtype=np.int64)
        own = counts[:, :count, :count]
        if tokens <= self.full:
            own[:] = 1
            return counts
        i = np.arange(count)
        own[:] = np.abs(i[:, None] - i) <= 1
        own[:, :, [0, -1]] = own[:, [0, -1]] = 1
        drawn = self.drawn(count) if self.training else np.zeros((self.heads, count - 2, self.random), dtype=np.int64)
        head, row = np.ogrid[: self.heads, 1 : count - 1]
        np.add.at(own, (head[..., None], row[..., None], drawn), 1)
        return counts

    def drawn(self, count: int) -> np.ndarray:
        """The random blocks of each block of queries but the first and the last: (H, count - 2, r)."""
        random = np.random.RandomState(self.seed)  # the generator by which published models were trained
        if count * self.block in OLD:
            each = [
                [self._first_plan(random, i) for i in range(1, self.context // self.block - 1)]
                for _ in range(self.heads)
            ]
            return np.array(each)[:, : count - 2]
        each = [[self._plan(random, i) for _ in range(self.heads)] for i in range(1, count)]
        return np.array(each[:-1]).transpose(1, 0, 2)

    def _plan(self, random: np.random.RandomState, i: int) -> np.ndarray:
        """For block i: of the first 5 + 2r blocks, those that it does not look at already."""
        end = 5 + 2 * self.random
        barred = {i - 1, i, i + 1, 0, end - 1} | ({end - 2} if i == 1 else set()) | ({1} if i == end - 2 else set())
        return np.array([j for j in random.permutation(end) if j not in barred][: self.random])

    def _first_plan(self, random: np.random.RandomState, i: int) -> np.ndarray:
        """For block i: of the blocks of the first 1,024 tokens, those not beside it (which may include the last one)."""
        blocks = self.context // self.block
        last = 1024 // self.block - 1 if 2 * self.block < 1024 else blocks - 1
        middle = np.arange(1, blocks - 1)
        if i <= 2:
            free = middle[i + 1 : last]
        elif i >= blocks - 3 or i - 2 > last:
            free = middle[:last]
        elif i + 1 == last:
            free = middle[: i - 2]
        else:
            free = np.concatenate([middle[: i - 2], middle[i + 1 : last]])
        return random.permutation(free)[: self.random]

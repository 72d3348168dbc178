"""Embeddings of the last few tokens together, in tables too small for all there could be.

HashedNGrams      x_t + W [table_n[hash(id_{t-n+1} … id_t)]]  for n = 2 … N, side by side

(Clark et al. 2022, CANINE, section 3.1, hash characters; Huang et al. 2025, "Over-tokenized Transformer", section 3.2,
add hashed n-grams of tokens.) A table costs a look-up a token however long the n-grams are, so it buys for almost
nothing what the first layers would have to learn: which tokens stand before this one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.axes import Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.compact import Rows, last
from cutaway.parts.context import Context

MIXING = 0x9E3779B97F4A7C1  # odd, near 2^60 divided by the golden ratio (Knuth, TAOCP 3, section 6.4)


class HashedNGrams(nn.Module):
    """A step of an embedding, for texts read from left to right: it looks back only, and remembers N-1 ids.

    N-grams share a row of `buckets` by chance; where there are fewer of them than rows, each has its own. Padding is no
    token, and before the beginning there is a token of its own. Begins with tables of unit variance and W small.

    Args:
        vocab, width: V, and D of what it adds to.
        longest: N, at least 2.
        buckets: rows a table.
        table: width of a table; D/(N-1) if not given, as wide together as what they are added to.
    """

    keeps_documents = False

    def __init__(self, vocab: int, width: int, longest: int = 5, buckets: int = 8192, table: int | None = None) -> None:
        super().__init__()
        if longest < 2 or buckets < 1:
            raise ConfigError(f"n-grams of 2 to {longest} tokens in {buckets} rows: at least 2, and at least 1")
        lengths = range(2, longest + 1)
        table = table or -(-width // len(lengths))
        self.vocab, self.buckets = vocab, buckets
        self.counts = [min((vocab + 1) ** n, buckets) for n in lengths]
        self.tables = nn.ModuleList(nn.Embedding(rows, table) for rows in self.counts)
        self.out = nn.Linear(table * len(lengths), width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        assert ctx.ids is not None
        rows = Rows.of(ctx)
        ids = rows.compact(ctx.ids[..., None] + 1)  # (B, T, 1); 0 is what stands before the beginning
        before = ids.new_zeros(len(ids), len(self.tables), 1)
        if ctx.state is not None:
            held = ctx.state.cells(f"{ctx.site}.ngrams", lambda: {"ids": before.clone()})["ids"]
            before = held.clone()
            held.copy_(last(before, ids, rows.real if rows.padded else None))
        found = [table(index) for table, index in zip(self.tables, self.rows(ids[..., 0], before[..., 0]), strict=True)]
        return x + rows.restore(self.out(torch.cat(found, -1)))

    def rows(self, ids: Int[Tensor, "b t"], before: Int[Tensor, "b k"]) -> list[Int[Tensor, "b t"]]:
        """Which row of each table; ids from 1, and the N-1 before them, 0 where there were none."""
        line = torch.cat([before, ids], 1)
        number, mixed, found = ids, ids, []
        for n, count in enumerate(self.counts, start=2):
            earlier = line[:, len(self.tables) + 1 - n :][:, : ids.shape[1]]
            number, mixed = number * (self.vocab + 1) + earlier, (mixed * MIXING + earlier) * MIXING  # modulo 2^64
            mixed = mixed ^ (mixed >> 32)  # the upper bits know of all below them
            alone = (self.vocab + 1) ** n <= self.buckets
            found.append(number if alone else mixed % count)
        return found

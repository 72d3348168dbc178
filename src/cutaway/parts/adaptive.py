"""Adaptive tables: rare words get narrower vectors, and cost less to predict.

The vocabulary, sorted by frequency, is cut into clusters at `cutoffs`; the words of cluster i have vectors of width
W / div^i, and a matrix leads to the model's width D.

    AdaptiveTokens    x = P_i E_i[word]                              Baevski and Auli 2019 (arXiv:1809.10853), section 3
    AdaptiveSoftmax   log p(word) = log p(cluster) + log p(word | cluster)      Grave et al. 2017 (arXiv:1609.04309)

with p over the words of cluster 0 and the other clusters together = softmax([E_0; K] P_0ᵀ x + b), and within cluster i
softmax(E_i P_iᵀ x + b_i). One table of V × W numbers becomes Σ_i V_i·W/div^i. Training needs only the clusters of the
words that come next: `nll`; asking for all words costs the whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.axes import Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.embedding import Embedding
from cutaway.parts.head import LanguageHead


class AdaptiveTokens(nn.Module):
    """The tables E_i and what leads from each to the model's width.

    Args:
        vocab, width: V and D.
        table_width: W.
        cutoffs: where clusters end, in growing order; V ends the last.
        div: by how much each cluster's vectors are narrower than those before. 1 keeps all in one table, with one
            matrix where W is not D.
    """

    reads: ClassVar = ("projects",)  # its matrix, without calling it

    def __init__(self, vocab: int, width: int, table_width: int, cutoffs: Sequence[int], div: int) -> None:
        super().__init__()
        ends = [0, *cutoffs, vocab]
        if any(a >= b for a, b in pairwise(ends)):
            raise ConfigError(f"cutoffs {list(cutoffs)} are not places in growing order below the vocabulary, {vocab}")
        if table_width // div ** len(cutoffs) < 1:
            raise ConfigError(f"vectors of width {table_width} cannot be {div} times narrower {len(cutoffs)} times")
        self.clusters = list(pairwise(ends))  # the words of each, from and to
        self.num_embeddings, self.embedding_dim, self.div = vocab, table_width, div
        counted = enumerate(self.clusters)
        self.shapes = [(vocab, table_width)] if div == 1 else [(b - a, table_width // div**i) for i, (a, b) in counted]
        self.tables = nn.ModuleList(nn.Embedding(*shape) for shape in self.shapes)
        lead = div != 1 or table_width != width
        self.projects = nn.ModuleList(nn.Linear(narrow, width, bias=False) for _, narrow in self.shapes if lead)

    @property
    def weight(self) -> Tensor:
        """The table of the most frequent words."""
        return self.tables[0].weight  # type: ignore[return-value]

    def forward(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        if self.div == 1:
            x = self.tables[0](ids)
            return self.projects[0](x) if self.projects else x
        x = self.weight.new_zeros((*ids.shape, self.projects[0].out_features))  # type: ignore[arg-type]
        for i, (first, end) in enumerate(self.clusters):
            here = (ids >= first) & (ids < end)
            x = x.index_put((here,), self.projects[i](self.tables[i](ids[here] - first)))
        return x


class AdaptiveEmbedding(Embedding):
    """`Embedding` over adaptive tables."""

    def __init__(self, tokens: AdaptiveTokens, width: int, *, scale: float, steps: Sequence[nn.Module] = ()) -> None:
        nn.Module.__init__(self)
        self.tokens = tokens  # type: ignore[assignment]
        self.steps, self.project = nn.ModuleList(steps), None
        self.scale, self.width = scale, width


class AdaptiveSoftmax(LanguageHead):
    """Log-probabilities (B, T, V): whoever takes them for logits gets the same probabilities.

    Args:
        tokens: the tables of the embedding, whose shape these have.
        tied: whether they are the same tables.
        shared_projects: whether the matrices are too, but the first, which the head always has for itself.
    """

    reads: ClassVar = ("projects",)  # its matrix, without calling it

    def __init__(self, tokens: AdaptiveTokens, width: int, *, tied: bool, shared_projects: bool) -> None:
        nn.Module.__init__(self)
        self.clusters, self.div, self.transform, self.softcap = tokens.clusters, tokens.div, None, None
        self.tables = tokens.tables if tied else nn.ModuleList(nn.Embedding(*shape) for shape in tokens.shapes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(words)) for words, _ in tokens.shapes)
        theirs, widths = list(tokens.projects), [narrow for _, narrow in tokens.shapes]
        if tokens.div == 1:  # of one table, but each cluster has a matrix
            theirs, widths = theirs * len(self.clusters), widths * len(self.clusters)
        own = [nn.Linear(narrow, width, bias=False) for narrow in widths if theirs]
        self.projects = nn.ModuleList([*own[:1], *theirs[1:]] if shared_projects else own)
        count = len(self.clusters) - 1
        self.cluster = nn.Linear(tokens.embedding_dim, count) if count else None

    def _logits(self, x: Float[Tensor, "*n d"], i: int) -> Float[Tensor, "*n c"]:
        """Of the words of cluster i; of the first with the other clusters behind them."""
        first, end = self.clusters[i]
        if self.div == 1:
            weight, bias = self.tables[0].weight[first:end], self.biases[0][first:end]  # type: ignore[index]
        else:
            weight, bias = self.tables[i].weight, self.biases[i]
        x = torch.matmul(x, self.projects[i].weight) if self.projects else x  # type: ignore[arg-type]
        logits = F.linear(x, weight, bias)  # type: ignore[arg-type]
        return logits if i or self.cluster is None else torch.cat([logits, self.cluster(x)], -1)

    def forward(self, x: Float[Tensor, "b t d"], ctx: object = None) -> Float[Tensor, "b t v"]:
        head = self._logits(x, 0).log_softmax(-1)
        words = self.clusters[0][1]
        tails = [
            head[..., words + i - 1, None] + self._logits(x, i).log_softmax(-1) for i in range(1, len(self.clusters))
        ]
        return torch.cat([head[..., :words], *tails], -1)

    def nll(self, x: Float[Tensor, "b t d"], targets: Int[Tensor, "b t"]) -> Float[Tensor, "b t"]:
        """-log p(target), asking only for the clusters the targets are of."""
        head, words = self._logits(x, 0).log_softmax(-1), self.clusters[0][1]
        ends = torch.tensor([end for _, end in self.clusters], device=targets.device)
        cluster = torch.bucketize(targets, ends, right=True)
        column = torch.where(cluster == 0, targets, words + cluster - 1)
        found = head.gather(-1, column[..., None])[..., 0]
        for i in range(1, len(self.clusters)):
            here, first = cluster == i, self.clusters[i][0]
            within = self._logits(x[here], i).log_softmax(-1).gather(-1, targets[here][:, None] - first)[:, 0]
            found = found.index_put((here,), within, accumulate=True)
        return -found

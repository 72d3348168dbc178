"""What stands on top of the last layer, for each task: states (B, T, D) in, the task's numbers out.

    LanguageHead    (B, T, V)   language modelling; masked too, with a transform before the projection
    TokenHead       (B, T, C)   a class a token; with two classes, start and end of an answer (extractive QA)
    SequenceHead    (B, C)      a class a sequence, read off a pooled vector
    EmbeddingHead   (B, D)      the pooled vector itself, for search and similarity

Pools make one vector of a sequence: `First` ([CLS]), `Last`, `Mean`, and BERT's `Pooler`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.axes import Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.feedforward import activation
from cutaway.parts.norm import LayerNorm


class LanguageHead(nn.Module):
    """scale · x Wᵀ + b over the vocabulary. `tied` shares W with the token embedding (Press and Wolf 2017)."""

    def __init__(
        self,
        width: int,
        vocab: int,
        *,
        tied: nn.Embedding | None = None,
        bias: bool = False,
        scale: float = 1.0,
        transform: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.transform = transform
        # the module is shared, not its tensor, so that the two stay one however the weights are replaced
        self.tokens = nn.Linear(width, vocab, bias=False) if tied is None else tied
        self.bias = nn.Parameter(torch.zeros(vocab)) if bias else None
        self.scale = scale

    def forward(self, x: Float[Tensor, "b t d"], ctx: object = None) -> Float[Tensor, "b t v"]:
        if self.transform is not None:
            x = self.transform(x)
        if self.scale != 1.0:
            x = x * self.scale
        return F.linear(x, self.tokens.weight, self.bias)


class MaskedTransform(nn.Module):
    """norm(act(W x + b)) before the masked-language projection (Devlin et al. 2019, published code)."""

    def __init__(self, width: int, act: str, eps: float) -> None:
        super().__init__()
        self.dense, self.norm, self.act = nn.Linear(width, width), LayerNorm(width, eps), activation(act)

    def forward(self, x: Float[Tensor, "b t d"], ctx: object = None) -> Float[Tensor, "b t d"]:
        return self.norm(self.act(self.dense(x)))


class TokenHead(nn.Module):
    """W x + b for every token."""

    def __init__(self, width: int, labels: int, *, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        self.out, self.dropout = nn.Linear(width, labels, bias=bias), nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b t d"], ctx: object = None) -> Float[Tensor, "b t c"]:
        return self.out(self.dropout(x))


class SequenceHead(nn.Module):
    """W pool(x) + b."""

    def __init__(self, pool: nn.Module, width: int, labels: int, *, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        self.pool, self.out = pool, nn.Linear(width, labels, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b c"]:
        return self.out(self.dropout(self.pool(x, ctx)))


class EmbeddingHead(nn.Module):
    """pool(x), of length 1 where `normalise` (Reimers and Gurevych 2019)."""

    def __init__(self, pool: nn.Module, normalise: bool = True) -> None:
        super().__init__()
        self.pool, self.normalise = pool, normalise

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b d"]:
        pooled = self.pool(x, ctx)
        return F.normalize(pooled, dim=-1) if self.normalise else pooled


def pick(x: Float[Tensor, "b t d"], column: Int[Tensor, "#b"]) -> Float[Tensor, "b d"]:
    """One token a row."""
    return x[torch.arange(x.shape[0], device=x.device), column.expand(x.shape[0])]


def last_column(ctx: Context) -> Int[Tensor, "#b"]:
    """The column of each row's last real token, whichever side the padding is on."""
    return ctx.pos.argmax(1)


class First(nn.Module):
    """The first real token, where BERT puts [CLS]."""

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b d"]:
        return pick(x, (ctx.pos >= 0).int().argmax(1))


class Last(nn.Module):
    """The last real token, which in a decoder has seen all others."""

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b d"]:
        return pick(x, last_column(ctx))


class Mean(nn.Module):
    """The mean of the real tokens; zero where there is none."""

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b d"]:
        real = (ctx.pos >= 0)[..., None].to(x.dtype).expand(x.shape[0], -1, 1)
        return (x * real).sum(1) / real.sum(1).clamp(min=1)


class Pooler(nn.Module):
    """tanh(W x + b) of the first token (Devlin et al. 2019, published code)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.dense = First(), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b d"]:
        return torch.tanh(self.dense(self.first(x, ctx)))


def decoder_head(name: str, tokens: nn.Embedding, labels: int, *, tied: bool, dropout: float = 0.0) -> nn.Module | None:
    """The head of a decoder above the embedding `tokens`, for each task it is published with."""
    vocab, width = tokens.weight.shape
    heads = {
        "lm": lambda: LanguageHead(width, vocab, tied=tokens if tied else None),
        "sequence": lambda: SequenceHead(Last(), width, labels, bias=False),
        "token": lambda: TokenHead(width, labels, dropout=dropout),
        "none": lambda: None,
    }
    return choose_head(name, heads)


def choose_head(name: str, heads: Mapping[str, Callable[[], nn.Module | None]]) -> nn.Module | None:
    """The head of that name, built.

    Raises:
        ConfigError: the family has no such head.
    """
    if name not in heads:
        raise ConfigError(f"this family has no head {name!r}; it has {', '.join(heads)}")
    return heads[name]()

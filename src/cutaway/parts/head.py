"""What stands on top of the last layer, for each task: states (B, T, D) in, the task's numbers out.

    LanguageHead    (B, T, V)   language modelling; masked too, with a transform before the projection
    TokenHead       (B, T, C)   a class a token; with two classes, start and end of an answer (extractive QA)
    SequenceHead    (B, C)      a class a sequence, read off a pooled vector
    EmbeddingHead   (B, D)      the pooled vector itself, for search and similarity
    DetectionHead   (B, T)      whether a token was replaced (ELECTRA)

`decoder_head` and `encoder_head` choose among those that such models are published with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.axes import Float
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.feedforward import activation
from cutaway.parts.norm import LayerNorm
from cutaway.parts.pool import First, Last, Mean


class LanguageHead(nn.Module):
    """scale · x Wᵀ + b over the vocabulary. `tied` shares W with the token embedding (Press and Wolf 2017).

    `softcap` is c in c·tanh(logits / c), which keeps them between -c and c (Gemma 2, section 2).
    """

    reads: ClassVar = ("tokens",)  # its matrix, without calling it

    def __init__(
        self,
        width: int,
        vocab: int,
        *,
        tied: nn.Embedding | None = None,
        bias: bool = False,
        scale: float = 1.0,
        softcap: float | None = None,
        transform: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.transform = transform
        # the module is shared, not its tensor, so that the two stay one however the weights are replaced
        self.tokens = nn.Linear(width, vocab, bias=False) if tied is None else tied
        self.bias = nn.Parameter(torch.zeros(vocab)) if bias else None
        self.scale, self.softcap = scale, softcap

    def forward(self, x: Float[Tensor, "b t d"], ctx: object = None) -> Float[Tensor, "b t v"]:
        if self.transform is not None:
            x = self.transform(x)
        if self.scale != 1.0:
            x = x * self.scale
        logits = F.linear(x, self.tokens.weight, self.bias)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


class MaskedTransform(nn.Module):
    """norm(act(W x + b)) before the masked-language projection (Devlin et al. 2019, published code).

    `out` is the width of what it gives: that of the tables where they are narrower than the layers (ALBERT, ELECTRA).
    """

    def __init__(
        self, width: int, act: str, eps: float, *, out: int | None = None, bias: bool = True, norm_bias: bool = True
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(width, out or width, bias=bias)
        self.norm, self.act = LayerNorm(out or width, eps, norm_bias), activation(act)

    def forward(self, x: Float[Tensor, "... d"], ctx: object = None) -> Float[Tensor, "... e"]:
        return self.norm(self.act(self.dense(x)))


class TokenHead(nn.Module):
    """W x + b for every token; of transform(x) where there is a `transform`."""

    def __init__(
        self, width: int, labels: int, *, dropout: float = 0.0, bias: bool = True, transform: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.transform = transform
        self.out, self.dropout = nn.Linear(width, labels, bias=bias), nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b t d"], ctx: object = None) -> Float[Tensor, "b t c"]:
        return self.out(self.dropout(x if self.transform is None else self.transform(x)))


class DetectionHead(nn.Module):
    """wᵀ act(W x + b) + c for every token: the logit that it was replaced (Clark et al. 2020, section 2)."""

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.dense, self.out, self.act = nn.Linear(width, width), nn.Linear(width, 1), activation(act)

    def forward(self, x: Float[Tensor, "b t d"], ctx: object = None) -> Float[Tensor, "b t"]:
        return self.out(self.act(self.dense(x))).squeeze(-1)


class SequenceHead(nn.Module):
    """W pool(x) + b; of transform(pool(x)) where there is a `transform`."""

    keeps_documents = False

    def __init__(
        self,
        pool: nn.Module,
        width: int,
        labels: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        transform: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.pool, self.transform, self.out = pool, transform, nn.Linear(width, labels, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b c"]:
        pooled = self.pool(x, ctx)
        return self.out(self.dropout(pooled if self.transform is None else self.transform(pooled)))


class EmbeddingHead(nn.Module):
    """pool(x), of length 1 where `normalise` (Reimers and Gurevych 2019)."""

    keeps_documents = False

    def __init__(self, pool: nn.Module, normalise: bool = True) -> None:
        super().__init__()
        self.pool, self.normalise = pool, normalise

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b d"]:
        pooled = self.pool(x, ctx)
        return F.normalize(pooled, dim=-1) if self.normalise else pooled


def decoder_head(
    name: str, tokens: nn.Embedding, labels: int, *, tied: bool, dropout: float = 0.0, softcap: float | None = None
) -> nn.Module | None:
    """The head of a decoder above the embedding `tokens`, for each task it is published with."""
    vocab, width = tokens.weight.shape
    heads = {
        "lm": lambda: LanguageHead(width, vocab, tied=tokens if tied else None, softcap=softcap),
        "sequence": lambda: SequenceHead(Last(), width, labels, bias=False),
        "token": lambda: TokenHead(width, labels, dropout=dropout),
        "none": lambda: None,
    }
    return choose_head(name, heads)


def encoder_head(
    name: str,
    tokens: nn.Embedding,
    width: int,
    labels: int,
    *,
    tied: bool,
    transform: Callable[[], nn.Module],
    pool: Callable[[], nn.Module],
    bias: bool = True,
    dropout: float = 0.0,
    normalise: bool = True,
    **others: Callable[[], nn.Module | None],
) -> nn.Module | None:
    """The head of an encoder of this `width` above the embedding `tokens`, for each task it is published with.

    Args:
        transform: made before the masked-language projection, whose `bias` it has.
        pool: made for classes of sequences.
        others: further heads, or other ones, by name.
    """
    vocab, narrow = tokens.weight.shape
    head = {"tied": tokens if tied else None, "bias": bias}
    heads: dict[str, Callable[[], nn.Module | None]] = {
        "none": lambda: None,
        "masked-lm": lambda: LanguageHead(narrow, vocab, **head, transform=transform()),
        "sequence": lambda: SequenceHead(pool(), width, labels, dropout=dropout),
        "token": lambda: TokenHead(width, labels, dropout=dropout),
        "span": lambda: TokenHead(width, 2),
        "mean": lambda: EmbeddingHead(Mean(), normalise),
        "cls": lambda: EmbeddingHead(First(), normalise),
    }
    return choose_head(name, {**heads, **others})


def choose_head(name: str, heads: Mapping[str, Callable[[], nn.Module | None]]) -> nn.Module | None:
    """The head of that name, built.

    Raises:
        ConfigError: the family has no such head.
    """
    if name not in heads:
        raise ConfigError(f"this family has no head {name!r}; it has {', '.join(heads)}")
    return heads[name]()

"""What passes between data, objectives and the loop: token ids, what is asked of a model about them, and the answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from cutaway.axes import Bool, Float, Int

IGNORED = -100  # a target where nothing is asked


@dataclass(frozen=True)
class Rows:
    """Texts as token ids, as they are: no objective has touched them. None of the rest says: all are alike."""

    ids: Int[Tensor, "b t"]
    padding: Bool[Tensor, "b t"] | None = None  # True on real tokens
    positions: Int[Tensor, "b t"] | None = None
    documents: Int[Tensor, "b t"] | None = None  # which text each token is of, where several share a row
    segments: Int[Tensor, "b t"] | None = None  # sentence A (0) or B (1), for models that tell them apart


@dataclass(frozen=True)
class Pairs:
    """Texts, and the text that is to be written for each of them."""

    source: Rows
    target: Rows


@dataclass(frozen=True)
class Labelled:
    """Texts, and what is asked about each: a class (B,), the ends of an answer (B, 2), or something of each token (B, T).

    IGNORED where nothing is asked.
    """

    rows: Rows
    labels: Int[Tensor, "b *_"]


@dataclass(frozen=True)
class Batch:
    """What one forward pass gets and what should come out.

    Attributes:
        inputs: keyword arguments of the model.
        targets: what should come out; IGNORED where nothing is asked.
        tokens: how many real tokens the model reads: what tokens per second count.
        given: what else the loss needs, such as random numbers drawn with the batch.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    tokens: int
    given: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """A sum, so that accumulation and ranks can weight by what was asked: divide by the count of the WHOLE step.

    Attributes:
        total: the sum over what is asked, float32, with its gradient.
        count: how much was asked.
        extra: further sums to report; each is divided by `count` too.
    """

    total: Float[Tensor, ""]
    count: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

"""Look inside without changing anything.

While `recording()` is on, every attention site leaves its *inputs* here; the pattern (Q × K numbers a head) is
computed by the definition when somebody looks at it. So the model runs the same kernels and gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from cutaway.attention.scores import Scores, weights
from cutaway.axes import Float, Int


@dataclass(frozen=True)
class Recorded:
    """What went into one attention site in one forward."""

    site: str
    kind: Literal["self", "cross"]
    scores: Scores
    v: Tensor  # (B, G, K, E)

    def weights(self) -> Float[Tensor, "b h q k"]:
        """The pattern this site used, by the definition of attention."""
        with torch.no_grad():
            return weights(self.scores)

    @property
    def heads(self) -> int:
        return self.scores.q.shape[1]

    @property
    def q_pos(self) -> Int[Tensor, "#b q"]:
        return self.scores.q_pos

    @property
    def k_pos(self) -> Int[Tensor, "#b k"]:
        return self.scores.k_pos


@dataclass(frozen=True)
class Implied:
    """A site that mixes tokens without a softmax, and the pattern its computation comes to: weights() · v = its output.

    Linear attention and Performer divide by a sum, so their rows sum to 1; of an SSM or a Synthesizer's mixture the
    numbers may be negative. `heads` may be channels (an SSM has a pattern in each).
    """

    site: str
    kind: Literal["self", "cross"]
    pattern: Callable[[], Float[Tensor, "b h q k"]] = field(repr=False)
    v: Tensor = field(repr=False)  # (B, H, K, E): what the pattern mixes
    q_pos: Int[Tensor, "#b q"] = field(repr=False)
    k_pos: Int[Tensor, "#b k"] = field(repr=False)

    def weights(self) -> Float[Tensor, "b h q k"]:
        """The pattern, computed from the inputs that were kept."""
        with torch.no_grad():
            return self.pattern()

    @property
    def heads(self) -> int:
        return self.v.shape[1]


@dataclass
class Trace:
    """The recorded sites in the order in which they ran; `trace["blocks.3.attention"]` is the latest forward's."""

    records: list[Recorded | Implied] = field(default_factory=list)

    @property
    def sites(self) -> list[str]:
        return list(dict.fromkeys(record.site for record in self.records))

    def __getitem__(self, site: str) -> Recorded | Implied:
        for record in reversed(self.records):
            if record.site == site:
                return record
        raise KeyError(f"nothing was recorded at {site!r}; recorded: {', '.join(self.sites) or 'nothing'}")

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Recorded | Implied]:
        return iter(self.records)


_trace: ContextVar[Trace | None] = ContextVar("cutaway_trace", default=None)


@contextmanager
def recording() -> Iterator[Trace]:
    """Record every attention in this block: `with recording() as trace: model(ids)`.

    Compiled models run uncompiled meanwhile (a compiled graph would silently record nothing). Inputs that live
    in a cache are copied, since the cache goes on changing; everything else is kept as it is, detached.
    """
    trace = Trace()
    token = _trace.set(trace)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield trace
    finally:
        _trace.reset(token)


def listening() -> Trace | None:
    """The trace to add to: None unless somebody records, nor in a checkpointed recomputation."""
    if torch.compiler.is_compiling():
        return None
    trace = _trace.get()
    return None if trace is None or torch._C._current_graph_task_id() != -1 else trace  # -1: not inside a backward


def note(site: str, kind: Literal["self", "cross"], scores: Scores, v: Tensor, cached: bool) -> None:
    """Called at every attention site: keeps what determines its pattern, where somebody records."""
    trace = listening()
    if trace is None:
        return

    def keep(x: Tensor) -> Tensor:
        return x.detach().clone() if cached else x.detach()

    bias = None if scores.bias is None else scores.bias.detach()
    kept = replace(
        scores, q=scores.q.detach(), k=keep(scores.k), k_pos=keep(scores.k_pos), bias=bias, memo=dict(scores.memo)
    )
    trace.records.append(Recorded(site, kind, kept, keep(v)))

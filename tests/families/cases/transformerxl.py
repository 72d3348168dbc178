"""Transformer-XL against its equations in plain words: each pair's score by itself, no shift, memories of hidden states.

The reference library dropped it; `tests/families/test_transformerxl.py` asks an older one that still has it.
"""

import math
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from tests.families.case import Batch, Case
from tests.families.mutants import BIAS, EMBEDDING_SCALE, LAYER_EPSILON, NORM_ORDER, SCALE, each, setting
from torch import Tensor, nn

from cutaway.attention import Full
from cutaway.families import transformerxl
from cutaway.parts import Attention, State
from cutaway.parts.adaptive import AdaptiveSoftmax
from cutaway.parts.relative_shift import Distances, RelativeScores

TINY = {
    "vocab": 99, "width": 32, "layers": 3, "heads": 4, "head_width": 10, "hidden": 48, "table_width": 32,
    "cutoffs": (20, 50), "div": 2, "memory": 6, "clamp": 8, "same_length": True,
}  # fmt: skip
SHARPEN = 1.0
CASES = [
    Case("transformerxl", "memory of each segment", "equations", {"same_length": False}),
    Case("transformerxl", "as published", "equations"),
    Case("transformerxl", "no memory, no clamp", "equations", {"memory": None, "clamp": None, "same_length": False}),
    Case("transformerxl", "norms before", "equations", {"pre_norm": True}),
    Case("transformerxl", "biases of all layers", "equations", {"shared_biases": True}),
    Case("transformerxl", "one table", "equations", {"div": 1}),
    Case("transformerxl", "one narrow table", "equations", {"div": 1, "table_width": 16}),
    Case("transformerxl", "no clusters", "equations", {"cutoffs": (), "div": 1}),
    Case("transformerxl", "nothing shared", "equations", {"shared_projects": False, "tied": False}),
    Case("transformerxl", "body alone", "equations", {"head": "none"}),
]
SEGMENTS = (5, 1, 1, 4, 2)


class Plain(nn.Module):
    """One row, one segment after the other, in float64; from the model under test it has its weights alone."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, *segments: Tensor) -> Tensor:
        model: Any = deepcopy(self.ours).double()
        s = model.sizes
        memories = [torch.zeros(0, s.width, dtype=torch.float64) for _ in range(s.layers)]
        return torch.cat([self.head(model, s, self.segment(model, s, ids, memories)) for ids in segments])

    def segment(self, model: Any, s: Any, ids: Tensor, memories: list[Tensor]) -> Tensor:
        tokens, ends = model.stack.embedding.tokens, [0, *s.cutoffs, s.vocab]
        rows = []
        for word in ids.tolist():
            i = max(i for i in range(len(ends) - 1) if word >= ends[i])
            row = tokens.tables[0].weight[word] if s.div == 1 else tokens.tables[i].weight[word - ends[i]]
            if len(tokens.projects):
                row = tokens.projects[0 if s.div == 1 else i].weight @ row
            rows.append(row * math.sqrt(s.width))
        h = torch.stack(rows)
        for layer, block in enumerate(model.stack.blocks):
            known = torch.cat([memories[layer], h])
            memories[layer] = known if s.memory is None else known[-s.memory :]
            normed = [norm(block.attention.norm, x) if s.pre_norm else x for x in (h, known)]
            h = joined(s, block.attention.norm, h, self.attention(block.attention.inner, s, *normed))
            x = norm(block.feedforward.norm, h) if s.pre_norm else h
            up, down = block.feedforward.inner.up, block.feedforward.inner.down
            h = joined(s, block.feedforward.norm, h, (x @ up.weight.T + up.bias).relu() @ down.weight.T + down.bias)
        return h

    def attention(self, attention: Any, s: Any, h: Tensor, known: Tensor) -> Tensor:
        def heads(project: Any, x: Tensor) -> Tensor:
            return (x @ project.weight.T).view(len(x), s.heads, s.head_width)

        q, k, v, bias = (
            heads(attention.q, h),
            heads(attention.k, known),
            heads(attention.v, known),
            attention.score_bias,
        )
        before = len(known) - len(h)
        mixed = torch.zeros_like(q)
        for a in range(s.heads):
            for i in range(len(h)):
                oldest = max(0, before + i + 1 - s.memory) if s.same_length else 0
                scores = []
                for j in range(oldest, before + i + 1):
                    distance = before + i - j if s.clamp is None else min(before + i - j, s.clamp)
                    r = heads(bias.r, wave(distance, s.width)[None])[0, a]
                    scores.append((q[i, a] + bias.u[a]) @ k[j, a] + (q[i, a] + bias.v[a]) @ r)
                pattern = (torch.stack(scores) / math.sqrt(s.head_width)).softmax(0)
                mixed[i, a] = pattern @ v[oldest : before + i + 1, a]
        return mixed.flatten(1) @ attention.out.weight.T

    def head(self, model: Any, s: Any, h: Tensor) -> Tensor:
        if model.head is None:
            return h
        out, ends, logits = model.head, [0, *s.cutoffs, s.vocab], []
        for i, (first, end) in enumerate(pairwise(ends)):
            weight = out.tables[0].weight[first:end] if s.div == 1 else out.tables[i].weight
            bias = out.biases[0][first:end] if s.div == 1 else out.biases[i]
            x = h @ out.projects[i].weight if len(out.projects) else h
            logits.append(x @ weight.T + bias)
            if i == 0 and s.cutoffs:
                logits[0] = torch.cat([logits[0], x @ out.cluster.weight.T + out.cluster.bias], 1)
        first = logits[0].softmax(1)
        tails = [first[:, ends[1] + i, None] * logits[i + 1].softmax(1) for i in range(len(s.cutoffs))]
        return torch.cat([first[:, : ends[1]], *tails], 1).log()


def wave(distance: int, width: int) -> Tensor:
    angle = distance / 10_000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.cat([angle.sin(), angle.cos()])


def norm(part: Any, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + part.eps).sqrt() * part.weight + part.bias


def joined(s: Any, part: Any, x: Tensor, change: Tensor) -> Tensor:
    return x + change if s.pre_norm else norm(part, x + change)


def reference(case: Case) -> nn.Module:
    sizes = transformerxl.Sizes(**{**TINY, **case.config})
    ours = transformerxl.compose(sizes).eval()
    ours.sizes = sizes  # type: ignore[assignment]
    with torch.no_grad():
        for name, p in ours.named_parameters():
            normed = p.ndim == 1 and name.endswith("norm.weight")
            sharp, calm = (
                name.endswith((".q.weight", ".r.weight")),
                name.endswith((".v.weight", ".out.weight", "down.weight")),
            )
            p.normal_(1.0 if normed else 0.0, 0.1 if p.ndim == 1 or calm else 0.6 if sharp else 0.3)
    return Plain(ours)


def counterpart(theirs: Plain) -> nn.Module:
    return deepcopy(theirs.ours)


def outputs(case: Case, ours: Any, theirs: Plain, batch: Batch) -> tuple[Tensor, Tensor]:
    """In one pass and segment by segment, each row of the reference alone."""
    rows = [row[real] for row, real in zip(batch.ids, batch.real, strict=True)]
    found = [ours(batch.ids, batch.padding)[batch.real]]
    expected = [theirs(row) for row in rows]
    if batch.padding is None:
        state = State(len(rows), 64)
        pieces = batch.ids.split(SEGMENTS, 1) if batch.ids.shape[1] == sum(SEGMENTS) else [batch.ids]
        found.append(torch.cat([ours(piece, state=state) for piece in pieces], 1).flatten(0, 1))
        expected += [theirs(*(piece[i] for piece in pieces)) for i in range(len(rows))]
    return torch.cat(found), torch.cat(expected).float()


def _swapped(part: RelativeScores) -> None:
    part.u, part.v = part.v, part.u


def _shifted(part: Distances) -> None:
    rows = part.rows
    part.rows = lambda high, low, like: rows(high + 1, low + 1, like)


def _memory(change: Any) -> Any:
    def mutate(part: RelativeScores) -> None:
        assert part.memory is not None
        part.memory = change(part.memory)

    return each(RelativeScores, mutate)


def _next_cluster(head: AdaptiveSoftmax) -> None:
    assert head.cluster is not None
    head.cluster.weight.data = head.cluster.weight.data.roll(1, 0)


MUTANTS = {
    "scale": SCALE,
    "mask": each(Attention, setting("mask", lambda _: Full())),
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "norm before": NORM_ORDER,
    "scale of the embedding": EMBEDDING_SCALE,
    "u and v swapped": each(RelativeScores, _swapped),
    "shift off by one": each(Distances, _shifted),
    "clamp": each(Distances, setting("clamp", lambda clamp: clamp + 1)),
    "sines and cosines in turn": each(Distances, lambda part: setattr(part.waves, "halves", False)),
    "memory shorter by one": _memory(lambda memory: memory - 1),
    "no end of memory": _memory(lambda memory: memory + 1),
    "clusters in another order": each(AdaptiveSoftmax, _next_cluster),
}

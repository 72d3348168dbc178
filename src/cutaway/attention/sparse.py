"""Which sparse patterns have a fast way, and which: a mask is taken apart into bands and tables that share no pair.

    Window                       a band                                     O(T·w)
    Stride (also in a window)    a table: each column's tokens together     O(T·T/step), O(T·w/step)
    Local, Summary               tables: a block; all summaries             O(T·l), O(T·c·T/l)
    Blocks                       tables: each block's key blocks            O(T), where each has few
    Prefix, Leading, Marked      tables: global keys, global queries        O(T·g)

`&` restricts what a piece has, `|` adds pieces; what each of them makes of a row is merged by its log-sum:

    o = Σ_i o_i · exp(lse_i) / Σ_i exp(lse_i)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.attention.band import Band
from cutaway.attention.chunks import Chunks
from cutaway.attention.gathered import Table, gathered
from cutaway.attention.indices import Tables, blocks, columns, leading, local, strides
from cutaway.attention.masks import Both, Causal, Either, Full, Mask, Prefix, Window
from cutaway.attention.patterns import Blocks, Leading, Local, Marked, Not, PerHead, Stride, Summary
from cutaway.attention.windowed import windowed

if TYPE_CHECKING:
    from cutaway.attention.scores import Scores

# these ask neither which row nor which head
BY_POSITION = (Causal, Full, Window, Chunks, Stride, Local, Summary, Prefix, Leading)
SHORT = 256  # below, one dense product is as fast


def supports(scores: Scores) -> bool:
    """Whether the mask can be taken apart."""
    if not scores.own or scores.bias is not None or scores.documents is not None or torch.compiler.is_compiling():
        return False
    groups = scores.q.shape[1] // scores.k.shape[1]
    parts = _by_head(scores)
    return all(pieces(mask) is not None and heads % groups == 0 for mask, heads in parts)


def worthwhile(scores: Scores) -> bool:
    """Whether it is also faster than the dense pattern: has less than a third of its pairs."""
    tokens = scores.q.shape[2]
    if tokens < SHORT or not supports(scores):
        return False
    return all(
        sum(pairs(source, terms, tokens) for source, terms in pieces(mask) or ()) * 3 < tokens**2
        for mask, _ in _by_head(scores)
    )


def sparse(scores: Scores, v: Tensor, dropout: float) -> Tensor | None:
    """The mixed values (B, H, Q, E). None where positions are not those of consecutive tokens, which only a tensor tells."""
    q, k, pos, order = scores.q, scores.k, scores.q_pos, None
    if scores.packing == "any" and pos is not scores.k_pos and not torch.equal(pos, scores.k_pos):
        return None
    if scores.packing == "any":  # bring each row's tokens together, padding behind them
        order = pos.masked_fill(pos < 0, torch.iinfo(pos.dtype).max).argsort(dim=1, stable=True)
        pos = pos.gather(1, order)
        if not ((pos == torch.arange(pos.shape[1], device=pos.device)) | (pos < 0)).all():
            return None
        q, k, v = (_reordered(x, order) for x in (q, k, v))
    mixed, head, groups = [], 0, q.shape[1] // k.shape[1]
    for mask, heads in _by_head(scores):
        mine, shared = slice(head, head + heads), slice(head // groups, (head + heads) // groups)
        given, how = (q[:, mine], k[:, shared], v[:, shared]), (scores.scale, scores.softcap, dropout)
        found = [
            windowed(*given, piece, *how) if isinstance(piece, Band) else gathered(*given, piece, *how)
            for piece in _made(mask, scores, pos)
        ]
        mixed.append(_merged(found) if found else v.new_zeros(*q[:, mine].shape[:3], v.shape[-1]))
        head += heads
    out = mixed[0] if len(mixed) == 1 else torch.cat(mixed, 1)
    return out if order is None else _reordered(out, order.argsort(1))


def _by_head(scores: Scores) -> Sequence[tuple[Mask, int]]:
    if isinstance(scores.mask, PerHead):
        return list(zip(scores.mask.masks, scores.mask.heads, strict=True))
    return [(scores.mask, scores.q.shape[1])]


def pieces(mask: Mask) -> list[tuple[Mask, tuple[Mask, ...]]] | None:
    """The mask as a union of pieces that share no pair: what each is enumerated by, and all that its pairs must meet."""
    found = []
    for terms in _alternatives(mask):
        sources = [
            term for term in terms if isinstance(term, SOURCES) and all(_by_position(t) for t in terms if t is not term)
        ]
        if not sources:
            return None
        found.append((min(sources, key=lambda source: pairs(source, terms, 1 << 14)), terms))
    return found


def _alternatives(mask: Mask) -> list[tuple[Mask, ...]]:
    """`(a & b) | c` as [(a, b), (c, not (a & b))]: conjunctions of which no two allow the same pair."""
    if isinstance(mask, Both):
        return [(*a, *b) for a in _alternatives(mask.a) for b in _alternatives(mask.b)]
    if isinstance(mask, Either):
        a, b = (mask.a, mask.b) if _by_position(mask.a) else (mask.b, mask.a)
        return [*_alternatives(a), *((*terms, Not(a)) for terms in _alternatives(b))]
    return [(mask,)]


def _by_position(mask: Mask) -> bool:
    if isinstance(mask, (Both, Either)):
        return _by_position(mask.a) and _by_position(mask.b)
    return _by_position(mask.other) if isinstance(mask, Not) else isinstance(mask, BY_POSITION)


def _reach(terms: Sequence[Mask]) -> tuple[int | None, int | None]:
    """How many positions before and after its own a query may look at; None is all."""
    windows = [term.size - 1 for term in terms if isinstance(term, Window)]
    reach = min(windows, default=None)
    return reach, 0 if any(term.causal for term in terms) else reach


def pairs(source: Mask, terms: Sequence[Mask], tokens: int) -> int:
    """How many logits a head takes by that source."""
    before, after = (tokens if reach is None else min(reach, tokens) for reach in _reach(terms))
    match source:
        case Window():
            return tokens * (before + after + 1)
        case Stride():
            return tokens * min(-(-tokens // source.step), (before + after) // source.step + 1)
        case Local():
            return tokens * min(tokens, source.size)
        case Summary():
            return tokens * -(-tokens // source.size) * source.count
        case Prefix() | Leading():
            return tokens * min(tokens, source.size)
        case Marked():
            return tokens * source.most
        case Blocks():
            return source.most * source.size**2
    raise TypeError(source)


SOURCES = (Window, Stride, Local, Summary, Prefix, Leading, Marked, Blocks)


def _made(mask: Mask, scores: Scores, pos: Tensor) -> list[Band | Table]:
    """The mask's bands and tables, made once a forward."""
    key = ("pieces", mask)
    if key not in scores.memo:
        tokens = pos.shape[1]
        if scores.packing == "none" or mask.causal:  # padding stands behind, where causal queries do not look
            pos = torch.arange(tokens, device=pos.device)[None]
        alike = scores.packing == "none" or mask.causal
        found = pieces(mask)
        assert found is not None
        scores.memo[key] = [piece for source, terms in found for piece in _pieces(source, terms, pos, alike)]
    return scores.memo[key]


def _pieces(source: Mask, terms: tuple[Mask, ...], pos: Tensor, alike: bool) -> Iterator[Band | Table]:
    before, after = _reach(terms)
    rest = reduce(Mask.__and__, (term for term in terms if term is not source), Full())
    if isinstance(source, Window):
        assert before is not None
        assert after is not None
        block = 32 if before < 512 else 64
        before, after = (-(-min(reach, pos.shape[1]) // block) * block for reach in (before, after))
        even = alike and all(isinstance(term, (Causal, Window)) for term in terms)
        yield Band(source & rest, pos, block, before, after, even)
        return
    for rows, keys in _tables(source, before, after, pos):
        if keys.shape[-1]:
            yield Table(None if rest == Full() else rest, pos, rows, keys)


def _tables(source: Mask, before: int | None, after: int | None, pos: Tensor) -> list[Tables]:
    match source:
        case Stride():
            return [strides(source.step, before, after, pos)]
        case Local():
            return [local(source.size, pos)]
        case Summary() | Prefix():
            every = torch.arange(pos.shape[1], device=pos.device)[None, None]
            return [columns(source.allowed(every[..., None], every[:, :, None])[:, 0, 0], pos)]
        case Marked():
            return [columns(source.table[:, : pos.shape[1]], pos)]
        case Leading():
            return [leading(source.size, pos)]
        case Blocks():
            return blocks(source.layout, source.size, pos)
    raise TypeError(source)


def _merged(found: list[tuple[Tensor, Tensor]]) -> Tensor:
    if len(found) == 1:
        return found[0][0]
    shares = torch.stack([lse for _, lse in found]).softmax(0)  # (n, B, H, T, 1)
    return sum((o * share.to(o.dtype) for (o, _), share in zip(found, shares, strict=True)), start=torch.zeros(()))


def _reordered(x: Tensor, order: Tensor) -> Tensor:
    """Row i of each (B, H, T, E) is what row order[i] was."""
    return x.gather(2, order[:, None, :, None].expand_as(x))

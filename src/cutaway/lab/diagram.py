"""A picture of a model's composition, drawn from its modules: one SVG a stack, from the tokens at the bottom to the head."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from cutaway import parts
from cutaway.lab.anatomy import describe, looks
from cutaway.lab.drawing import ALONE, FED, Box, Canvas, Group, Sublayer
from cutaway.parts import Attention, EncoderDecoder, Model, Parallel, PostNorm, Sandwich, Stack
from cutaway.parts.ngrams import Beside

NORMS = (parts.LayerNorm, parts.RMSNorm, parts.StdNorm, parts.Narrow, parts.GatedNorm)
KINDS = 3  # of blocks that are drawn; where there are more, the first stands for all
ADDED = (parts.LearnedPositions, parts.SinusoidalPositions, parts.Segments, parts.AxialPositions)


def diagrams(model: Model | EncoderDecoder) -> dict[str, str]:
    """SVG by title: "model", or "encoder" and "decoder"."""
    if isinstance(model, EncoderDecoder):
        return {
            "encoder": _drawn(model.encoder, [], "encoder's states"),
            "decoder": _drawn(model.decoder, _top(model.head), "next tokens" if model.head else "states"),
        }
    heads = [*_top(model.head), *(_top(model.pooler) if model.head is None else [])]
    return {"model": _drawn(model.stack, heads, _out(model))}


def _out(model: Model) -> str:
    if model.head is None:
        return "states, pooled" if model.pooler is not None else "states"
    return "logits" if isinstance(model.head, parts.LanguageHead) else "output"


def _top(head: nn.Module | None) -> list[Box]:
    if head is None:
        return []
    title, lines = _told(head)
    return [Box(title, lines, "head")]


def _drawn(stack: Stack, above: list[Box], out: str) -> str:
    last = [] if stack.norm is None or isinstance(stack.norm, parts.Dropout) else [_norm(stack.norm)]
    groups = _groups(list(stack.blocks))
    fed = any(box.fed for group in groups for sublayer in group.sublayers for box in sublayer.boxes)
    canvas = Canvas(FED if fed else ALONE)
    canvas.text("token ids")
    for box in _embedding(stack.embedding):
        canvas.box(box)
    for group in groups:
        canvas.group(group)
    for box in [*last, *above]:
        canvas.box(box)
    canvas.text(out)
    return canvas.svg(f"From token ids to {out}")


def _embedding(embedding: Any) -> Iterator[Box]:
    scale = getattr(embedding, "scale", 1.0)
    lines = [f"{embedding.tokens.num_embeddings:,} vectors of {embedding.tokens.embedding_dim:,}"]
    if scale != 1.0:
        lines.append(f"times {scale:.4g}")
    yield Box("Embedding", tuple(lines), "table")
    for step in getattr(embedding, "steps", ()):
        if isinstance(step, parts.Dropout):
            continue
        if isinstance(step, NORMS):
            yield _norm(step)
        else:
            plus = "+ " if isinstance(step, ADDED) else ""
            yield Box(plus + describe(step), (), "table")
    project = getattr(embedding, "project", None)
    if project is not None:
        yield Box("Projection", (f"{project.in_features:,} to {project.out_features:,}",), "table")


def _groups(blocks: Sequence[nn.Module]) -> list[Group]:
    """What differs is drawn apart, in the order in which it comes first."""
    seen: dict[tuple[tuple[Sublayer, ...], bool, str], list[int]] = {}
    for i, block in enumerate(blocks):
        seen.setdefault((tuple(_sublayers(block)), isinstance(block, Parallel), _note(block)), []).append(i)
    shared = len({id(block) for block in blocks})
    sharing = "" if shared == len(blocks) else f", {'one set' if shared == 1 else f'{shared} sets'} of weights"
    if len(seen) > KINDS:
        first = next(iter(seen))
        return [Group(*first, f"× {len(blocks)}{sharing}; block 0 is drawn, others differ")]
    if len(seen) == 1:
        return [Group(*next(iter(seen)), f"× {len(blocks)}{sharing}")]
    return [Group(*kind, f"× {len(places)}: {_some(places)}{sharing}") for kind, places in seen.items()]


def _some(places: list[int]) -> str:
    return f"block{'s' if len(places) > 1 else ''} {', '.join(map(str, places[:3]))}{', …' if len(places) > 3 else ''}"


def _note(block: nn.Module) -> str:
    """What a block does to its sublayers, where it is more than one after the other."""
    if type(block) in (parts.Block, Parallel):
        return ""
    return (type(block).__doc__ or "").strip().split("\n")[0].replace("`", "")


def _sublayers(block: nn.Module) -> Iterator[Sublayer]:
    for name, sublayer in block.named_children():
        inner = getattr(sublayer, "inner", None)
        if not isinstance(inner, nn.Module):
            yield Sublayer((_inner(sublayer, name),), None)
            continue
        box = _inner(inner, name)
        if isinstance(block, Beside) and isinstance(sublayer, PostNorm) and sublayer is block.beside:
            yield Sublayer((_norm(sublayer.norm),), 0, box.title)
        elif isinstance(sublayer, Sandwich):
            yield Sublayer((_norm(sublayer.before), box, _norm(sublayer.after)), 3)
        elif isinstance(sublayer, PostNorm):
            yield Sublayer((box, _norm(sublayer.norm)), 1)
        elif isinstance(norm := getattr(sublayer, "norm", None), nn.Module):
            before = () if isinstance(norm, nn.Identity) else (_norm(norm),)
            yield Sublayer((*before, box), len(before) + 1)
        else:
            yield Sublayer((box,), None)


def _norm(norm: nn.Module) -> Box:
    return Box(type(getattr(norm, "norm", norm)).__name__, (), "norm")


def _inner(part: nn.Module, name: str) -> Box:
    if isinstance(part, (parts.FeedForward, parts.Gated)):
        return Box("Feed-forward", tuple(describe(part).split("; ")), "feedforward")
    if isinstance(part, Attention):
        return Box("Cross-attention" if part.cross else "Attention", tuple(_attention(part)), "mixer", part.cross)
    title, lines = _told(part)
    return Box(title, lines, "mixer", name == "cross")


def _attention(a: Attention) -> Iterator[str]:
    heads = f"{a.heads} head{'s' if a.heads > 1 else ''} of {a.head_width}"
    yield heads if a.kv_heads == a.heads else f"{heads}, {a.kv_heads} of keys and values"
    if not a.cross:
        yield looks(a.mask)
    for step in a.q_steps:
        part = isinstance(step, parts.Rotary) and step.width < a.head_width
        yield f"q, k: {describe(step)}" + (f" on {step.width} of {a.head_width}" if part else "")
    for step in a.v_steps:
        yield f"v: {describe(step)}"
    if a.score_bias is not None:
        yield f"scores + {describe(a.score_bias)}"
    if a.softcap is not None:
        yield f"scores capped softly at {a.softcap:g}"


def _told(part: nn.Module) -> tuple[str, tuple[str, ...]]:
    """A title and what else `describe` says."""
    title = spaced(type(part).__name__)
    said = describe(part)
    inside = re.search(r"\((.*)\)$", said)
    if type(part) is parts.LanguageHead:
        return title, tuple(re.split(r"; ", said.removeprefix("vocabulary; ")))
    return title, (inside[1],) if inside else ()


def spaced(name: str) -> str:
    """A class's name in words: LSHAttention is "LSH attention"."""
    words = re.findall(r"[A-Z]+(?=[A-Z][a-z]|$)|[A-Z][a-z]*\d*|[A-Z]+\d*", name)
    return " ".join(word if i == 0 or word.isupper() else word.lower() for i, word in enumerate(words)) or name

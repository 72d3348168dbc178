"""A picture of a model's composition, drawn from its modules: one SVG a stack, from the tokens at the bottom to the head.

Colours are laid over whatever is behind, and lines and letters have the colour of the text around, so that a picture
serves light and dark pages alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Any

from torch import nn

from cutaway import parts
from cutaway.lab.anatomy import describe, looks
from cutaway.parts import Attention, EncoderDecoder, Model, Parallel, PostNorm, Sandwich, Stack
from cutaway.parts.ngrams import Beside

BOX, RIGHT = 276, 34  # width of the column of boxes, and of what is right of it
ALONE, FED = 26, 66  # left of it; the second where an encoder's states come in there
LINE, PAD, GAP = 16, 7, 16  # height of a line of text, room inside a box, room between boxes
COLOURS = {"mixer": "#3b82f6", "feedforward": "#f59e0b", "norm": "#94a3b8", "table": "#10b981", "head": "#8b5cf6"}
NORMS = (parts.LayerNorm, parts.RMSNorm, parts.StdNorm, parts.Narrow, parts.GatedNorm)
KINDS = 3  # of blocks that are drawn; where there are more, the first stands for all
ADDED = (parts.LearnedPositions, parts.SinusoidalPositions, parts.Segments, parts.AxialPositions)


@dataclass(frozen=True)
class Box:
    title: str
    lines: tuple[str, ...]
    colour: str
    fed: bool = False  # by the encoder


@dataclass(frozen=True)
class Sublayer:
    """Boxes from below to above; a residual runs from below the first to before the one at `joined` (None: there is none).

    `beside` stands on a line that runs from below the whole block instead, in the residual's place.
    """

    boxes: tuple[Box, ...]
    joined: int | None
    beside: str = ""


@dataclass(frozen=True)
class Group:
    """Blocks alike: their sublayers, one above the other or side by side, and how many there are."""

    sublayers: tuple[Sublayer, ...]
    parallel: bool
    note: str
    label: str


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
    canvas = _Canvas(FED if fed else ALONE)
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


class _Canvas:
    """Draws from the bottom upwards: `y` is where the next thing begins, negative and falling."""

    def __init__(self, left: float) -> None:
        self.shapes: list[str] = []
        self.left = left
        self.y, self.top = 0.0, True  # top: nothing to draw an arrow from yet

    @property
    def middle(self) -> float:
        return self.left + BOX / 2

    def text(self, words: str) -> None:
        self._arrow(self.middle)
        self._words(self.middle, self.y - 4, words, "italic")
        self.y -= LINE + 2
        self.top = False

    def box(self, box: Box, x: float | None = None, wide: float = BOX) -> None:
        x = self.left if x is None else x
        self._arrow(x + wide / 2)
        lines = [line for each in box.lines for line in wrap(each, int(wide / 7.2))]
        title = wrap(box.title, int(wide / 8))
        tall = LINE * (len(title) + len(lines)) + 2 * PAD - 3
        self._rect(x, self.y - tall, wide, tall, COLOURS[box.colour], 0.18)
        y = self.y - tall + PAD + 9
        for i, line in enumerate([*title, *lines]):
            self._words(x + wide / 2, y + 2, line, "bold" if i < len(title) else "small")
            y += LINE
        if box.fed:
            at = self.y - tall / 2
            self._line([(4, at), (x - 2, at)], head=True)
            self._words(4, at - 18, "from the", "note", "start")
            self._words(4, at - 6, "encoder", "note", "start")
        self.y -= tall

    def group(self, group: Group) -> None:
        self._arrow(self.middle)
        bottom = self.y
        self._stem(self.middle, 8)
        note = wrap(group.note, 46)
        if group.parallel:
            self._side_by_side(group.sublayers)
        else:
            for sublayer in group.sublayers:
                self._sublayer(sublayer, bottom - 4)
        self._stem(self.middle, 12)
        for line in reversed(note):
            self._words(self.left + BOX / 2, self.y, line, "note")
            self.y -= LINE - 3
        self._words(self.left - 8, self.y, group.label, "bold", "start")
        if not note and len(group.label) < 20:
            self._line([(self.middle, self.y), (self.middle, self.y - LINE - 2)])
        self.y -= LINE + 2
        self._rect(self.left - 14, self.y, BOX + RIGHT + 12, bottom - self.y, None, 0, 10)
        self.top = False

    def _sublayer(self, sublayer: Sublayer, bottom: float) -> None:
        self._stem(self.middle, 10)
        start = bottom if sublayer.beside else self.y + 4
        self.top = False
        for i, box in enumerate(sublayer.boxes):
            if sublayer.joined == i:
                self._join(start, sublayer.beside)
            self.box(box)
        if sublayer.joined == len(sublayer.boxes):
            self._join(start)

    def _side_by_side(self, sublayers: Sequence[Sublayer]) -> None:
        self._stem(self.middle, 10)
        start = self.y + 4
        wide = (BOX - 12 * (len(sublayers) - 1)) / len(sublayers)
        base, highest = self.y, self.y
        ends = []
        for i, sublayer in enumerate(sublayers):
            x, self.y = self.left + i * (wide + 12), base
            self._line([(self.middle, base + 4), (x + wide / 2, base + 4), (x + wide / 2, base)])
            self.top = False
            for box in sublayer.boxes:
                self.box(box, x, wide)
            ends.append((x + wide / 2, self.y))
            highest = min(highest, self.y)
        self.y = highest - 6
        for x, y in ends:
            self._line([(x, y), (x, self.y), (self.middle, self.y)])
        self._join(start)

    def _join(self, start: float, beside: str = "") -> None:
        """⊕, where the residual that left the column at `start` comes back."""
        self._stem(self.middle, 8)
        centre, side = self.y - 8, self.left + BOX + (24 if beside else 12)
        if beside:
            at = (start + centre) / 2
            self.shapes.append(f'<g transform="rotate(-90 {side:g} {at:g})">')
            self._words(side, at - 3, beside, "small")
            self.shapes.append("</g>")
        self._line([(self.middle, start), (side, start), (side, centre), (self.middle + 9, centre)], head=True)
        self.shapes.append(
            f'<circle cx="{self.middle}" cy="{centre:g}" r="8" fill="none" stroke="currentColor"/>'
            f'<path d="M{self.middle - 5} {centre:g}h10M{self.middle} {centre - 5:g}v10" stroke="currentColor"/>'
        )
        self.y -= 16
        self.top = False

    def _stem(self, x: float, tall: float) -> None:
        self._line([(x, self.y), (x, self.y - tall)])
        self.y -= tall

    def _arrow(self, x: float) -> None:
        if self.shapes and not self.top:
            self._line([(x, self.y), (x, self.y - GAP + 1)], head=True)
            self.y -= GAP
        self.top = False

    def _line(self, points: list[tuple[float, float]], head: bool = False) -> None:
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
        self.shapes.append(f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity=".75"/>')
        if head:
            (x0, y0), (x, y) = points[-2:]
            across, up = (4, 0) if x == x0 else (0, 4)
            back_x = 0 if x == x0 else (6 if x0 > x else -6)
            back_y = 0 if y == y0 else (6 if y0 > y else -6)
            a, b = (x + back_x + across, y + back_y + up), (x + back_x - across, y + back_y - up)
            corners = f"{x:g},{y:g} {a[0]:g},{a[1]:g} {b[0]:g},{b[1]:g}"
            self.shapes.append(f'<polygon points="{corners}" fill="currentColor"/>')

    def _rect(
        self, x: float, y: float, wide: float, tall: float, colour: str | None, fill: float, r: float = 5
    ) -> None:
        paint = (
            f'fill="{colour}" fill-opacity="{fill}" stroke="{colour}"'
            if colour
            else 'fill="none" stroke="currentColor"'
        )
        dashed = "" if colour else ' stroke-opacity=".5" stroke-dasharray="4 3"'
        self.shapes.append(f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{tall:g}" rx="{r:g}" {paint}{dashed}/>')

    def _words(self, x: float, y: float, words: str, style: str, anchor: str = "middle") -> None:
        styles = {
            "bold": 'font-size="13.5" font-weight="600"', "small": 'font-size="12.5"', "note": 'font-size="11"',
            "italic": 'font-size="13" font-style="italic"',
        }  # fmt: skip
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="currentColor" {styles[style]}>{escape(words)}</text>'
        )

    def svg(self, title: str) -> str:
        top, wide = self.y - 6, self.left + BOX + RIGHT
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {top:g} {wide:g} {16 - top:g}" role="img" '
            f'style="width:100%;max-width:{wide:g}px" font-family="inherit"><title>{escape(title)}</title>'
            + "".join(self.shapes)
            + "</svg>"
        )

"""Boxes, arrows and residuals as SVG, from the bottom upwards: what `diagram` draws models with.

Colours are laid over whatever is behind, and lines and letters have the colour of the text around, so that a picture
serves light and dark pages alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap

BOX, RIGHT = 276, 34  # width of the column of boxes, and of what is right of it
ALONE, FED = 26, 66  # left of it; the second where an encoder's states come in there
LINE, PAD, GAP = 16, 7, 16  # height of a line of text, room inside a box, room between boxes
COLOURS = {"mixer": "#3b82f6", "feedforward": "#f59e0b", "norm": "#94a3b8", "table": "#10b981", "head": "#8b5cf6"}


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


class Canvas:
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

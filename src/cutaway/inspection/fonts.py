"""Fonts for static pictures: for each character one that has it, or else the character spelled out, never a warning.

The page needs none of this: browsers choose fonts themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from cutaway.inspection.labels import escape

BASE = "DejaVu Sans"  # comes with matplotlib


@cache
def _coverage(path: str, face: int) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path, face_index=face)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()  # colour emoji are bitmaps
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@cache
def _family(character: str) -> str | None:
    """The family that draws this character: the base, else the plainest sans serif one that is installed."""
    from matplotlib.font_manager import findfont, fontManager

    if ord(character) in _coverage(findfont(BASE), 0):
        return BASE
    plain = [font for font in fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal")]
    plain.sort(key=lambda font: ("sans" not in font.name.lower(), "mono" in font.name.lower(), font.name))
    for font in plain:
        if ord(character) in _coverage(font.fname, font.index):
            return font.name
    return None


def typeset(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """The texts with undrawable characters as escapes such as `\\u4e2d`, and the families that draw them together."""
    families: dict[str, None] = {BASE: None}
    drawn = []
    for text in texts:
        pieces = []
        for character in text:
            family = _family(character)
            if family is not None:
                families[family] = None
            pieces.append(character if family is not None else escape(character))
        drawn.append("".join(pieces))
    return drawn, list(families)

"""Tokens as a reader can see them: nothing invisible, nothing that could be taken for markup.

A token may be a newline, half an emoji, a control character or an instruction to write from right to left. In a picture
each must be visible and take the place of exactly one token, so what has no picture of its own is spelled out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from cutaway.inspection.errors import PictureError

SPACE, BLANK, ELLIPSIS, DOTTED_CIRCLE, JOINER = "·", "␣", "…", "◌", "\u200d"
_NAMED = {"\n": "⏎", "\t": "⇥", "\r": "␍", " ": SPACE, "\x7f": "␡"}
# Format, surrogate, private use, unassigned, other control characters, line and paragraph separators, odd spaces.
_HIDDEN = {"Cf", "Cs", "Co", "Cn", "Cc", "Zl", "Zp", "Zs"}


def escape(character: str) -> str:
    """The character as Python would write it: `\\u200b`, `\\U0001f600`."""
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(token: str) -> str:
    """One token with every invisible character made visible: `" the\\n"` becomes `"·the⏎"`, `"   "` becomes `"␣␣␣"`.

    Control characters become their Unicode pictures (NUL is `␀`), other invisible ones escapes such as `\\u202e`;
    a combining mark that starts a token stands on a dotted circle; the empty token is shown as `∅`.
    """
    if not token:
        return "∅"
    if not token.strip(" "):
        return BLANK * len(token) if len(token) <= 4 else f"{BLANK}×{len(token)}"
    shown = []
    for position, character in enumerate(token):
        if character in _NAMED:
            shown.append(_NAMED[character])
        elif character < " ":
            shown.append(chr(0x2400 + ord(character)))
        elif character == JOINER and 0 < position < len(token) - 1:
            shown.append(character)  # holds an emoji or a ligature together
        elif unicodedata.category(character) in _HIDDEN:
            shown.append(escape(character))
        else:
            shown.append(character)
    if unicodedata.category(token[0]).startswith("M"):
        shown.insert(0, DOTTED_CIRCLE)
    return "".join(shown)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the last of them `…` if something was cut; never cut inside a composed character."""
    if len(text) <= limit:
        return text
    cut = limit - 1
    while cut > 1 and (unicodedata.category(text[cut]).startswith("M") or JOINER in text[cut - 1 : cut + 1]):
        cut -= 1
    return text[:cut] + ELLIPSIS


def labels(tokens: Iterable[object] | None, count: int, axis: str, shape: Sequence[int]) -> list[str]:
    """Visible labels for the `count` tokens of one axis; without tokens, their positions from 0.

    Raises:
        PictureError: the number of tokens is not the length of the axis, or a token is no string.
    """
    if tokens is None:
        return [str(position) for position in range(count)]
    if isinstance(tokens, (str, bytes)):
        raise PictureError(f"{axis} tokens are one {type(tokens).__name__}; give a list with one string per token")
    tokens = list(tokens)
    if len(tokens) != count:
        raise PictureError(
            f"{len(tokens)} {axis} tokens do not fit weights of shape {tuple(shape)}: that axis has {count}"
        )
    for token in tokens:
        if not isinstance(token, str):
            raise PictureError(f"{axis} tokens must be strings, not {type(token).__name__}: decode the ids first")
    return [visible(token) for token in tokens if isinstance(token, str)]

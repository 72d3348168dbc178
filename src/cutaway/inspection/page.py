"""The interactive page: our own style and script, inlined, so that one file works anywhere, offline.

Everything a user or a model can put into a page (tokens, titles) goes in as JSON in which no character can end a script,
and the script shows it as text, never as markup. A page's policy forbids every connection.
"""

from __future__ import annotations

import html
import json
import secrets
from functools import cache
from importlib.resources import files
from typing import Any

from cutaway.inspection.palette import HEADS, PAPER, diverging, sequential

SCRIPTS = ("base.js", "attention.js", "heatmaps.js", "headview.js", "panels.js", "app.js")
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


@cache
def _asset(name: str) -> str:
    return (files("cutaway.inspection") / "assets" / name).read_text(encoding="utf-8")


def safe_json(data: Any) -> str:
    """JSON that can stand inside a script element: ASCII, and without `<`, `>` and `&`."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(text: str) -> str:
    """Text that can be written as UTF-8: half surrogate pairs spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _mounted(identity: str, title: str, content: dict[str, Any], page: bool) -> str:
    data = {
        "title": title,
        "page": page,
        "headColours": HEADS,
        "ramps": {
            "sequential": {"light": sequential("light"), "dark": sequential("dark")},
            "diverging": {"light": diverging("light"), "dark": diverging("dark")},
        },
        "style": _asset("style.css"),
        **content,
    }
    script = "\n".join(_asset(name) for name in SCRIPTS)
    fallback = html.escape(f"{_plain(title)} (an interactive picture: it needs scripts, in a notebook a trusted one)")
    return (
        f'<div id="{identity}"><p>{fallback}</p></div>\n'
        f'<script>(() => {{ "use strict";\n{script}\nmount("{identity}", {safe_json(data)});\n}})();</script>\n'
    )


def fragment(title: str, content: dict[str, Any]) -> str:
    """The picture for a notebook's cell: a name of its own each time, styles and script shut in."""
    return _mounted(f"cutaway-{secrets.token_hex(8)}", title, content, page=False)


def document(title: str, content: dict[str, Any]) -> str:
    """The picture as a whole page; the same picture gives the same bytes."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{html.escape(_plain(title))}</title>\n"
        "<style>:root { color-scheme: light dark; } "
        f"body {{ margin: 0; background: light-dark({PAPER['light']}, {PAPER['dark']}); }}</style>\n"
        f"</head>\n<body>\n<main>\n{_mounted('cutaway-page', title, content, page=True)}</main>\n</body>\n</html>\n"
    )

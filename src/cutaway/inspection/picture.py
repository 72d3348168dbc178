"""A picture: a static figure and an interactive page of the same numbers, saved or shown as whichever is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.inspection.errors import PictureError
from cutaway.inspection.palette import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".html")


@dataclass(frozen=True)
class Picture:
    """What the functions of this package return. In a notebook it shows itself; `save` writes a file.

    Nothing is drawn before it is asked for: `draw` makes the static figure, `content` what the page shows.
    """

    title: str
    draw: Callable[[Theme], Figure] = field(repr=False)
    content: Callable[[], dict[str, Any]] = field(repr=False)

    @cached_property
    def figure(self) -> Figure:
        """The matplotlib figure (light), for those who want to go on drawing."""
        return self.draw("light")

    def html(self) -> str:
        """The whole page: one file that needs no network and no other file."""
        from cutaway.inspection.page import document

        return document(self.title, self.content())

    def save(self, path: str | Path, *, theme: Theme = "light", dpi: int = 160) -> Path:
        """Write a `.png`, `.svg` or `.html` file and return its path. The page follows the reader's theme by itself.

        Raises:
            PictureError: another suffix, or a folder that does not exist.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise PictureError(f"cannot save a picture as {path.name!r}: end the name in .png, .svg or .html")
        if theme not in ("light", "dark"):
            raise PictureError(f"there is no theme {theme!r}: choose 'light' or 'dark'")
        if not path.parent.is_dir():
            raise PictureError(f"there is no folder {path.parent}: create it first")
        if suffix == ".html":
            path.write_text(self.html(), encoding="utf-8")
        else:
            from cutaway.inspection.static import write

            write(self.figure if theme == "light" else self.draw(theme), path, dpi)
        return path

    def _repr_html_(self) -> str:
        from cutaway.inspection.page import fragment

        return fragment(self.title, self.content())

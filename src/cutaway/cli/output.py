"""What the commands read and print with: JSON alone on stdout, or tables; anything passing goes to stderr."""

import json as _json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from cutaway.errors import CutawayError

if TYPE_CHECKING:
    from rich.console import Console

    from cutaway.api import Loaded

_WHERE = (
    "Where the model is: a folder in the Hugging Face layout, a .gguf file, a hub id such as "
    "openai-community/gpt2, or an installed package of weights (smollm2, minilm)."
)
Source = Annotated[str, Positional, arg(metavar="SOURCE", help=_WHERE, help_behavior_hint="")]
_DTYPE = "float32, bfloat16 or float16; as the source has it if not given."
Dtype = Annotated[str | None, arg(metavar="DTYPE", help=_DTYPE, help_behavior_hint="")]
Adapter = Annotated[
    str | None,
    arg(
        metavar="FOLDER",
        help="A LoRA adapter in PEFT's layout, put beside the source's matrices.",
        help_behavior_hint="",
    ),
]
Json = Annotated[bool, arg(help="Print one JSON object, and nothing else, on stdout.", help_behavior_hint="")]


def emit(payload: dict[str, Any]) -> None:
    """One JSON object on stdout, in ASCII: no stream can spoil it."""
    print(_json.dumps(payload, indent=2))


def console() -> "Console":
    """Where tables go. Piped output is wide enough for every table, whatever reads it."""
    from rich.console import Console

    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=120)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """A spinner on stderr while the body runs; nothing where stderr is not a terminal."""
    from rich.console import Console

    err = Console(stderr=True)
    if not err.is_terminal:
        yield
        return
    with err.status(f"{what} …"):
        yield


def table(*columns: str, rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; columns whose name ends in `>` are aligned to the right, and nameless ones have no header."""
    from rich.markup import escape
    from rich.table import Table

    out = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        right = column.endswith(">")
        out.add_column(column.rstrip(">"), justify="right" if right else "left")
    for row in rows:
        out.add_row(*(escape(str(cell)) for cell in row))
    console().print(out)


def size(count: float) -> str:
    """Bytes as people read them, in powers of 1,024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def standard_input() -> str:
    """All of it, which must be UTF-8."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise CutawayError(f"standard input is not UTF-8 text (byte {error.start})") from None


def opened(source: str, dtype: str | None = None, adapter: str | None = None) -> "Loaded":
    """The model that a source leads to, with an adapter beside its matrices."""
    from cutaway import api

    return api.load(source, dtype, adapter=adapter)

"""Where examples come from: files, folders, patterns, data sets of a hub; rows with named columns, read anew at each pass."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from cutaway.training.data import hub, readers
from cutaway.training.data.readers import Row
from cutaway.training.errors import DataError

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".conll": "conll",
}  # any other file is text


@dataclass(frozen=True)
class Part:
    """One file, or one stream of a hub: where it is, and how to read it."""

    name: str
    rows: Callable[[], Iterator[Row]]
    pieces: Callable[[], Iterator[str]] | None = None  # of a file that is one text
    unit: str = "line"  # what its rows are counted in
    file: Path | None = None


class Examples:
    """Rows with named columns, in the order of the files. Iterating gives dicts, and reads the files anew.

    `columns`: those that all files have. `name`: what was asked for, for messages. `how`: they are read, as far as the
    files do not say it.
    """

    def __init__(self, name: str, parts: Sequence[Part], how: Sequence[Any] = ()):
        self.name, self.parts, self._how = name, list(parts), list(how)
        found = [tuple(self._first(part)) for part in self.parts]
        self.columns = tuple(name for name in found[0] if all(name in columns for columns in found))

    def _first(self, part: Part) -> dict[str, Any]:
        for _, row in part.rows() if part.pieces is None else _whole(part.pieces()):
            return row
        raise DataError(f"{part.name} is empty: there is no example in it")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for part in self.parts:
            for _, row in part.rows():
                yield row

    @property
    def size(self) -> int | None:
        """Bytes; None where not all are files."""
        files = [part.file for part in self.parts if part.file]
        return sum(file.stat().st_size for file in files) if len(files) == len(self.parts) else None

    def state(self) -> list[Any]:
        """What changes when the data do, as far as can be told without reading them: sizes and times of the files."""
        stats = [(part.name, part.file and part.file.stat()) for part in self.parts]
        return [*self._how, *([name, stat and [stat.st_size, stat.st_mtime_ns]] for name, stat in stats)]

    def column(self, wanted: str | None = None) -> str:
        """The name of the column of texts: the one asked for, else "text", else the only one."""
        if wanted is None:
            wanted = self.columns[0] if len(self.columns) == 1 else "text"
        if wanted not in self.columns:
            have = ", ".join(repr(name[:40]) for name in self.columns)
            raise DataError(
                f"{self.name} has no column {wanted!r}: it has {have}. Choose one of these (--data.column); if they "
                "are data, the file has no line of names, so give them (--data.columns)"
            )
        return wanted

    def texts(self, *columns: str | None) -> Iterator[tuple[tuple[str, ...], bool]]:
        """The texts of the columns, row by row, and whether they are whole: a long file comes in pieces.

        Raises:
            DataError: no such column; a value that is no text, with its file and line.
        """
        names = [self.column(name) for name in columns or (None,)]
        for part in self.parts:
            if part.pieces is not None:
                held = None
                for piece in part.pieces():
                    if held is not None:
                        yield (held,), False
                    held = piece
                if held is not None:
                    yield (held,), True
                continue
            for line, row in part.rows():
                values = tuple(row.get(name) for name in names)
                if not all(isinstance(value, str) for value in values):
                    name, value = next((n, v) for n, v in zip(names, values, strict=True) if not isinstance(v, str))
                    is_ = "missing" if name not in row else f"no text but {str(value)[:40]!r}"
                    raise DataError(f"{part.name}, {part.unit} {line}: column {name!r} is {is_}")
                yield values, True  # type: ignore[misc]


def _whole(parts: Iterator[str]) -> Iterator[Row]:
    for piece in parts:
        if piece.strip():
            yield 1, {"text": piece}


def examples(
    source: str | Path | Sequence[str | Path],
    *,
    kind: str | None = None,
    names: Sequence[str] | None = None,
    document: str = "file",
    limit: int | None = None,
) -> Examples:
    """Opens data.

    Args:
        source: a file, a folder (all its files, in order of their paths), a pattern such as `corpus/**/*.txt`, a data set of
            a hub (`hub:NAME`, `hub:NAME:SPLIT`, `hub:NAME:CONFIG:SPLIT`), or several.
        kind: "text", "jsonl", "json", "csv", "tsv", "conll" or "parquet"; None is by the end of the name (`.gz` after it is
            unpacked), and text where that says nothing.
        names: the columns of a CSV or TSV file whose first line is data.
        document: what one text of a text file is: the "file", a "line" or a "paragraph".
        limit: how many examples are read, at most, of each file and data set of a hub; None: all.

    Raises:
        DataError: nothing there; an empty file; later, while reading, whatever is broken, with its file and line.
    """
    if document not in ("file", "line", "paragraph"):
        raise DataError(f"document is {document!r}; a text is a 'file', a 'line' or a 'paragraph'")
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    parts = []
    for each in map(str, sources):
        if each.startswith("hub:"):
            parts.append(Part(each, partial(hub.hub_rows, each), unit="example"))
        else:
            parts += [_part(file, kind, tuple(names) if names else None, document) for file in _files(each)]
    if not parts:
        raise DataError("no data: name a file, a folder or a data set")
    if limit is not None:
        parts = [replace(part, rows=lambda rows=part.rows: islice(rows(), limit)) for part in parts]
    return Examples(", ".join(map(str, sources)), parts, [kind, names and list(names), document, limit])


def _files(source: str) -> list[Path]:
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = (file for file in sorted(path.rglob("*")) if file.is_file())
        found = [file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts)]
    else:
        found = sorted(Path(name) for name in glob.glob(source, recursive=True) if Path(name).is_file())
    if not found:
        raise DataError(
            f"{source} holds no file" if path.is_dir()
            else f"{source} does not exist (a data set of a hub is written hub:owner/name)"
        )  # fmt: skip
    return found


def _part(file: Path, kind: str | None, names: tuple[str, ...] | None, document: str) -> Part:
    inner = Path(file.stem) if file.suffix == ".gz" else file
    kind = kind or KINDS.get(inner.suffix.lower(), "text")
    name = str(file)
    if kind == "text":
        whole = (lambda: readers.pieces(file)) if document == "file" else None
        return Part(name, lambda: readers.text_rows(file, document), whole, file=file)
    if kind in ("csv", "tsv"):
        return Part(name, lambda: readers.table_rows(file, "," if kind == "csv" else "\t", names), file=file)
    rows = {
        "jsonl": (readers.json_rows, "line"),
        "json": (readers.json_list, "object"),
        "conll": (readers.conll_rows, "line"),
        "parquet": (hub.parquet_rows, "row"),
    }
    if kind not in rows:
        raise DataError(f"no kind of file is called {kind!r}: there are text, csv, tsv, {', '.join(rows)}")
    read, unit = rows[kind]
    return Part(name, partial(read, file), unit=unit, file=file)

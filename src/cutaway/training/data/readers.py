"""One file of each plain format, row by row. What is broken is an error that names the file and the line."""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cutaway.training.errors import DataError

Row = tuple[int, dict[str, Any]]  # the line where it begins, its values by column

PIECE = 1 << 20  # characters of a long text that are read at once


@contextmanager
def opened(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """The file as strict UTF-8, unpacked where its name ends in .gz."""
    try:
        if path.suffix == ".gz":
            file: IO[str] = gzip.open(path, "rt", encoding="utf-8-sig", newline=newline)  # noqa: SIM115
        else:
            file = open(path, encoding="utf-8-sig", newline=newline)  # noqa: SIM115
        with file:
            yield file
    except UnicodeDecodeError:
        raise DataError(_not_utf8(path)) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as problem:
        raise DataError(f"{path} is a broken gzip file ({problem}); fetch it again") from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror or problem}") from None


def _not_utf8(path: Path) -> str:
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                return f"{path} is UTF-16, not UTF-8: convert it (iconv -f UTF-16 -t UTF-8)"
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as problem:
                return f"{path}, line {number}: byte {problem.start + 1} of the line is not UTF-8 ({problem.reason})"
    return f"{path} is not UTF-8"


def pieces(path: Path) -> Iterator[str]:
    """A long text in pieces that join to it, cut where a line or, failing that, a word begins.

    Tokenizers that cut text into words first (byte-level BPE, WordPiece) make the same tokens of the pieces as of the whole.
    """
    held = ""
    with opened(path) as file:
        while chunk := file.read(PIECE):
            held += chunk
            if len(held) >= PIECE:
                cut = _cut(held)
                yield held[:cut]
                held = held[cut:]
    if held:
        yield held


def _cut(text: str) -> int:
    """Just before the last line that does not begin with white space; else before the last single space; else the end."""
    end = len(text)
    while (end := text.rfind("\n", 0, end)) > 0:
        if not text[end + 1 : end + 2].isspace() and end + 1 < len(text):
            return end + 1
    spaces = re.finditer(r"(?<=\S) (?=\S)", text)
    return max((match.start() for match in spaces), default=len(text))


def text_rows(path: Path, document: str) -> Iterator[Row]:
    """`document`: what one text is: the "file", a "line" (blank ones are none), or a "paragraph" (blank lines between)."""
    if document == "file":
        yield 1, {"text": "".join(pieces(path))}
        return
    with opened(path) as file:
        begin, held = 0, []
        for number, line in enumerate(file, 1):
            if line.strip() and document == "line":
                yield number, {"text": line.removesuffix("\n")}
            elif line.strip():
                begin = begin or number
                held.append(line)
            elif held:
                yield begin, {"text": "".join(held).removesuffix("\n")}
                begin, held = 0, []
        if held:
            yield begin, {"text": "".join(held).removesuffix("\n")}


def json_rows(path: Path) -> Iterator[Row]:
    """JSON objects, one a line; blank lines are none."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.rstrip())
            except (ValueError, RecursionError) as problem:
                raise DataError(
                    f"{path}, line {number}: broken JSON ({_reason(problem)}): {line.strip()[:60]!r}"
                ) from None
            if not isinstance(row, dict):
                raise DataError(
                    f"{path}, line {number}: a line must be a JSON object with named columns, not {line[:60]!r}"
                )
            yield number, row


def json_list(path: Path) -> Iterator[Row]:
    """The objects of a file that is one JSON list, or an object whose "data" is one (SQuAD); counted from 1.

    Read as a whole: long ones are better JSONL.
    """
    with opened(path) as file:
        try:
            rows = json.load(file)
        except UnicodeDecodeError:
            raise
        except (ValueError, RecursionError) as problem:
            line = f", line {problem.lineno}" if isinstance(problem, json.JSONDecodeError) else ""
            raise DataError(
                f"{path}{line}: broken JSON ({_reason(problem)}); JSON line by line is kind 'jsonl'"
            ) from None
    rows = rows.get("data") if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"{path} must be one JSON list of objects with named columns; JSON line by line is kind 'jsonl'"
        )
    yield from enumerate(rows, 1)


def _reason(problem: BaseException) -> str:
    if isinstance(problem, json.JSONDecodeError):
        return f"{problem.msg}, column {problem.colno}"
    return "too deep" if isinstance(problem, RecursionError) else "a number too long to read"


def table_rows(path: Path, separator: str, names: tuple[str, ...] | None) -> Iterator[Row]:
    """CSV as in RFC 4180; TSV without quotes, where a tab always separates.

    `names`: of the columns, where the first line is data already; else the first line names them.
    """
    csv.field_size_limit(sys.maxsize)  # 128 KiB otherwise, and a text may well be longer
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    with opened(path, newline="") as file:
        reader = csv.reader(file, delimiter=separator, quoting=quoting, strict=True)
        header, begin = names, 1
        try:
            for cells in reader:
                if not cells:
                    pass  # a blank line
                elif header is None:
                    header = tuple(cells)
                    if len(set(header)) < len(header):
                        raise DataError(f"{path}, line {begin}: two columns have the same name: {', '.join(header)}")
                elif len(cells) != len(header):
                    raise DataError(
                        f"{path}, line {begin}: {len(cells)} columns where there should be {len(header)} ({', '.join(header)})"
                    )
                else:
                    yield begin, dict(zip(header, cells, strict=True))
                begin = reader.line_num + 1
        except csv.Error as problem:
            raise DataError(f"{path}, line {begin}: broken CSV ({problem})") from None


def conll_rows(path: Path) -> Iterator[Row]:
    """Sentences of `token<TAB>tag` lines with blank lines between (CoNLL): columns "tokens" and "tags", each a list."""
    with opened(path) as file:
        begin, tokens, tags = 0, [], []
        for number, line in enumerate(file, 1):
            if line.strip():
                cells = line.rstrip("\n").split("\t")
                if len(cells) != 2 or not all(cells):
                    raise DataError(f"{path}, line {number}: token<TAB>tag was expected, not {line.strip()[:60]!r}")
                begin = begin or number
                tokens.append(cells[0])
                tags.append(cells[1])
            elif tokens:
                yield begin, {"tokens": tokens, "tags": tags}
                begin, tokens, tags = 0, [], []
        if tokens:
            yield begin, {"tokens": tokens, "tags": tags}

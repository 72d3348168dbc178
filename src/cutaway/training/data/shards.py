"""From examples to token ids: in memory, or in files that are written once and mapped into memory from then on.

    FOLDER/DIGEST/     one text data, cut by one tokenizer
        00000.npy …    the ids, uint16 or uint32
        ends.npy       where each text ends among them, int64
        index.json     how many there are, their fingerprint, and what they were made of

The folder is there whole or not at all, and who finds it there need not write it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cutaway.checkpoints.folder import whole_folder
from cutaway.text import Tokenizer
from cutaway.training.data.sources import Examples
from cutaway.training.data.tokens import Fingerprint, Ids, Tokens
from cutaway.training.errors import DataError
from cutaway.training.lock import locked

Around = Literal["end", "special", "nothing"]
Seen = Callable[[int, int], None]

AT_ONCE = 1 << 20  # characters that are cut at once, on all processors
SHARD = 1 << 26  # ids a file
INDEX, ENDS = "index.json", "ends.npy"


def tokenise(
    examples: Examples,
    tokenizer: Tokenizer,
    column: str | None = None,
    *,
    around: Around = "end",
    parse_special: bool = False,
    folder: Path | None = None,
    seen: Seen | None = None,
) -> Tokens:
    """The ids of the texts of one column.

    Args:
        around: what stands around each text: its "end" (the tokenizer's EOS, where it has one), all "special" tokens that
            the model was made for ([CLS] … [SEP]), or "nothing".
        parse_special: whether "<s>" written in a text is that token.
        folder: where they are written, unless they are there; None keeps them in memory. Two processes may ask for the
            same at once: one writes.
        seen: is told, now and then, how many more characters were read and tokens made of them.

    Raises:
        DataError: what the data have; "special" for a text so long that it comes in pieces.
        CheckpointError: the folder cannot be written, as when the disk is full. Nothing is left of what was begun.
    """
    column = examples.column(column)
    pieces = _pieces(examples, tokenizer, column, around, parse_special, seen or (lambda characters, tokens: None))
    if folder is None:
        parts, ends = [], []
        for ids, whole in pieces:
            parts.append(ids)
            ends.append(whole)
        places = np.cumsum([len(ids) for ids in parts], dtype=np.int64)
        return Tokens([np.concatenate(parts)], places[np.array(ends, bool)], tokenizer.vocab_size)
    facts = {"data": examples.state(), "column": column, "around": [around, parse_special], "vocab": _digest(tokenizer)}
    made = folder.expanduser() / hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()
    if not made.is_dir():
        made.parent.mkdir(parents=True, exist_ok=True)
        with locked(made.parent / f".{made.name}.lock", wait=True):
            for begun in made.parent.glob(f".{made.name}.*.partial"):  # by a process that was killed
                shutil.rmtree(begun, ignore_errors=True)
            if not made.is_dir():  # another process may just have been at it
                with whole_folder(made) as inside:
                    _write(inside, pieces, {**facts, "vocabulary": tokenizer.vocab_size})
    return mapped(made)


def mapped(folder: Path) -> Tokens:
    """The ids that `tokenise` wrote: they stay on the disk, and are read where they are asked for.

    Raises:
        DataError: files are missing or broken.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        parts = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in index["shards"]]
        tokens = Tokens(parts, np.load(folder / ENDS, mmap_mode="r", allow_pickle=False), index["vocabulary"],
                        index["fingerprint"])  # fmt: skip
        if [len(part) for part in parts] != list(index["shards"].values()):
            raise ValueError("a file has another length than it was written with")
    except (OSError, EOFError, ValueError, KeyError, AttributeError) as problem:
        raise DataError(f"{folder} is broken ({problem}); delete it, and it is written anew") from None
    return tokens


def _write(folder: Path, pieces: Iterator[tuple[Ids, bool]], facts: dict[str, Any]) -> None:
    shards: dict[str, int] = {}
    held, ends, count = [], [], 0
    fingerprint = Fingerprint()

    def put() -> None:
        name = f"{len(shards):05d}.npy"
        shards[name] = _put(folder / name, np.concatenate(held))
        held.clear()

    for ids, whole in pieces:
        held.append(ids)
        fingerprint.add(ids)
        count += len(ids)
        if whole:
            ends.append(count)
        if count - sum(shards.values()) >= SHARD:
            put()
    if not count:
        raise DataError("there is not one token in this data")
    if held:
        put()
    places = np.asarray(ends, np.int64)
    _put(folder / ENDS, places)
    index = {**facts, "fingerprint": fingerprint.closed(places), "shards": shards}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _put(path: Path, array: NDArray[np.integer]) -> int:
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)  # NumPy's own writing does not say why it failed
    return len(array)


def _pieces(
    examples: Examples, tokenizer: Tokenizer, column: str, around: Around, parse_special: bool, seen: Seen
) -> Iterator[tuple[Ids, bool]]:
    """The ids of each text, or of a piece of one, and whether the text ends there."""
    end = [tokenizer.eos_id] if around == "end" and tokenizer.eos_id is not None else []
    kind = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    for batch in _batches(examples.texts(column)):
        if around == "special" and not all(whole for _, whole in batch):
            raise DataError(f"{examples.name} is one long text; 'special' tokens stand around short ones")
        texts = [text for text, _ in batch]
        found = tokenizer.encode_each(texts, special=around == "special", parse_special=parse_special)
        seen(sum(map(len, texts)), sum(map(len, found)))
        for ids, (_, whole) in zip(found, batch, strict=True):
            yield np.asarray(ids + (end if whole else []), kind), whole


def _batches(texts: Iterator[tuple[tuple[str, ...], bool]]) -> Iterator[list[tuple[str, bool]]]:
    held: list[tuple[str, bool]] = []
    size = 0
    for (text,), whole in texts:
        held.append((text, whole))
        size += len(text)
        if size >= AT_ONCE:
            yield held
            held, size = [], 0
    if held:
        yield held


def _digest(tokenizer: Tokenizer) -> str:
    """Of what a tokenizer is."""
    digest = hashlib.blake2b(digest_size=16)
    with TemporaryDirectory() as temporary:
        tokenizer.save(temporary)
        for file in sorted(Path(temporary).iterdir()):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()

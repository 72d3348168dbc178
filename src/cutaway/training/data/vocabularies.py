"""Tokenizers made here: their vocabularies are learnt from the data, or need no learning."""

from __future__ import annotations

from collections.abc import Iterable

from cutaway.text import Tokenizer
from cutaway.text.engines import Roles
from cutaway.text.recipes import byte_level, document, merging
from cutaway.text.rust import RustEngine, byte_table
from cutaway.training.errors import DataError


def characters(texts: Iterable[str]) -> Tokenizer:
    """One id a character, in the order of Unicode, and one for those that the texts do not have."""
    known: set[str] = set()
    for text in texts:
        known.update(text)
    if not known:
        raise DataError("there is not one character to make a vocabulary of")
    vocab = {text: index for index, text in enumerate([*sorted(known), "<unk>"])}
    unknown = {"<unk>": vocab["<unk>"]}
    written = document(merging(vocab, [], unk_token="<unk>"), unknown, decoder={"type": "Fuse"})
    return Tokenizer(RustEngine(written, "the character tokenizer"), Roles(unk="<unk>"))


def octets() -> Tokenizer:
    """One id a byte of UTF-8: 256 ids for any text."""
    written = byte_level(byte_table(), [], {})
    written["pre_tokenizer"]["use_regex"] = False  # words change nothing where nothing is merged
    return Tokenizer(RustEngine(written, "the byte tokenizer"), Roles())

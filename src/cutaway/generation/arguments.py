"""What a user hands over, made plain: numbers, ids and texts from Python, numpy or torch, each checked once."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

from cutaway.errors import CutawayError


def plain(value: Any) -> Any:
    """Numbers and arrays of numpy and torch as Python's numbers and lists; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def whole(name: str, value: object) -> int:
    """The value, a whole number of at least 1."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or int(value) < 1:
        raise CutawayError(f"{name} must be a whole number of at least 1, not {value!r}.")
    return int(value)


def check_ids(ids: Iterable[object], vocab: int, where: str) -> None:
    """Raise `CutawayError` unless all are token ids of the vocabulary."""
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int):
            raise CutawayError(f"{where} holds {token!r}; token ids are whole numbers.")
        if not 0 <= token < vocab:
            raise CutawayError(f"{where} holds token {token}, outside the vocabulary of {vocab}.")


def end_tokens(eos: Any, vocab: int) -> frozenset[int]:
    """One id or several, each of the vocabulary."""
    ids = plain(eos)
    ids = [plain(token) for token in ids] if isinstance(ids, Iterable) else [ids]
    check_ids(ids, vocab, "eos")
    return frozenset(ids)


def stop_strings(stop: Any) -> tuple[str, ...]:
    """One text, several, or None; none of them empty."""
    if stop is None:
        return ()
    stops = tuple(stop) if isinstance(stop, Iterable) and not isinstance(stop, str) else (stop,)
    for text in stops:
        if not isinstance(text, str) or not text:
            raise CutawayError(f"stop: must be strings of at least one character, not {text!r}.")
    return stops

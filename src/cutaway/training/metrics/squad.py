"""Exact match and F1 of answers, by SQuAD's rules (Rajpurkar et al. 2016, section 6.1).

Both are compared without case, punctuation and articles. F1 is of the words that two answers share; of several right answers
the nearest counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from cutaway.training.errors import DataError

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score(said: Sequence[str], right: Sequence[Sequence[str]]) -> dict[str, float]:
    """The means of both, from 0 to 1. `right`: the right answers to each question; "" where it has none."""
    if len(said) != len(right) or not right:
        raise DataError(f"{len(said)} answers cannot be scored against {len(right)} references")
    exact = [max(float(words(a) == words(b)) for b in some) for a, some in zip(said, right, strict=True)]
    shared = [max(f1(a, b) for b in some) for a, some in zip(said, right, strict=True)]
    return {"exact": sum(exact) / len(exact), "f1": sum(shared) / len(shared)}


def words(text: str) -> list[str]:
    """What is compared."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def f1(said: str, right: str) -> float:
    """Of the words of two answers."""
    a, b = words(said), words(right)
    if not a or not b:
        return float(a == b)
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b))

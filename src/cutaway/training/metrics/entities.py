"""Precision, recall and F1 of whole entities, as the CoNLL shared tasks count them; through `seqeval`.

An entity is right where its words and its kind are. B-PER begins one, I-PER goes on with it, or begins one where none of its
kind is there.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from cutaway.training.errors import DataError
from cutaway.training.metrics.need import library


def score(said: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> dict[str, float]:
    """ "precision", "recall" and "f1" of the entities of all texts together, and "accuracy" of tags.

    Where the tags are not B-, I- and O there are no entities, and accuracy is all, also as "f1" (micro).
    """
    pairs = [pair for a, b in zip(said, right, strict=True) for pair in zip(a, b, strict=True)]
    if not pairs:
        raise DataError("there is not one tag to score")
    accuracy = sum(a == b for a, b in pairs) / len(pairs)
    if not all(tag == "O" or tag[:2] in ("B-", "I-") for _, tag in pairs):
        return {"accuracy": accuracy, "f1": accuracy}
    measure = library("seqeval.metrics")
    lists = [list(tags) for tags in right], [list(tags) for tags in said]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing was said, which is a score of 0
        names = {"precision": measure.precision_score, "recall": measure.recall_score, "f1": measure.f1_score}
        return {name: float(function(*lists)) for name, function in names.items()} | {"accuracy": accuracy}


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities in a text: kind, first word, last word."""
    found: list[tuple[str, int, int]] = []
    before = "O"
    for i, tag in enumerate(tags):
        kind = tag[2:] if tag[:2] in ("B-", "I-") else None
        if kind is not None and tag.startswith("I-") and before[2:] == kind and before != "O":
            found[-1] = (kind, found[-1][1], i)
        elif kind is not None:
            found.append((kind, i, i))
        before = tag
    return found

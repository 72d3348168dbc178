"""Entities: scores beside a count by hand, and spans beside seqeval's."""

import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities

from cutaway.training.errors import DataError
from cutaway.training.metrics import entities

TAGS = ["O", "B-per", "I-per", "B-org", "I-org"]


def test_spans_are_those_of_seqeval():
    draw = random.Random(0)
    for _ in range(300):
        tags = draw.choices(TAGS, k=draw.randint(1, 9))
        assert entities.spans(tags) == get_entities(tags)


def test_scores_count_whole_entities():
    draw = random.Random(1)
    said = [draw.choices(TAGS, k=8) for _ in range(50)]
    right = [draw.choices(TAGS, k=8) for _ in range(50)]
    a = {(i, *e) for i, tags in enumerate(said) for e in entities.spans(tags)}
    b = {(i, *e) for i, tags in enumerate(right) for e in entities.spans(tags)}
    precision, recall = len(a & b) / len(a), len(a & b) / len(b)
    assert entities.score(said, right) == pytest.approx({
        "precision": precision, "recall": recall, "f1": 2 * precision * recall / (precision + recall),
        "accuracy": sum(x == y for s, r in zip(said, right, strict=True) for x, y in zip(s, r, strict=True)) / 400,
    })  # fmt: skip
    assert entities.score([["O"]], [["B-per"]])["f1"] == 0.0


def test_other_tags_have_accuracy_alone():
    assert entities.score([["NOUN", "VERB"]], [["NOUN", "NOUN"]]) == {"accuracy": 0.5, "f1": 0.5}
    with pytest.raises(DataError, match="not one tag"):
        entities.score([], [])

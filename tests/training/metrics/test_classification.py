"""Accuracy and F1, beside scikit-learn's."""

import random

import pytest
from sklearn.metrics import accuracy_score, f1_score

from cutaway.training.errors import DataError
from cutaway.training.metrics.classification import accuracy, f1, f1_of


@pytest.mark.parametrize("names", ["ab", "abcd"])
def test_as_scikit_learn(names):
    draw = random.Random(0)
    for count in (1, 5, 300):
        said, right = draw.choices(names, k=count), draw.choices(names, k=count)
        assert accuracy(said, right) == pytest.approx(accuracy_score(right, said))
        theirs = f1_score(right, said, labels=list(names), average="macro", zero_division=0)
        assert f1(said, right, names) == pytest.approx(theirs)
        one = f1_score(right, said, labels=["a"], average=None, zero_division=0)[0]
        assert f1_of("a", said, right) == pytest.approx(one)


def test_nothing_cannot_be_scored():
    with pytest.raises(DataError, match="0 answers"):
        accuracy([], [])
    with pytest.raises(DataError, match="1 answers cannot be scored against 2"):
        f1(["a"], ["a", "b"], "ab")

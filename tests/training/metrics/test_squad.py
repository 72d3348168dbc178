"""SQuAD's measures: examples worked out by hand from the rule."""

import pytest

from cutaway.training.errors import DataError
from cutaway.training.metrics import squad


@pytest.mark.parametrize(
    ("said", "right", "exact", "f1"),
    [
        ("the Cat!", ["a cat"], 1, 1),
        ("Theatre", ["the atre"], 0, 0),  # articles are words, not beginnings of words
        ("U.S.", ["us"], 1, 1),
        ("1,000 men", ["1000 women"], 0, 1 / 2),
        ("black cat", ["cat", "black"], 0, 2 / 3),
        ("cat cat cat", ["cat cat"], 0, 4 / 5),  # each word as often as both have it
        ("a", ["the"], 1, 1),  # nothing is left of either
        ("the", ["cat"], 0, 0),
        ("", [""], 1, 1),
        ("in  Paris —", ["London", "In Paris —"], 1, 1),
    ],
)
def test_one_answer(said, right, exact, f1):
    assert squad.score([said], [right]) == {"exact": exact, "f1": pytest.approx(f1)}


def test_means_over_questions():
    scores = squad.score(["black cat", ""], [["cat", "black"], [""]])
    assert scores == {"exact": 0.5, "f1": pytest.approx((2 / 3 + 1) / 2)}
    with pytest.raises(DataError, match="cannot be scored"):
        squad.score(["a"], [])

"""Accuracy and F1 of classes.

F1 of a class = 2 TP / (2 TP + FP + FN)
"""

from collections.abc import Sequence

from cutaway.training.errors import DataError


def accuracy(said: Sequence[str], right: Sequence[str]) -> float:
    """The part of the answers that are right."""
    _check(said, right)
    return sum(a == b for a, b in zip(said, right, strict=True)) / len(right)


def f1(said: Sequence[str], right: Sequence[str], classes: Sequence[str]) -> float:
    """The mean of the F1 of all classes (macro), each as important as the others. A class nobody mentions has 0."""
    _check(said, right)
    return sum(f1_of(name, said, right) for name in classes) / len(classes)


def f1_of(name: str, said: Sequence[str], right: Sequence[str]) -> float:
    """The F1 of one class."""
    both = sum(a == b == name for a, b in zip(said, right, strict=True))
    either = sum((a == name) + (b == name) for a, b in zip(said, right, strict=True))
    return 2 * both / either if either else 0.0


def _check(said: Sequence[str], right: Sequence[str]) -> None:
    if len(said) != len(right) or not right:
        raise DataError(f"{len(said)} answers cannot be scored against {len(right)} references")

"""ROUGE-1, -2 and -L (Lin 2004), through `rouge-score`, without stemming."""

from collections.abc import Sequence

from cutaway.training.errors import DataError
from cutaway.training.metrics.need import library

KINDS = ("rouge1", "rouge2", "rougeL")


def score(said: Sequence[str], right: Sequence[str]) -> dict[str, float]:
    """The means of F1, from 0 to 1; one reference a text."""
    if len(said) != len(right) or not right:
        raise DataError(f"{len(said)} answers cannot be scored against {len(right)} references")
    scorer = library("rouge_score.rouge_scorer").RougeScorer(KINDS)
    each = [scorer.score(b, a) for a, b in zip(said, right, strict=True)]
    return {kind: sum(s[kind].fmeasure for s in each) / len(each) for kind in KINDS}

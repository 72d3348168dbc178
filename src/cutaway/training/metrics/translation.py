"""BLEU (Papineni et al. 2002) and chrF (Popović 2015) of a corpus, through `sacrebleu`, with its own tokenization (13a)."""

from collections.abc import Sequence

from cutaway.training.errors import DataError
from cutaway.training.metrics.need import library


def score(said: Sequence[str], right: Sequence[str]) -> dict[str, float]:
    """ "bleu" and "chrf", from 0 to 100; one reference a text."""
    if len(said) != len(right) or not right:
        raise DataError(f"{len(said)} answers cannot be scored against {len(right)} references")
    measure = library("sacrebleu")
    bleu, chrf = (f(list(said), [list(right)]).score for f in (measure.corpus_bleu, measure.corpus_chrf))
    return {"bleu": float(bleu), "chrf": float(chrf)}

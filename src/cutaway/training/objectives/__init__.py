"""Objectives: what a model learns from. One file each; `named` makes one for a model, by name or its family's own.

causal        the next token                              decoders
masked        hidden tokens                               encoders with a head that guesses words
permutation   tokens in any order                         XLNet
replaced      which tokens a generator replaced           ELECTRA's discriminator
spans         what was cut out                            encoders with a decoder (T5's own)
denoising     the text before it was spoilt               encoders with a decoder (BART's own)
translation   another text                                encoders with a decoder, of pairs
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from cutaway.text import Tokenizer
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.causal import Causal
from cutaway.training.objectives.denoising import Denoising
from cutaway.training.objectives.fit import check, head_for, own, sizes_for
from cutaway.training.objectives.masked import Masked
from cutaway.training.objectives.objective import Objective
from cutaway.training.objectives.permutation import Permutation
from cutaway.training.objectives.replaced import Replaced
from cutaway.training.objectives.spans import Spans
from cutaway.training.objectives.translation import Translation
from cutaway.training.objectives.vocabulary import Vocabulary

__all__ = [
    "Causal", "Denoising", "Masked", "Objective", "Permutation", "Replaced", "Spans", "Translation", "Vocabulary",
    "head_for", "named", "own", "sizes_for",
]  # fmt: skip

MAKE: dict[str, Any] = {
    "causal": lambda model, vocabulary, **options: Causal(**options),
    "masked": lambda model, vocabulary, **options: Masked(vocabulary, **options),
    "permutation": lambda model, vocabulary, **options: Permutation(vocabulary, **options),
    "replaced": lambda model, vocabulary, **options: Replaced(vocabulary, model, **options),
    "spans": lambda model, vocabulary, **options: Spans(vocabulary, model.start, **options),
    "denoising": lambda model, vocabulary, **options: Denoising(vocabulary, model.start, **options),
    "translation": lambda model, vocabulary, **options: Translation(model.start, **options),
}


def named(
    name: str,
    model: nn.Module,
    family: str,
    sizes: Any,
    tokenizer: Tokenizer,
    *,
    mask: int | None = None,
    eos: int | None = None,
    **options: Any,
) -> Objective:
    """The objective of that name for this model; "auto" is its family's own.

    Args:
        mask, eos: the ids that hide a token and end a text, where the tokenizer does not say.
        options: of the objective.

    Raises:
        TrainingError: no such objective or option, or a model that it does not go with.
    """
    name = own(family, sizes) if name == "auto" else name
    if name not in MAKE:
        raise TrainingError(f"no objective {name!r}; there are auto, {', '.join(MAKE)}")
    check(name, model)
    vocabulary = Vocabulary(tokenizer, model.vocab, mask=mask, eos=eos)  # type: ignore[arg-type]
    known = options_of(CLASSES[name])
    if unknown := [option for option in options if option not in known]:
        have = f"it has {', '.join(known)}" if known else "it has none"
        raise TrainingError(f"the objective {name} has no option {unknown[0]!r}: {have}")
    try:
        return MAKE[name](model, vocabulary, **options)
    except TypeError as problem:
        raise TrainingError(f"an option of the objective {name} is of another kind: {problem}") from None


CLASSES = {
    kind.__name__.lower(): kind for kind in (Causal, Masked, Permutation, Replaced, Spans, Denoising, Translation)
}


def options_of(kind: type) -> list[str]:
    """What is given by name only."""
    parameters = inspect.signature(kind).parameters.values()
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]

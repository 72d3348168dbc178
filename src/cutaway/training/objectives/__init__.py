"""Objectives: what a model learns from. One file each; `named` makes one for a model, by name or its family's own."""

from __future__ import annotations

from typing import Any

from torch import nn

from cutaway.parts import EncoderDecoder, LanguageHead, Model
from cutaway.text import Tokenizer
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.causal import Causal
from cutaway.training.objectives.masked import Masked
from cutaway.training.objectives.objective import Objective
from cutaway.training.objectives.vocabulary import Vocabulary

__all__ = ["Causal", "Masked", "Objective", "Vocabulary", "head_for", "named", "own"]

NAMES = ("causal", "masked")
MASKED = ("bert", "roberta", "distilbert", "albert", "modernbert", "deberta", "deberta_v2", "linformer", "longformer",
          "bigbird")  # fmt: skip


def own(family: str, sizes: Any) -> str:
    """The name of the objective that models of this family and these sizes are trained with."""
    if family in MASKED or getattr(sizes, "causal", True) is False:
        return "masked"
    return "causal"


def head_for(name: str, family: str, sizes: Any) -> str | None:
    """Which `head` to build a model with, so that it can learn by this objective; None where the family has one only."""
    if not hasattr(sizes, "head"):
        return None
    name = own(family, sizes) if name == "auto" else name
    return {"masked": "masked-lm"}.get(name, "lm")


def named(
    name: str,
    model: nn.Module,
    family: str,
    sizes: Any,
    tokenizer: Tokenizer,
    *,
    mask: int | None = None,
    **options: Any,
) -> Objective:
    """The objective of that name for this model; "auto" is its family's own.

    Args:
        mask: the id that hides a token, where the tokenizer does not say.
        options: of the objective.

    Raises:
        TrainingError: no such objective or option, or a model that it does not go with.
    """
    name = own(family, sizes) if name == "auto" else name
    if name not in NAMES:
        raise TrainingError(f"no objective {name!r}; there are auto, {', '.join(NAMES)}")
    _check(name, model)
    vocabulary = Vocabulary(tokenizer, model.vocab, mask=mask)  # type: ignore[arg-type]
    try:
        return Causal(**options) if name == "causal" else Masked(vocabulary, **options)
    except TypeError as problem:
        raise TrainingError(f"the objective {name} takes no such option: {problem}") from None


def _check(name: str, model: nn.Module) -> None:
    """That a model can learn this way."""
    if isinstance(model, EncoderDecoder):
        raise TrainingError(f"the objective {name} is for one stack of layers; an encoder with a decoder has two")
    if not isinstance(model, Model):
        raise TrainingError(f"objectives are for models that `build` and `load` give, not {type(model).__name__}")
    if not isinstance(model.head, LanguageHead):
        kind = "no head" if model.head is None else f"a {type(model.head).__name__}"
        raise TrainingError(f"the objective {name} needs a head that guesses words, and this model has {kind}: build it "
                            f"with head={'masked-lm' if name == 'masked' else 'lm'!r}")  # fmt: skip
    if name == "causal" and not model.causal:
        raise TrainingError(
            "this model looks both ways: guessing the next token, it would see the answer. Its objective is 'masked'"
        )
    if name == "masked" and model.causal:
        raise TrainingError(
            "this model sees only what comes before, and hidden tokens are guessed from both sides: say 'causal'"
        )

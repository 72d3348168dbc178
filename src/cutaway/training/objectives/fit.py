"""Which objective a family has, and which objectives a model can learn by."""

from __future__ import annotations

from typing import Any

from torch import nn

from cutaway.parts import DetectionHead, EncoderDecoder, LanguageHead, Model
from cutaway.parts.permuted import PermutedModel
from cutaway.text import Tokenizer
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.vocabulary import MARKS, named_marks

OWN = {"t5": "spans", "bart": "denoising", "electra": "replaced", "seq2seq": "translation"}
ENCODERS = ("bert", "roberta", "distilbert", "albert", "modernbert", "deberta", "deberta_v2", "linformer", "longformer",
            "bigbird")  # fmt: skip
WRITING = ("spans", "denoising", "translation")


def own(family: str, sizes: Any) -> str:
    """The name of the objective that models of this family and these sizes are trained with."""
    if family in OWN:
        return OWN[family]
    if getattr(sizes, "encoder", False):  # families of translators, and decoders of the same layers
        return "translation"
    if family == "xlnet" and not sizes.causal:
        return "permutation"
    return "masked" if family in ENCODERS or not getattr(sizes, "causal", True) else "causal"


def head_for(name: str, family: str, sizes: Any) -> str | None:
    """Which `head` to build a model with, so that it can learn by this objective; None where the family has one only."""
    if not hasattr(sizes, "head"):
        return None
    name = own(family, sizes) if name == "auto" else name
    return {"masked": "masked-lm", "replaced": "discriminator"}.get(name, "lm")


def sizes_for(name: str, family: str, sizes: Any, tokenizer: Tokenizer, length: int) -> dict[str, Any]:
    """The sizes that follow from what a model is to learn: `vocab`, and `head` and `context` where the family has them.

    Args:
        sizes: what is known of the others: the preset's, or the family's defaults.
        length: T, the most tokens a text has.
    """
    asked, head = own(family, sizes) if name == "auto" else name, head_for(name, family, sizes)
    spare = 0
    if asked in ("masked", "replaced", "denoising") and tokenizer.mask_id is None:
        spare = 1
    elif asked == "spans" and not named_marks(tokenizer):
        spare = MARKS
    found: dict[str, Any] = {"vocab": tokenizer.vocab_size + spare}
    if hasattr(sizes, "context"):
        found["context"] = length + (asked in WRITING)  # the end of text comes on top
    return found if head is None else {**found, "head": head}


def check(name: str, model: nn.Module) -> None:
    """That a model can learn this way.

    Raises:
        TrainingError: it cannot; the message says what would go.
    """
    if not isinstance(model, (Model, EncoderDecoder)):
        raise TrainingError(f"objectives are for models that `build` and `load` give, not {type(model).__name__}")
    if (name in WRITING) != isinstance(model, EncoderDecoder):
        if name in WRITING:
            raise TrainingError(
                f"the objective {name} is for an encoder with a decoder, and this model is one stack: say 'auto'"
            )
        raise TrainingError(
            f"the objective {name} is for one stack of layers, and this is an encoder with a decoder: say 'auto'"
        )
    wanted, spelled = (DetectionHead, "discriminator") if name == "replaced" else (LanguageHead, "lm")
    if not isinstance(model.head, wanted):
        kind = "no head" if model.head is None else f"a {type(model.head).__name__}"
        spelled = "masked-lm" if name == "masked" else spelled
        raise TrainingError(f"the objective {name} does not go with {kind}: build the model with head={spelled!r}")
    if name == "permutation" and (not isinstance(model, PermutedModel) or model.causal):
        raise TrainingError("only XLNet can guess in any order: it has a second stream for it. Say 'auto'")
    if name == "causal" and not model.causal:
        raise TrainingError(
            "this model looks both ways: guessing the next token, it would see the answer. Say 'auto' for its own"
        )
    if name == "masked" and model.causal:
        raise TrainingError(
            "this model sees only what comes before, and hidden tokens are guessed from both sides: say 'causal'"
        )

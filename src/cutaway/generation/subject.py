"""The model to generate with: whether it can, and its modules at rest while it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from cutaway.errors import CutawayError
from cutaway.parts.head import LanguageHead
from cutaway.parts.model import EncoderDecoder, Model


def writes(model: nn.Module) -> bool:
    """Whether there are next tokens to be had: from a decoder with a language head."""
    headed = not isinstance(model, (Model, EncoderDecoder)) or isinstance(model.head, LanguageHead)
    return bool(getattr(model, "causal", False)) and headed


def subject(model: Any, tokenizer: Any) -> tuple[nn.Module, Any]:
    """The model and the tokenizer to generate with, from a model or from what `cutaway.load` gave."""
    if isinstance(getattr(model, "model", None), nn.Module) and not isinstance(model, nn.Module):
        model, tokenizer = model.model, model.tokenizer if tokenizer is None else tokenizer
    if not isinstance(model, nn.Module):
        raise CutawayError(f"give a model, or what cutaway.load returned, not {type(model).__name__}.")
    if not writes(model):
        raise CutawayError("this model cannot generate: it predicts no next token. Take a decoder with its head.")
    check_weights(model)
    return model, tokenizer


def check_weights(model: nn.Module) -> None:
    """Raise `CutawayError` for a model on the meta device."""
    if any(parameter.is_meta for parameter in model.parameters()):
        raise CutawayError("a model on the meta device has no weights to run with; build or load it on another.")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside; afterwards exactly the modules that were training train again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True

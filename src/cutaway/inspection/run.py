"""The one forward behind `inspect`: from a source and a text to an `Inspection`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.attention.record import recording
from cutaway.generation.subject import check_weights, evaluating
from cutaway.inspection.bars import Decoder
from cutaway.inspection.errors import PictureError
from cutaway.inspection.inspector import Inspection
from cutaway.inspection.labels import labels, shorten
from cutaway.inspection.locate import encodings_of
from cutaway.inspection.traces import patterns_of
from cutaway.parts.head import LanguageHead
from cutaway.parts.model import EncoderDecoder
from cutaway.parts.state import State

LONGEST_TARGET = 32  # tokens, the start included, where no target is given
MASKS = ("[MASK]", "<mask>", "<extra_id_0>")


@dataclass(frozen=True)
class Subject:
    """What is looked into: a model, and a tokenizer where there is one."""

    model: nn.Module
    tokenizer: Any
    name: str

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def run(
    source: Any,
    text: str | None,
    target: str | None,
    ids: Any,
    target_ids: Any,
    tokens: Iterable[str] | None,
    target_tokens: Iterable[str] | None,
    title: str | None,
) -> Inspection:
    """See `cutaway.inspect`."""
    subject = _subject(source)
    model = subject.model
    check_weights(model)
    both = isinstance(model, EncoderDecoder)
    if not both and not (target is None and target_ids is None):
        raise PictureError("this model has no decoder beside its encoder: it takes no target")
    source_ids = _ids(subject, text, ids, "text")
    with torch.no_grad(), evaluating(model):
        if isinstance(model, EncoderDecoder):
            own_ids = _target(subject, model, source_ids, target, target_ids)
            with recording() as trace:
                output = model(source_ids, own_ids)
        else:
            own_ids = source_ids
            with recording() as trace:
                output = model(source_ids)
    read = _labels(subject, source_ids, tokens)
    written = _labels(subject, own_ids, target_tokens) if both else None
    logits = output[0] if isinstance(getattr(model, "head", None), LanguageHead) else None
    places = _places(getattr(model, "causal", True), written or read) if logits is not None else ()
    said = text if text is not None else "".join(read) if tokens is not None or subject.tokenizer else ""
    return Inspection(
        title=title or f"Inside {subject.name}",
        text=said,
        tokens=read,
        target_tokens=written,
        output=output,
        logits=logits,
        patterns=patterns_of(trace, read, written),
        spell=_speller(subject),
        places=places,
        start=len(places) - 1 if places and places[0][1].startswith("after ") else 0,
        encodings=tuple(encodings_of(model, max(source_ids.shape[1], own_ids.shape[1]))),
    )


def _subject(source: Any) -> Subject:
    if isinstance(source, (str, PathLike)):
        from cutaway.api import load

        return _subject(load(source))
    if isinstance(source, nn.Module):
        return Subject(source, None, type(source).__name__)
    if isinstance(getattr(source, "model", None), nn.Module):
        name = str(getattr(source, "source", None) or getattr(source, "family", "the model"))
        name = name.encode("utf-8", "replace").decode()  # a path may hold bytes that are no text
        return Subject(source.model, getattr(source, "tokenizer", None), name)
    raise PictureError(f"cannot look into a {type(source).__name__}: give a source, what load returned, or a model")


def _ids(subject: Subject, text: str | None, ids: Any, what: str) -> Tensor:
    """(1, T) int64 on the model's device."""
    if (text is None) == (ids is None):
        raise PictureError(f"give either the {what} or its ids, so that there is something to look at")
    if ids is None:
        if subject.tokenizer is None:
            raise PictureError(f"a model by itself reads no {what}: give ids=, or load it with its tokenizer")
        ids = subject.tokenizer.encode(text)
        if not ids:
            raise PictureError(f"the {what} {text!r} has no tokens, so there is nothing to look at; give some text")
    found = torch.as_tensor(ids, device=subject.device)
    if found.ndim == 2 and found.shape[0] > 1:
        raise PictureError(f"ids of shape {tuple(found.shape)}: look into one sequence at a time, such as ids[:1]")
    if found.ndim not in (1, 2) or found.numel() == 0 or found.dtype.is_floating_point:
        raise PictureError(
            f"ids of shape {tuple(found.shape)} and type {found.dtype}: give (T,) integers, T at least 1"
        )
    return found.reshape(1, -1).long()


def _target(subject: Subject, model: EncoderDecoder, source_ids: Tensor, target: str | None, ids: Any) -> Tensor:
    """What the decoder reads, (1, T), beginning with its start token; generated greedily where nothing is given."""
    start = torch.tensor([[model.start]], device=subject.device)
    if ids is not None:
        return _ids(subject, target, ids, "target")
    if target is not None:
        if subject.tokenizer is None:
            raise PictureError("a model by itself reads no target: give target_ids=")
        written = subject.tokenizer.encode(target, special=False)
        return torch.cat([start, torch.tensor([written], dtype=torch.int64, device=subject.device)], dim=1)
    ends = set(getattr(subject.tokenizer, "eos_ids", ()))
    memory, state = model.encode(source_ids), State(1, LONGEST_TARGET, subject.device)
    written = start
    while written.shape[1] < LONGEST_TARGET:
        best = model.decode(written[:, -1:], memory, state=state)[:, -1].argmax(-1, keepdim=True)
        if int(best) in ends:
            break
        written = torch.cat([written, best], dim=1)
    return written


def _labels(subject: Subject, ids: Tensor, tokens: Iterable[str] | None) -> tuple[str, ...]:
    numbers = ids[0].tolist()
    if tokens is None and subject.tokenizer is not None:
        tokens = subject.tokenizer.tokens(numbers)
    if tokens is None:
        tokens = [str(number) for number in numbers]
    return tuple(labels(tokens, len(numbers), "given", ids.shape))


def _speller(subject: Subject) -> Decoder | None:
    if subject.tokenizer is None:
        return None
    return lambda index: subject.tokenizer.tokens([index])[0]


def _places(causal: bool, tokens: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    """Where predictions are worth reading: after every token, or at every mask (at every token, where none is masked)."""
    if causal:
        return tuple((row, f"after “{shorten(token, 40)}” ({row})") for row, token in enumerate(tokens))
    masks = [row for row, token in enumerate(tokens) if token in MASKS]
    return tuple((row, f"at “{shorten(tokens[row], 40)}” ({row})") for row in masks or range(len(tokens)))

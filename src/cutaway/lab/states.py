"""Two models side by side on one text: every hidden state and the output, ours and the peer's.

max |ours − theirs|                      the absolute error
max |ours − theirs| / max |theirs|       the relative error: against the largest number there is
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.errors import CutawayError
from cutaway.parts import EmbeddingHead, EncoderDecoder, LanguageHead, Model, ReversibleStack, Stack, TokenHead


@dataclass(frozen=True)
class Row:
    """One tensor compared. `yardstick` is the peer's own relative distance from its float32."""

    name: str
    max_abs_error: float
    max_rel_error: float
    yardstick: float | None


def compare(
    ours: Model | EncoderDecoder, theirs: nn.Module, ids: Tensor, exact: Sequence[Tensor] | None = None
) -> tuple[tuple[Row, ...], list[Tensor]]:
    """The rows for one text, and the peer's tensors (pass those of float32 as `exact` for the yardstick).

    Args:
        ours, theirs: the same model, in the same dtype, here and in `transformers`.
        ids: (1, T); an encoder-decoder reads them on both sides.

    Where the peer gives other hidden states than there are here (one more, or of a text that it pads), there is the
    output's row alone.

    Raises:
        CutawayError: the two do not have outputs of the same shape.
    """
    mine, peer = list(_our_states(ours, ids).items()), their_states(ours, theirs, ids)
    if mine[-1][1].shape != peer[-1].shape:
        raise CutawayError(
            f"not the same model: the output is {tuple(mine[-1][1].shape)} here, {tuple(peer[-1].shape)} there"
        )
    alike = [a.shape for _, a in mine] == [b.shape for b in peer]
    rows = []
    for i in range(0 if alike else -1, len(mine) if alike else 0):
        (name, a), b = mine[i], peer[i]
        yardstick = None if exact is None else _relative(b, exact[i])
        rows.append(Row(name, _absolute(a, b), _relative(a, b), yardstick))
    return tuple(rows), peer


def _absolute(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()


def _relative(a: Tensor, b: Tensor) -> float:
    return _absolute(a, b) / max(b.double().abs().max().item(), torch.finfo(torch.float64).tiny)


@torch.no_grad()
def _our_states(model: Model | EncoderDecoder, ids: Tensor) -> dict[str, Tensor]:
    """Every hidden state by name, in order, then the output."""
    states: dict[str, Tensor] = {}
    if isinstance(model, EncoderDecoder):
        # one side after the other: the two may share their embedding
        with _watched(model.encoder, states, "encoder "):
            memory = model.encode(ids)
        with _watched(model.decoder, states, "decoder "):
            output = model.decode(ids, memory)
    else:
        with _watched(model.stack, states):
            output = model(ids)
    return {**states, "logits" if isinstance(model.head, LanguageHead) else "output": output}


@contextmanager
def _watched(stack: Stack, states: dict[str, Tensor], side: str = "") -> Iterator[None]:
    """Fills `states` as the stack runs. Where it ends in a norm, the last state is what the norm gives.

    Of reversible layers, which have two states, it is the second: the one that their attention reads.
    """
    names = iter([f"{side}block {i + 1}" for i in range(len(stack.blocks))])
    last = f"{side}block {len(stack.blocks)}"

    def keep(name: Callable[[], str]) -> Callable[..., None]:
        return lambda _module, _args, out: states.__setitem__(name(), out[1] if isinstance(out, tuple) else out)

    handles = [stack.embedding.register_forward_hook(keep(lambda: f"{side}embedding"))]
    # named as they run, since layers may share one block
    handles += [block.register_forward_hook(keep(lambda: next(names))) for block in dict.fromkeys(stack.blocks)]
    if stack.norm is not None and not isinstance(stack, ReversibleStack):  # which norms both states, joined
        handles.append(stack.norm.register_forward_hook(keep(lambda: last)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def their_states(ours: Model | EncoderDecoder, theirs: Any, ids: Tensor) -> list[Tensor]:
    """The peer's hidden states in the order of ours, then its output."""
    if isinstance(ours, EncoderDecoder):
        out = theirs(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True)
        return [*out.encoder_hidden_states, *out.decoder_hidden_states, _their_output(ours, out)]
    out = theirs(input_ids=ids, output_hidden_states=True, **_plainly(ours, theirs, ids))
    states = out.hidden_states
    if theirs.config.model_type in (
        "mamba",
        "mamba2",
    ):  # no embeddings, but the last block without its norm and with it
        states = [theirs.get_input_embeddings()(ids), *states[:-2], states[-1]]
    return [*states, _their_output(ours, out)]


def _plainly(ours: Model, theirs: Any, ids: Tensor) -> dict[str, Tensor]:
    """What keeps a peer's heads for questions from guessing by separators which tokens are the question's."""
    none = torch.zeros_like(ids)
    # to XLNet no segments at all are something else than all tokens in the first
    some = ours.stack.segments > 1 and theirs.config.model_type != "xlnet"
    segments = {"token_type_ids": none} if some else {}
    spans = isinstance(ours.head, TokenHead) and hasattr(theirs, "qa_outputs")
    takes = "global_attention_mask" in signature(theirs.forward).parameters
    return {**segments, **({"global_attention_mask": none} if spans and takes else {})}


def _their_output(ours: Model | EncoderDecoder, out: Any) -> Tensor:
    if "start_logits" in out:
        return torch.stack([out.start_logits, out.end_logits], -1)
    for name in ("logits", "prediction_logits"):  # the second where a model was trained for two tasks
        if name in out:
            return out[name]
    # the peer's bare encoder: what a pooled head does after it is ours alone, from the peer's states.
    states = out.last_hidden_state
    if not isinstance(ours.head, EmbeddingHead):
        return states
    from cutaway.parts.call import context

    return ours.head(
        states, context(ours.vocab, torch.zeros(states.shape[:2], dtype=torch.int64), None, None, None, None)
    )

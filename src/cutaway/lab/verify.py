"""How close a model is to the same model in `transformers`: every hidden state, the output, and greedy tokens.

    max |ours − theirs|                      the absolute error
    max |ours − theirs| / max |theirs|       the relative error: against the largest number there is

In half precision two correct programs differ, since they round at different places. So there the table also has a
yardstick: how far `transformers` itself is from its own float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.errors import CutawayError
from cutaway.parts import EmbeddingHead, EncoderDecoder, Model, Stack

TEXT = (
    "A cutaway drawing shows a machine with its hood off, still running. The engine of a language model is attention."
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Row:
    """One tensor compared. `yardstick` is the peer's own relative distance from its float32."""

    name: str
    max_abs_error: float
    max_rel_error: float
    yardstick: float | None


@dataclass(frozen=True)
class Report:
    """One dtype's comparison. `greedy_tokens_equal` is None for a model that does not generate."""

    dtype: str
    rows: tuple[Row, ...]  # hidden states in order, the output last
    ours: list[int] | None
    theirs: list[int] | None

    @property
    def max_abs_error(self) -> float:
        """Of the output: logits, or what the model's head gives."""
        return self.rows[-1].max_abs_error

    @property
    def max_rel_error(self) -> float:
        """Of the output."""
        return self.rows[-1].max_rel_error

    @property
    def greedy_tokens_equal(self) -> bool | None:
        """Whether both continue the text with the same tokens."""
        return None if self.ours is None else self.ours == self.theirs

    def json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "max_abs_error": self.max_abs_error,
            "max_rel_error": self.max_rel_error,
            "greedy_tokens_equal": self.greedy_tokens_equal,
            "rows": [vars(row) for row in self.rows],
        }


def compare(
    ours: Model | EncoderDecoder, theirs: nn.Module, ids: Tensor, exact: Sequence[Tensor] | None = None
) -> tuple[tuple[Row, ...], list[Tensor]]:
    """The rows for one text, and the peer's tensors (pass those of float32 as `exact` for the yardstick).

    Args:
        ours, theirs: the same model, in the same dtype, here and in `transformers`.
        ids: (1, T); an encoder-decoder reads them on both sides.

    Raises:
        CutawayError: the two do not have as many hidden states, or not of the same shape.
    """
    with torch.no_grad():
        mine = _our_states(ours, ids)
        peer = _their_states(ours, theirs, ids)
    if [t.shape for t in mine.values()] != [t.shape for t in peer]:
        raise CutawayError(
            f"not the same model: {[tuple(t.shape) for t in mine.values()]} here, {[tuple(t.shape) for t in peer]} there"
        )
    rows = []
    for i, (name, a) in enumerate(mine.items()):
        yardstick = None if exact is None else _relative(peer[i], exact[i])
        rows.append(Row(name, _absolute(a, peer[i]), _relative(a, peer[i]), yardstick))
    return tuple(rows), peer


def _absolute(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()


def _relative(a: Tensor, b: Tensor) -> float:
    return _absolute(a, b) / max(b.double().abs().max().item(), torch.finfo(torch.float64).tiny)


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
    return {**states, "output" if model.head is None else "logits": output}


@contextmanager
def _watched(stack: Stack, states: dict[str, Tensor], side: str = "") -> Iterator[None]:
    """Fills `states` as the stack runs. Where it ends in a norm, the last state is what the norm gives."""
    last = f"{side}block {len(stack.blocks)}"
    names = {f"{side}embedding": stack.embedding}
    names |= {f"{side}block {i + 1}": block for i, block in enumerate(stack.blocks)}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _args, out: states.__setitem__(name, out)

    handles = [module.register_forward_hook(keep(name)) for name, module in names.items()]
    if stack.norm is not None:
        handles.append(stack.norm.register_forward_hook(keep(last)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _their_states(ours: Model | EncoderDecoder, theirs: Any, ids: Tensor) -> list[Tensor]:
    if isinstance(ours, EncoderDecoder):
        out = theirs(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True)
        return [*out.encoder_hidden_states, *out.decoder_hidden_states, out.logits]
    out = theirs(input_ids=ids, output_hidden_states=True)
    return [*out.hidden_states, _their_output(ours, out)]


def _their_output(ours: Model, out: Any) -> Tensor:
    if "start_logits" in out:
        return torch.stack([out.start_logits, out.end_logits], -1)
    if "logits" in out:
        return out.logits
    # The peer's bare encoder: what a pooled head does after it is ours alone, from the peer's states.
    states = out.last_hidden_state
    if not isinstance(ours.head, EmbeddingHead):
        return states
    from cutaway.parts.model import context

    return ours.head(
        states, context(ours.stack, torch.zeros(states.shape[:2], dtype=torch.int64), None, None, None, None)
    )


def continued(ours: Model | EncoderDecoder, theirs: Any, ids: Tensor, tokens: int) -> tuple[list[int], list[int]]:
    """Both greedy continuations of (1, T), exactly so many tokens: no token ends them."""
    from cutaway.generation import generate

    mine = generate(ours, ids, max_new_tokens=tokens, eos=()).ids[0]
    settings = theirs.generation_config
    settings.eos_token_id, settings.pad_token_id = None, 0
    out = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=tokens,
    )
    before = 1 if isinstance(ours, EncoderDecoder) else ids.shape[1]
    return mine, out[0, before:].tolist()


def load_peer(path: str, gguf: str | None, dtype: torch.dtype, architecture: str | None) -> nn.Module:
    """The model as `transformers` loads it.

    Raises:
        CutawayError: `transformers` is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise CutawayError(
            "verify compares with transformers, which is not installed: pip install 'cutaway[verify]'"
        ) from None
    kind = getattr(transformers, architecture) if architecture else transformers.AutoModel
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    more = {} if gguf is None else {"gguf_file": gguf}
    return kind.from_pretrained(path, dtype=dtype, **more).eval()

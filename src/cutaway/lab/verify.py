"""How close a model is to the same model in `transformers`: every hidden state, the output, and greedy tokens.

    max |ours − theirs|                      the absolute error
    max |ours − theirs| / max |theirs|       the relative error: against the largest number there is

In half precision two correct programs differ, since they round at different places. So there the table also has a
yardstick: how far `transformers` itself is from its own float32.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.api import Loaded, convert, load
from cutaway.checkpoints import PACKAGES, hub, native, sources
from cutaway.errors import CutawayError
from cutaway.parts import EmbeddingHead, EncoderDecoder, LanguageHead, Model, Stack

TEXT = (
    "A cutaway drawing shows a machine with its hood off, still running. The engine of a language model is attention."
)
PEERS = {
    "seq2seq": "AutoModelForSeq2SeqLM",
    "lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "sequence": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "span": "AutoModelForQuestionAnswering",
}
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
    return {**states, "logits" if isinstance(model.head, LanguageHead) else "output": output}


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
    from cutaway.parts.call import context

    return ours.head(
        states, context(ours.vocab, torch.zeros(states.shape[:2], dtype=torch.int64), None, None, None, None)
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


def verify(
    source: str, dtypes: Sequence[str] = ("float32",), *, text: str | None = None, new_tokens: int = 32
) -> list[Report]:
    """Load a source here and with `transformers`, and compare them in each dtype.

    Args:
        source: what `cutaway.load` takes, of a family that `transformers` has too.
        dtypes: names of `DTYPES`.
        text: what both read; `TEXT` by default, or some ids where there is no tokenizer.
        new_tokens: how many both continue the text with, greedily, where the model generates.

    Raises:
        CutawayError: `transformers` is not installed or cannot load the source, or the two are not the same model.
    """
    if new_tokens < 1:
        raise CutawayError(f"new_tokens is at least 1, not {new_tokens}")
    with _readable_by_both(source) as path:
        reports = []
        exact = None
        for dtype in dtypes:
            ours = load(source, DTYPES[dtype])
            ids = _ids(ours, text)
            if exact is None and dtype != "float32":
                exact = _their_states(ours.model, _peer(path, ours.model, "float32"), ids)
            theirs = _peer(path, ours.model, dtype)
            rows, peer = compare(ours.model, theirs, ids, None if dtype == "float32" else exact)
            exact = peer if dtype == "float32" else exact
            both = continued(ours.model, theirs, ids, new_tokens) if _generates(ours.model) else (None, None)
            reports.append(Report(dtype, rows, *both))
        return reports


def _generates(model: Model | EncoderDecoder) -> bool:
    return model.causal and isinstance(model.head, LanguageHead)


def _ids(loaded: Loaded, text: str | None) -> Tensor:
    if loaded.tokenizer is None:
        if text is not None:
            raise CutawayError("this source has no tokenizer, so it reads no text; leave the text out")
        return torch.arange(16)[None] * 7 % loaded.model.vocab
    ids = loaded.tokenizer.encode(TEXT if text is None else text)
    if not ids:
        raise CutawayError("the text is empty: there is nothing to compare")
    return torch.tensor([ids])


@contextmanager
def _readable_by_both(source: str) -> Iterator[Path]:
    """Where the files are. What only cutaway reads is written in the Hugging Face layout first."""
    if Path(source).expanduser().exists():
        path = Path(source).expanduser()
    elif source.lower() in PACKAGES:
        path = sources._packaged(PACKAGES[source.lower()], source)
    else:
        path = hub.fetch(source)
    if not (path / native.CARD).is_file():
        yield path
        return
    with TemporaryDirectory() as folder:
        yield convert(source, Path(folder) / "model", layout="huggingface")


def _peer(path: Path, ours: Model | EncoderDecoder, dtype: str) -> nn.Module:
    """The same model as `transformers` loads it."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # its bars would tear the shell's own
    try:
        import transformers
    except ImportError:
        raise CutawayError(
            "verify compares with transformers, which is not installed: pip install 'cutaway[verify]'"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    head = "seq2seq" if isinstance(ours, EncoderDecoder) else getattr(ours.sizes, "head", "none")
    kind = getattr(transformers, PEERS.get(head, "AutoModel"))
    folder, more = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    try:
        return kind.from_pretrained(folder, dtype=DTYPES[dtype], **more).eval()
    except (OSError, ValueError, ImportError) as error:
        raise CutawayError(f"transformers cannot load {path}: {error}") from error

"""How close a model is to the same model in `transformers`: every hidden state, the output, and greedy tokens.

In half precision two correct programs differ, since they round at different places. So there the table also has a
yardstick: how far `transformers` itself is from its own float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from cutaway import families
from cutaway.api import Loaded, convert, load
from cutaway.checkpoints import PACKAGES, adapters, hub, native, open_source, sources
from cutaway.errors import CutawayError
from cutaway.generation.subject import writes
from cutaway.lab.states import Row, compare, their_states
from cutaway.parts import EncoderDecoder, Model, lora

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
    "discriminator": "AutoModelForPreTraining",
}
INSTALL = "type, in cutaway's own folder: pip install -e '.[verify]'"
OUTPUT_ALONE = "transformers gives other hidden states than these layers have, so the output alone is compared"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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

    @property
    def note(self) -> str | None:
        """What could not be compared."""
        return OUTPUT_ALONE if len(self.rows) == 1 else None

    def json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "max_abs_error": self.max_abs_error,
            "max_rel_error": self.max_rel_error,
            "greedy_tokens_equal": self.greedy_tokens_equal,
            "rows": [vars(row) for row in self.rows],
            "note": self.note,
        }


def continued(ours: Model | EncoderDecoder, theirs: Any, ids: Tensor, tokens: int) -> tuple[list[int], list[int]]:
    """Both greedy continuations of (1, T), exactly so many tokens: no token ends them."""
    from cutaway.generation import generate

    mine = generate(ours, ids, max_new_tokens=tokens, eos=()).ids[0]
    settings = theirs.generation_config
    settings.eos_token_id, settings.pad_token_id = None, 0
    for name in ("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "no_repeat_ngram_size", "min_length"):
        setattr(settings, name, None)
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
        _check_installed(("transformers",) if path.is_dir() else ("transformers", "accelerate", "gguf"))
        reports = []
        exact = None
        for dtype in dtypes:
            ours = load(source, DTYPES[dtype])
            lora.merge(ours.model)
            ids = _ids(ours, text)
            if exact is None and dtype != "float32":
                exact = their_states(ours.model, _peer(path, ours.model, "float32"), ids)
            theirs = _peer(path, ours.model, dtype)
            try:
                rows, peer = compare(ours.model, theirs, ids, None if dtype == "float32" else exact)
            except RuntimeError as error:
                if dtype == "float32":
                    raise
                raise CutawayError(
                    f"transformers cannot run this model in {dtype} ({error}); compare in float32 alone: --dtypes float32"
                ) from error
            exact = peer if dtype == "float32" else exact
            both = continued(ours.model, theirs, ids, new_tokens) if writes(ours.model) else (None, None)
            reports.append(Report(dtype, rows, *both))
        return reports


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
    family = open_source(source).family
    if not families.get(family).MODEL_TYPES:
        raise CutawayError(f"transformers has no {family} family, so there is nothing to compare {source} with")
    if Path(source).expanduser().exists():
        path = sources.of_run(Path(source).expanduser())
    elif source.lower() in PACKAGES:
        path = sources.locate(source)
    else:
        path = hub.fetch(source)
    if not ((path / native.CARD).is_file() or adapters.is_adapter(path)):
        yield path
        return
    with TemporaryDirectory() as folder:
        yield convert(source, Path(folder) / "model", layout="huggingface")


def _check_installed(packages: Sequence[str]) -> None:
    for name in packages:
        if find_spec(name) is None:
            raise CutawayError(f"verify needs {name}, which is not installed; {INSTALL}")


def _peer(path: Path, ours: Model | EncoderDecoder, dtype: str) -> nn.Module:
    """The same model as `transformers` loads it."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # its bars would tear the shell's own
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    head = getattr(ours.sizes, "head", "lm" if isinstance(ours, EncoderDecoder) else "none")
    head = "seq2seq" if isinstance(ours, EncoderDecoder) and head == "lm" else head
    kind = getattr(transformers, PEERS.get(head, "AutoModel"))
    folder, more = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    try:
        return kind.from_pretrained(folder, dtype=DTYPES[dtype], **more).eval()
    except (OSError, ValueError, ImportError) as error:
        raise CutawayError(f"transformers cannot load {path}: {error}") from error

"""A decoder as EleutherAI's evaluation harness asks it, so that every task of `lm-eval` runs on it.

    python -m cutaway.training.harness run --model cutaway --model_args source=smollm2 --tasks arc_easy

The arguments are lm-eval's own, with one more name for `--model`. In Python: `lm_eval.simple_evaluate(Harness("smollm2"),
tasks=[…])`. It is asked three things: how likely a continuation is after a context, how likely a whole text is, and what
it writes until it is stopped. A context that is too long loses its beginning, as with the harness's own models.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from cutaway import api
from cutaway.errors import CutawayError
from cutaway.generation import generate
from cutaway.parts import LanguageHead, Model
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.objective import given
from cutaway.training.objectives.ragged import laid

try:
    from lm_eval import utils
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
except ImportError:
    raise TrainingError("this needs lm-eval, which is not installed: pip install 'cutaway[harness]'") from None

LENGTH = 2048  # of what is read at once, where the model has no end


@register_model("cutaway")
class Harness(TemplateLM):
    """A model of cutaway for `lm_eval`.

    Args:
        source: of a decoder with a tokenizer; or what `cutaway.load` returned.
        batch_size: rows at once.
        max_length: tokens at once; what the model takes, or 2,048, if not given.
        adapter, dtype, device: as for `cutaway.load`; float32, and a GPU where there is one, if not given.

    Raises:
        TrainingError: it is no decoder, or has no tokenizer.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | api.Loaded,
        *,
        batch_size: int | str = 8,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        adapter: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(source, api.Loaded):
            device = device or "cuda"
            if device.startswith("cuda") and not torch.cuda.is_available():  # lm-eval's shell says so, wherever it runs
                device = "cpu"
            source = api.load(source, dtype, device, adapter=adapter)
        model = source.model
        if not (isinstance(model, Model) and model.causal and isinstance(model.head, LanguageHead)):
            raise TrainingError("only a decoder says how likely a text is: give the harness the source of one")
        if source.tokenizer is None:
            raise TrainingError(f"{source.source} has no tokenizer, so there is nothing to read texts with")
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise TrainingError(f"batch_size is a whole number from 1 here, not {batch_size!r}")
        self.loaded, self.model, self.cut = source, model, source.tokenizer
        self._device = next(model.parameters()).device
        self.batch_size = int(batch_size)
        self.max_length = max_length or model.max_positions or LENGTH

    @property
    def eot_token_id(self) -> int:
        if self.cut.eos_id is None:
            raise TrainingError(f"{self.loaded.source} has no token that ends a text, so an empty context has none")
        return self.cut.eos_id

    @property
    def prefix_token_id(self) -> int:
        return self.eot_token_id if self.cut.bos_id is None else self.cut.bos_id

    @property
    def tokenizer_name(self) -> str:
        return self.loaded.source.replace(os.sep, "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.cut.chat_template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.cut.chat(chat_history, add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.cut.encode(string, special=add_special_tokens is not False)

    @torch.no_grad()
    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Of each continuation its log-probability after its context, and whether greedy decoding would write it."""
        rows = [((before + after)[-self.max_length - 1 :], len(after)) for _, before, after in requests]
        if (longest := max((count for _, count in rows), default=0)) > self.max_length:
            raise TrainingError(f"a continuation has {longest} tokens; this model takes {self.max_length} at once")
        found: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))  # alike together, the longest first
        for start in range(0, len(order), self.batch_size):
            some = order[start : start + self.batch_size]
            read = laid([torch.tensor(rows[i][0][:-1]) for i in some])
            padding = None if read.padding is None else read.padding.to(self.device)
            logits = self.model(**given(ids=read.ids.to(self.device), padding=padding))
            for i, row in zip(some, logits, strict=True):
                ids, count = rows[i]
                asked = torch.tensor(ids[-count:], device=self.device)
                scores = row[len(ids) - 1 - count : len(ids) - 1].float().log_softmax(-1)  # (count, V)
                greedy = bool((scores.argmax(-1) == asked).all())
                found[i] = (float(scores.gather(-1, asked[:, None]).sum()), greedy)
                if requests[i][0] is not None:  # it is, for a window of a whole text
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], found[i])
        return [found[i] for i in range(len(rows))]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        windows: list[tuple[int, tuple[None, list[int], list[int]]]] = []
        for number, (text,) in enumerate(request.args for request in requests):
            ids = self.tok_encode(text)
            for window in utils.get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1):
                windows.append((number, (None, *utils.make_disjoint_window(window))))
        sums = [0.0] * len(requests)
        for (number, _), (score, _) in zip(windows, self._loglikelihood_tokens([w for _, w in windows]), strict=True):
            sums[number] += score
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        found: dict[int, str] = {}
        alike: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            alike.setdefault(repr(request.args[1]), []).append(i)
        for some in alike.values():
            asked: dict[str, Any] = {**normalize_gen_kwargs(requests[some[0]].args[1])}
            new, until = asked.pop("max_gen_toks"), asked.pop("until", None) or ()
            room = self.max_length - new
            if room < 1:
                raise TrainingError(f"the task lets {new} tokens be written; this model takes {self.max_length} in all")
            options = {name: asked[name] for name in ("temperature", "top_k", "top_p", "min_p") if asked.get(name)}
            for start in range(0, len(some), self.batch_size):
                rows = some[start : start + self.batch_size]
                prompts = [self.tok_encode(requests[i].args[0])[-room:] for i in rows]
                made = generate(self.loaded, prompts, max_new_tokens=new, stop=until, **options)
                found.update(zip(rows, made.texts or (), strict=True))
        return [found[i] for i in range(len(requests))]


if __name__ == "__main__":
    import sys

    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except CutawayError as error:
        print(f"cutaway: {error}", file=sys.stderr)
        sys.exit(2)

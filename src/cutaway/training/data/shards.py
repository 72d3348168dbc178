"""From examples to token ids."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cutaway.text import Tokenizer
from cutaway.training.data.sources import Examples
from cutaway.training.data.tokens import Tokens
from cutaway.training.errors import DataError

Around = Literal["end", "special", "nothing"]


def tokenise(
    examples: Examples,
    tokenizer: Tokenizer,
    column: str | None = None,
    *,
    around: Around = "end",
    parse_special: bool = False,
) -> Tokens:
    """The ids of the texts of one column.

    `around`: what stands around each text: its "end" (the tokenizer's EOS, where it has one), all "special" tokens that
    the model was made for ([CLS] … [SEP]), or "nothing". `parse_special`: whether "<s>" written in a text is that token.
    """
    end = [tokenizer.eos_id] if around == "end" and tokenizer.eos_id is not None else []
    parts, ends, count = [], [], 0
    for (text,), whole in examples.texts(column):
        if around == "special" and not whole:
            raise DataError(f"{examples.name} is one long text; 'special' tokens stand around short ones")
        ids = tokenizer.encode(text, special=around == "special", parse_special=parse_special) + (end if whole else [])
        parts.append(np.asarray(ids, np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32))
        count += len(ids)
        if whole:
            ends.append(count)
    return Tokens([np.concatenate(parts)], np.asarray(ends, np.int64), tokenizer.vocab_size)

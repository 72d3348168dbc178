"""What mixing tokens costs, in words, read off the parts that do it.

Softmax attention costs what its mask lets tokens see. Every other mixer declares its time, memory and what it remembers
in its docstring, in a paragraph with O(…), and that paragraph is what is shown.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator

from torch import nn

from cutaway.lab.anatomy import looks
from cutaway.parts import Attention, EncoderDecoder, FeedForward, Gated, Model

FULL = "time O(T²·D), memory O(T·D) with fused kernels"
CROSS = "time O(T·S·D), memory O((T + S)·D) with fused kernels; at decoding the source's keys and values, once"


def costs(model: Model | EncoderDecoder) -> dict[str, str]:
    """Of each kind of mixer in the model's blocks, what it costs a layer, for T tokens (and S source tokens)."""
    found: dict[str, str] = {}
    for part in _mixers(model):
        if not isinstance(part, Attention):
            found.setdefault(type(part).__name__, declared(type(part)) or "not said")
            continue
        said = CROSS if part.cross else _attention(part)
        bias = declared(type(part.score_bias)) if part.score_bias is not None and not part.cross else None
        if bias:
            said += f". What is added to the scores: {bias[0].lower()}{bias[1:]}"
        seen = "the encoder's output" if part.cross else looks(part.mask)
        found.setdefault(f"attention, {seen}", said)
    return found


def declared(kind: type) -> str | None:
    """What a part's docstring, or else its module's, says from its first O(…) to the end of the paragraph."""
    for base in kind.__mro__:
        if not base.__module__.startswith("cutaway."):
            continue
        for doc in (base.__doc__, sys.modules[base.__module__].__doc__):
            paragraphs = inspect.cleandoc(doc or "").split("\n\n")
            for paragraph in (" ".join(each.split()) for each in paragraphs):
                if "O(" in paragraph:
                    return _from_sentence(paragraph)
    return None


def _from_sentence(paragraph: str) -> str:
    before = paragraph[: paragraph.index("O(")]
    starts = [match.end() for match in re.finditer(r"[.)] (?=[A-Z])", before)]
    return paragraph[starts[-1] if starts else 0 :]


def _mixers(model: Model | EncoderDecoder) -> Iterator[nn.Module]:
    stacks = [model.encoder, model.decoder] if isinstance(model, EncoderDecoder) else [model.stack]
    for block in (block for stack in stacks for block in stack.blocks):
        for sublayer in block.children():
            inner = getattr(sublayer, "inner", sublayer)
            if not isinstance(inner, (FeedForward, Gated)) and any(True for _ in inner.parameters()):
                yield inner


def _attention(a: Attention) -> str:
    size = a.mask.window
    causal = a.mask.causal
    if size is None:
        said = FULL
    else:
        said = f"time O(T·w·D), memory O(T·D), with w = {size if causal else 2 * size - 1:,} tokens in sight"
    if not causal:
        return said
    numbers = f"2·G·E = {2 * a.kv_heads * a.head_width:,} numbers"
    if size is None:
        return f"{said}; at decoding {numbers} a token, O(T)"
    return f"{said}; at decoding at most w · {numbers}, O(1)"

"""How well a decoder foresees a text: the loss of each token, from windows that slide over the text.

    perplexity = exp(Σ_t -log p(x_t | before t) / tokens)        bits per byte = Σ_t -log2 p(x_t | before t) / bytes

A window has room for `length` tokens. The next one begins `stride` tokens later and is asked only for what no window before
it was, so that each token is asked for once, with at least `length - stride` tokens before it (the first ones of a document
aside). A smaller stride is closer to what the model would say with all of the past, and takes length / stride times the work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from cutaway.parts import LanguageHead, Model
from cutaway.text import Tokenizer
from cutaway.training.batch import IGNORED
from cutaway.training.errors import DataError, TrainingError
from cutaway.training.objectives.objective import given, real, words
from cutaway.training.objectives.ragged import laid

LENGTH = 1024  # of a window, where the model would take more


def windows(count: int, length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """The windows over a document of `count` tokens: what is read is [begin, end - 1), what is asked for [asked, end)."""
    done = 1  # nothing comes before the first
    for begin in range(0, count, stride):
        end = min(begin + length + 1, count)
        if done < end:
            yield begin, done, end
        done = end
        if end == count:
            return


@torch.no_grad()
def perplexity(
    model: Any,
    tokenizer: Tokenizer,
    texts: Iterable[tuple[str, bool]],
    *,
    length: int | None = None,
    stride: int | None = None,
    rows: int = 8,
) -> dict[str, float]:
    """Scores of texts, each a document of its own: no window sees two.

    Where the tokenizer has a token that begins a text, the first token of a document is guessed from that one. Else nobody
    guesses it: it does not count for the perplexity, and counts for the bits as if all tokens were equally likely.

    Args:
        texts: and whether each is whole; of one that is not, the next is the continuation.
        length: what a window has room for; as much as the model takes, up to 1,024, if not given.
        stride: half the length if not given.
        rows: windows at once.

    Returns:
        "perplexity", "bits_per_byte", "loss" (nats a token); "tokens" that were asked for, "bytes", "documents"; and the
        "length" and "stride", without which a perplexity says little.
    """
    if not (isinstance(model, Model) and model.causal and isinstance(model.head, LanguageHead)):
        raise TrainingError(
            "only a decoder guesses each token from those before it, so this model has no perplexity: say which task it is "
            "to be scored by (--task), or tune it for one (`cutaway finetune`)"
        )
    most = model.max_positions
    length = length or min(most or LENGTH, LENGTH)
    stride = stride or max(1, length // 2)
    if most is not None and length > most:
        raise TrainingError(f"this model has {most} positions: give a --data.length of at most {most}")
    if stride > length:
        raise TrainingError(
            f"a stride of {stride} leaves out tokens between windows of {length}: give at most {length}"
        )
    found: list[tuple[Sequence[int], int]] = []  # of each window: its ids, and how many of the last are asked for
    octets = documents = unasked = 0
    prefix, ids = list(tokenizer.around()[0]), []
    for text, whole in texts:
        octets += len(text.encode())
        ids += tokenizer.encode(text, special=False, parse_special=False)
        if whole:
            documents += 1
            unasked += bool(ids and not prefix)
            ids = prefix + ids
            found += [(ids[begin:end], end - asked) for begin, asked, end in windows(len(ids), length, stride)]
            ids = []
    if not found:
        raise DataError("there is nothing to foresee: every text has one token at most")
    found.sort(key=lambda window: -len(window[0]))  # alike together; the largest first, if memory should fail
    device, total, count = next(model.parameters()).device, 0.0, 0
    for start in range(0, len(found), rows):
        some = found[start : start + rows]
        whole_rows = laid([torch.tensor(ids) for ids, _ in some])
        there, width = real(whole_rows), whole_rows.ids.shape[1]
        last = torch.tensor([len(ids) - asked for ids, asked in some])  # where what is asked for begins
        asked = there & (torch.arange(width) >= last[:, None])
        targets = whole_rows.ids.where(asked, IGNORED)[:, 1:]
        padding = None if whole_rows.padding is None else there[:, 1:].to(device)
        states = model(**given(ids=whole_rows.ids[:, :-1].to(device), padding=padding), head=False)
        loss = words(model, states, targets.to(device))
        total, count = total + float(loss.total), count + int(loss.count)
    bits = (total + unasked * math.log(model.vocab)) / math.log(2)
    return {
        "perplexity": math.exp(total / count),
        "bits_per_byte": bits / octets,
        "loss": total / count,
        "tokens": count,
        "bytes": octets,
        "documents": documents,
        "length": length,
        "stride": stride,
    }

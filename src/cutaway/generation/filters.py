"""The filters between a model's logits and the distribution a token is drawn from, and the draw itself.

Every filter is a pure function (B, V) -> (B, V) that puts -inf where a token is ruled out. Logits are float32
or float64, with at least one finite value a row and no NaN (`sampling.py` sees to both).

References: top-k, Fan et al. 2018 (arXiv:1805.04833); top-p, Holtzman et al. 2020 (arXiv:1904.09751, section
3.1); min-p, Nguyen et al. 2024 (arXiv:2407.01082); the penalty, Keskar et al. 2019 (arXiv:1909.05858, 4.1).
"""

import math

import torch
from torch import Tensor

from cutaway.errors import CutawayError

RULED_OUT = -math.inf
FIRST_GLANCE = 256  # how many of the likeliest tokens top-p looks at before it looks at more


def penalise(logits: Tensor, seen: Tensor | None, penalty: float) -> Tensor:
    """Make tokens in `seen` Bool (B, V) less likely: positive logits / penalty, negative logits * penalty."""
    if seen is None or penalty == 1:
        return logits
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def scale(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature, shifted so that the best is 0: no temperature is so small that this overflows."""
    best = logits.amax(-1, keepdim=True)
    return (logits - best) / max(temperature, torch.finfo(logits.dtype).tiny)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k most likely tokens, and those as likely as the k-th."""
    if k >= logits.shape[-1]:
        return logits
    weakest = logits.topk(k, -1).values[:, -1:]
    return logits.masked_fill(logits < weakest, RULED_OUT)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest most likely tokens whose probabilities together reach p: the one that crosses p too.

    Of equally likely tokens at the edge the lower ids stay. Sorts no more of the vocabulary than it needs.
    """
    vocab = logits.shape[-1]
    if p >= 1:
        return logits
    total = logits.logsumexp(-1, keepdim=True)
    width = min(FIRST_GLANCE, vocab)
    while True:
        top = logits.topk(width, -1).values  # (B, width), falling
        mass = (top - total).exp().cumsum(-1, dtype=torch.float64)
        if width == vocab or bool((mass[:, -1] >= p).all()):
            break
        width = min(16 * width, vocab)
    count = 1 + (mass[:, :-1] < p).sum(-1, keepdim=True)  # the first, and all whose predecessors fall short of p
    edge = top.gather(-1, count - 1)
    kept = logits >= edge
    if bool((kept.sum(-1, keepdim=True) > count).any()):
        tied = logits == edge
        above = (logits > edge).sum(-1, keepdim=True)
        kept &= ~tied | (tied.cumsum(-1) <= count - above)
    return logits.masked_fill(~kept, RULED_OUT)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens at least p times as likely as the most likely one."""
    ratio = (logits - logits.amax(-1, keepdim=True)).exp()
    return logits.masked_fill(ratio < p, RULED_OUT)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """(B, V), numbers (B,) from [0, 1) -> ids (B,): the first token whose running sum exceeds the number.

    One number a row, so that a row's draws do not depend on the rows beside it. The sums are float64: no bias
    at large vocabularies. A token of probability 0 is never drawn.
    """
    running = probabilities.cumsum(-1, dtype=torch.float64)
    total = running[:, -1:]
    target = torch.minimum(uniform[:, None] * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(running, target, right=True)[:, 0]


def seen_tokens(previous: Tensor | None, logits: Tensor) -> Tensor | None:
    """Int (B, T), negative = padding -> Bool (B, V): which tokens of the vocabulary each row has had."""
    if previous is None:
        return None
    rows, vocab = logits.shape
    if previous.dim() != 2 or len(previous) != rows:
        raise CutawayError(f"previous: must be (B, T) with B = {rows} as in logits, not {tuple(previous.shape)}.")
    if previous.numel() and int(previous.max()) >= vocab:
        raise CutawayError(f"previous: token {int(previous.max())} is outside the vocabulary of {vocab}.")
    previous = previous.to(logits.device)
    seen = torch.zeros(rows, vocab + 1, dtype=torch.bool, device=logits.device)  # one more column takes padding
    seen.scatter_(1, torch.where(previous < 0, vocab, previous), True)
    return seen[:, :vocab]

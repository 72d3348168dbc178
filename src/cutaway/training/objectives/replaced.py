"""A small generator fills masks, and the model tells for every token whether it was replaced (Clark et al. 2020, section 2).

    loss = mean over masked of -log p_G(x_t)  +  λ · mean over all of the discriminator's binary cross-entropy,   λ = 50

The generator learns by maximum likelihood only: no gradient goes through what it drew. The two share the tables of the
embedding (section 3.2). Where it draws the token that was there, that token counts as not replaced.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.api import build
from cutaway.axes import Float, Int
from cutaway.training.batch import IGNORED, Batch, Labelled, Loss, Pairs, Rows
from cutaway.training.cross_entropy import ELEMENTS, cross_entropy
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.masked import Masked
from cutaway.training.objectives.vocabulary import Vocabulary


class Replaced:
    """
    Args:
        vocabulary: which ids are ordinary, and which one masks.
        model: the discriminator, whose tables the generator shares.
        rate: the share of tokens that the generator fills.
        weight: λ.
        generator: its width as a share of the model's (section 3.2: best between 1/4 and 1/2).
    """

    def __init__(
        self, vocabulary: Vocabulary, model: Any, *, rate: float = 0.15, weight: float = 50.0, generator: float = 0.25
    ) -> None:
        self.masked = Masked(vocabulary, rate=rate, masked=1.0, replaced=0.0)
        self.rate, self.weight = rate, weight
        self.modules: dict[str, nn.Module] = {"generator": generator_for(model, generator)}

    def batch(self, rows: Rows | Pairs | Labelled, draw: torch.Generator) -> Batch:
        batch = self.masked.batch(rows, draw)
        batch.given["luck"] = torch.rand(batch.targets.shape, generator=draw)
        return batch

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """The count is of all tokens. The generator's sum is over `rate` of them, so it is divided by the rate: over
        several batches and processes that is the mean over what was masked, up to how many that came to be.
        """
        generator, asked = self.modules["generator"], batch.targets != IGNORED
        x = generator(**batch.inputs, head=False)
        guess, _ = cross_entropy(generator.head, x, batch.targets)  # type: ignore[arg-type]
        drawn = batch.inputs["ids"].clone()
        drawn[asked] = sample(generator.head, x[asked], batch.given["luck"][asked])  # type: ignore[arg-type]
        logits = model(**{**batch.inputs, "ids": drawn}).float()
        replaced = asked & (drawn != batch.targets)
        there = batch.inputs.get("padding", torch.ones_like(asked))
        told = F.binary_cross_entropy_with_logits(logits[there], replaced[there].to(logits.dtype), reduction="sum")
        extra = {
            "generator": guess.detach() / self.rate,
            "discriminator": told.detach(),
            "accuracy": ((logits > 0) == replaced)[there].sum(),
        }
        return Loss(guess / self.rate + self.weight * told, there.sum(), extra)


@torch.no_grad()
def sample(head: nn.Module, x: Float[Tensor, "n d"], luck: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """A token for each state, drawn from what the head says of it: where the sum of probabilities passes `luck`."""
    found, rows = [], max(1, ELEMENTS // head.tokens.weight.shape[0])  # type: ignore[union-attr,index]
    for states, point in zip(x.split(rows), luck.split(rows), strict=True):
        passed = head(states[None])[0].float().softmax(-1).cumsum(-1)
        found.append(torch.searchsorted(passed, point[:, None] * passed[:, -1:], right=True)[:, 0])
    return torch.cat(found).clamp(max=head.tokens.weight.shape[0] - 1)  # type: ignore[union-attr,index]


def generator_for(model: Any, share: float) -> nn.Module:
    """A narrower model of the same layers and heads as wide, whose tables are the model's own.

    Raises:
        TrainingError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise TrainingError(f"generator {share} is a share of the model's width: above 0 and up to 1")
    sizes = {f.name: getattr(model.sizes, f.name) for f in fields(model.sizes)}
    heads = max(1, round(sizes["heads"] * share))
    width = sizes["width"] // sizes["heads"] * heads
    sizes |= {"width": width, "heads": heads, "hidden": max(1, sizes["hidden"] * width // sizes["width"])}
    at = model.stack.embedding.tokens.weight
    made = build(model.family, **{**sizes, "head": "masked-lm"}, **model.swaps, device=at.device, dtype=at.dtype)
    ours, theirs = made.stack.embedding, model.stack.embedding
    ours.tokens, ours.steps = theirs.tokens, theirs.steps
    if sizes["tied"]:
        made.head.tokens = theirs.tokens
    return made.train()

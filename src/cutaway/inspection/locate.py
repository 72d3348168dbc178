"""The position encodings inside a model, as arrays that can be drawn."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from cutaway.inspection.encodings import Kind
from cutaway.parts.position import LearnedPositions, SinusoidalPositions
from cutaway.parts.relative import ALiBi, T5Bias
from cutaway.parts.rotary import Rotary

FEWEST, MOST = 128, 512  # positions drawn, between these by the length of the text
NEAR = 64  # positions of a bias matrix, which repeats along its diagonals


def encodings_of(model: nn.Module, length: int) -> Iterator[tuple[np.ndarray, Kind, str]]:
    """Each encoding once (layers share theirs): its array, its kind as `positions` names it, and a title."""
    seen: set[Hashable] = set()
    pos = torch.arange(max(FEWEST, min(length, MOST)), device=next(model.parameters()).device)
    for path, part in model.named_modules():
        learned = isinstance(part, (LearnedPositions, T5Bias))  # what is computed is the same on both sides
        side = path.split(".")[0] if learned and path.startswith(("encoder.", "decoder.")) else ""
        drawn = _draw(part, pos)
        if drawn is None:
            continue
        values, kind, title = drawn
        array = values.detach().float().cpu().numpy()
        key = (title, side, array.tobytes())
        if key not in seen:
            seen.add(key)
            yield array, kind, f"{title} ({side})" if side else title


def _draw(part: nn.Module, pos: Tensor) -> tuple[Tensor, Kind, str] | None:
    if isinstance(part, SinusoidalPositions):
        return part.table(pos[None])[0], "table", "Sinusoidal positions"
    if isinstance(part, LearnedPositions):
        return part.weight[part.offset : part.offset + len(pos)], "table", "Learned positions"
    if isinstance(part, Rotary):
        return pos[:, None].cpu() * part.frequencies[None], "rotary", f"Rotary angles, base {part.base:g}"
    if isinstance(part, (T5Bias, ALiBi)):
        title = "T5’s relative bias" if isinstance(part, T5Bias) else "ALiBi"
        return part.pattern(pos[None, :NEAR], pos[None, :NEAR])[0], "bias", title
    return None

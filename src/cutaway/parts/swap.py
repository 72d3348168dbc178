"""What a user may put in place of a family's own parts: the types of the keyword arguments that every `compose` takes.

    norm         called once for each norm
    position     called once for each stack, with True where it is a decoder's; gives `Positions`
    feedforward  called once for each block
    mixer        called as `Attention` is, once for each self-attention, in the order of the blocks

Each defaults to what the family published.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from cutaway.parts.position import Positions

MakeNorm = Callable[[], nn.Module]
MakePosition = Callable[[bool], Positions]
MakeFeedForward = Callable[[], nn.Module]
MakeMixer = Callable[..., nn.Module]

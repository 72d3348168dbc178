"""What a part may know besides its input: where tokens stand, what was remembered, where in the model we are."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from cutaway.attention.scores import Packing
from cutaway.axes import Bool, Float, Int

if TYPE_CHECKING:
    from cutaway.parts.state import State

Made = TypeVar("Made")


@dataclass(frozen=True)
class Context:
    """Made anew for every forward, never reused. Everything that mixes tokens has the signature `mixer(x, ctx) -> x`.

    `pos` has one row where all sequences stand alike (no padding), else B rows. `fresh` and `packing` are static:
    they follow from how the model was called, not from the contents of a tensor.
    """

    pos: Int[Tensor, "#b q"]  # absolute position of each token of this call; -1 on padding
    packing: Packing = "none"  # where padding may stand
    state: State | None = None  # what earlier calls left; None in training and single passes
    fresh: bool = True  # nothing came before this call
    site: str = ""  # the path of the part that runs, e.g. "decoder.blocks.3.attention"
    memory: Float[Tensor, "b s d"] | None = None  # what cross-attention looks at: the encoder's output
    memory_pos: Int[Tensor, "#b s"] | None = None
    memory_packing: Packing = "none"
    documents: Int[Tensor, "#b q"] | None = None  # which text each token is of, where several share a row
    ids: Int[Tensor, "b q"] | None = None  # the tokens themselves, for what is looked up of several together
    segments: Int[Tensor, "#b q"] | None = None  # sentence A or B (BERT)
    global_mask: Bool[Tensor, "#b q"] | None = None  # tokens that all look at, and that look at all (Longformer)
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False)  # shared by one forward

    def enter(self, name: str) -> Context:
        """The context of the part `name` inside this one."""
        inside = object.__new__(type(self))  # `replace` would run the constructor, three times a layer
        inside.__dict__.update(self.__dict__, site=f"{self.site}.{name}" if self.site else name)
        return inside

    def once(self, key: Hashable, build: Callable[[], Made]) -> Made:
        """What `build` makes, made once a forward: masks, rotary angles, position biases are shared by the layers."""
        if key not in self.memo:
            self.memo[key] = build()
        return self.memo[key]

"""A checkpoint opened: what it says it is, and its tensors, none of them read yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.checkpoints.stored import Stored
from cutaway.layout import Rule

if TYPE_CHECKING:
    from cutaway.text import Tokenizer


@dataclass
class Checkpoint:
    """What every source opens as.

    Attributes:
        source: as the user named it.
        family: the name of its family.
        sizes: that family's `Sizes`.
        tensors: the published tensors by their published names.
        rules: published names to ours; None where the names are ours already.
        tokenizer: makes the tokenizer that lies beside the weights; None where there is none.
        swaps: the parts, by name, that stand in the place of the family's own.
        generation: the published generation settings (end-of-text ids and the like).
        label_names: what its classes are called, where it has such and names them.
        adapter: the folder of an adapter that goes beside the model.
    """

    source: str
    family: str
    sizes: Any
    tensors: Mapping[str, Stored]
    rules: Sequence[Rule] | None = None
    tokenizer: "Callable[[], Tokenizer | None]" = lambda: None
    generation: dict[str, Any] = field(default_factory=dict)
    swaps: dict[str, Any] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()
    adapter: Path | None = None

"""The processes that train together: which one this is, and how their numbers become one."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class World:
    """One process alone. Where there are several, `sum` adds over them all."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def sum(self, x: Tensor) -> Tensor:
        return x

    def sum_gradients(self, modules: object) -> None:
        """Adds up the gradients of all processes."""

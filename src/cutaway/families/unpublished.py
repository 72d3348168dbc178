"""What stands at the end of the files of families whose checkpoints have no common format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

from cutaway.errors import ConfigError
from cutaway.layout import Rule

Format = tuple[
    tuple[str, ...], Callable[..., NoReturn], Callable[[Any], NoReturn], Callable[[Any], list[Rule]]
]  # MODEL_TYPES, read, write, weights


def unpublished(title: str) -> Format:
    """No model types, and a `read`, a `write` and `weights` that say so: such a model is kept in cutaway's own layout."""

    def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> NoReturn:
        raise ConfigError(f"{title} has no published configuration format; `cutaway.build` makes one")

    def write(sizes: Any) -> NoReturn:
        raise ConfigError(f"{title} has no Hugging Face format; save it with layout='cutaway'")

    return (), read, write, lambda sizes: []

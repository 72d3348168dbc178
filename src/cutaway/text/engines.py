"""What `Tokenizer` asks of the library that does the cutting, and what it must know about the result."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from cutaway.text.stream import Bytes, Spacing


class Engine(Protocol):
    """Cuts text into ids. `RustEngine` (the `tokenizers` library), `SentencePieceEngine`, `MarianEngine`."""

    specials: dict[str, int]  # texts of control tokens
    spacing: Spacing
    size: int

    def ids(self, text: str, literal: bool = False) -> list[int]:
        """Ids of `text`, nothing added around it. `literal`: the text of a control token is text like any other."""
        ...

    def ids_each(self, texts: list[str], literal: bool = False) -> list[list[int]]:
        """`ids` of each text."""
        ...

    def continue_ids(self, text: str) -> list[int]:
        """Ids of literal `text` that stands right after a control token, so is not the start of the whole text."""
        ...

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of literal `text`, and the characters that each is of."""
        ...

    def between(self, prefix: list[int], suffix: list[int]) -> tuple[list[int], list[int], list[int]]:
        """The ids before, between and after two texts, where `prefix` and `suffix` stand around one."""
        ...

    def bytes_of(self, index: int) -> Bytes: ...

    def piece(self, index: int) -> str | None:
        """The token as the vocabulary spells it; None beyond the vocabulary."""
        ...

    def index(self, piece: str) -> int | None: ...

    def to_json(self, prefix: list[int], suffix: list[int]) -> str | None:
        """The text of a `tokenizer.json` that cuts the same way; None where none can."""
        ...

    def config(self, prefix: list[int], suffix: list[int]) -> dict[str, Any]:
        """Entries that `tokenizer_config.json` needs for this engine to be found again."""
        ...

    def files(self) -> dict[str, bytes]:
        """Further files worth keeping, by name."""
        ...


@dataclass(frozen=True)
class Roles:
    """Which control token plays which part, by text; and the ids put around every text (`prefix`, `suffix`)."""

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    unk: str | None = None
    cls: str | None = None
    sep: str | None = None
    mask: str | None = None
    prefix: list[int] = field(default_factory=list)
    suffix: list[int] = field(default_factory=list)
    more_eos: frozenset[int] = frozenset()  # ids that end a turn besides `eos`
    max_length: int | None = None  # T

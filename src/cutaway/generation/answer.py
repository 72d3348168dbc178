"""One row's answer as it grows: tokens, text, and when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Finish = Literal["eos", "stop", "length"]


class StopText:
    """Lets text through up to the first stop string, which it swallows.

    Text that may be the beginning of a stop string is held back until it is clear, so a stop string is never shown
    in part, however the tokens cut it. Of several, the one that ends first counts (then the one that begins first):
    so the result does not depend on how the text was cut.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = stops
        self.held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """More text -> (what may be shown now, whether a stop string was found)."""
        self.held += text
        found = [(i + len(stop), i) for stop in self.stops if (i := self.held.find(stop)) >= 0]
        if found:
            shown, self.held = self.held[: min(found)[1]], ""
            return shown, True
        keep = max((self._overlap(stop) for stop in self.stops), default=0)
        cut = len(self.held) - keep
        shown, self.held = self.held[:cut], self.held[cut:]
        return shown, False

    def flush(self) -> str:
        """The text held back, when no more comes."""
        shown, self.held = self.held, ""
        return shown

    def _overlap(self, stop: str) -> int:
        """How many characters at the end could be the beginning of this stop string."""
        longest = min(len(stop) - 1, len(self.held))
        return next((n for n in range(longest, 0, -1) if self.held.endswith(stop[:n])), 0)


class Answer:
    """The tokens of one row, and its text if there is a tokenizer. `finish` is None while it goes on."""

    def __init__(self, limit: int, eos: frozenset[int], stop: Sequence[str] = (), tokenizer: Any = None) -> None:
        self.limit, self.eos = limit, eos
        self.decoder = None if tokenizer is None else tokenizer.stream()
        self.stop = StopText(stop)
        self.ids: list[int] = []
        self.pieces: list[str] = []
        self.finish: Finish | None = None

    def push(self, token: int) -> str:
        """Take the next token; returns the text that it makes certain, "" without a tokenizer."""
        self.ids.append(token)
        text = ""
        if token in self.eos:
            self.finish = "eos"
        elif self.decoder is not None:
            text = self._through_stop(self.decoder.push(token))
        if self.finish is None and len(self.ids) >= self.limit:
            self.finish = "length"
        if self.finish in ("eos", "length") and self.decoder is not None:
            text += self._through_stop(self.decoder.flush())
            text += self.stop.flush()
        self.pieces.append(text)
        return text

    def _through_stop(self, text: str) -> str:
        shown, stopped = self.stop.push(text)
        if stopped:
            self.finish = "stop"
        return shown

"""From token ids back to text, one at a time, without ever printing half a character.

Every decoder in use is local: a token stands for some bytes, and only the start of the text is special (a sentencepiece
model marks the beginning of a word with a space, which the first word of a text does not have). So the text is the
UTF-8 decoding of the tokens' bytes, and an incremental UTF-8 decoder holds back exactly the bytes of a character that
is still arriving. `Tokenizer.decode` runs the same code over all ids, hence pushes and a flush always join to it.
"""

import codecs
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Bytes(NamedTuple):
    """What one token adds to the text. `raw`: a byte-fallback token, whose byte is no character by itself."""

    data: bytes
    raw: bool = False


@dataclass(frozen=True)
class Spacing:
    """What happens at the start of the text, and to bytes that are no UTF-8.

    `strip`: leading spaces to drop there: 0, 1, or -1 for all those of the first token. `every`: go on with the tokens
    after it while nothing is written (sentencepiece with `remove_extra_whitespaces`). `between`: put before each token
    but the first, unless it starts with `joint` (WordPiece). `errors`: `"replace"` writes one U+FFFD for each broken
    sequence, as byte-level tokenizers do; `"each"` one for each byte, as sentencepiece does. `clean`: WordPiece's
    removal of the space before punctuation.
    """

    strip: int = 0
    every: bool = False
    between: str = ""
    joint: str = ""
    errors: str = "replace"
    clean: bool = False


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("cutaway.each", _each_byte)

_CONTRACTIONS = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"))
_CONTRACTIONS += ((" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))


class Stream:
    """Text of a growing list of ids. `push` gives what each id adds; `flush` what was still held back."""

    def __init__(self, token: Callable[[int], Bytes], spacing: Spacing, skip: Iterable[int] = ()):
        self._token, self._spacing, self._skip = token, spacing, frozenset(skip)
        self._restart()

    def _restart(self) -> None:
        errors = "cutaway.each" if self._spacing.errors == "each" else self._spacing.errors
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors)
        self._first, self._stripping = True, self._spacing.strip != 0

    def push(self, index: int) -> str:
        """The text that is complete after token `index`: possibly empty, never a part of a character."""
        if index in self._skip:
            return ""
        data, raw = self._token(index)
        if not data:
            return ""
        return self._utf8.decode(self._spaced(data, raw))

    def flush(self) -> str:
        """The rest: U+FFFD where a character never became whole. The stream then starts anew."""
        rest = self._utf8.decode(b"", final=True)
        self._restart()
        return rest

    def _spaced(self, data: bytes, raw: bool) -> bytes:
        spacing = self._spacing
        if spacing.between:
            data = self._words(data.decode("utf-8", "replace")).encode("utf-8")
        elif self._stripping and not raw:
            stripped = data.lstrip(b" ") if spacing.strip < 0 else data.removeprefix(b" ")
            self._stripping = spacing.every and not stripped
            data = stripped
        else:
            self._stripping = False
        self._first = False
        return data

    def _words(self, word: str) -> str:
        joint = self._spacing.joint
        if not self._first:
            word = word.removeprefix(joint) if word.startswith(joint) else self._spacing.between + word
        if self._spacing.clean:
            for old, new in _CONTRACTIONS:
                word = word.replace(old, new)
        return word

"""Marian's tokenizers: sentencepiece cuts the source, and a `vocab.json` that both languages share numbers the pieces.

The models of OPUS-MT come so: `source.spm`, `target.spm` and `vocab.json`. What is encoded here is source text, and what
is decoded may be either. Deviation: the punctuation is left alone, which the reference puts through the Moses normaliser
where that is installed.
"""

import json
import re
from functools import lru_cache
from typing import Any

from cutaway.errors import TokenizerError
from cutaway.text.spm import cut, processor
from cutaway.text.stream import Bytes, Spacing

LANGUAGE = re.compile(r">>.*?<<", re.DOTALL)  # which a text begins with, where a model writes several: >>fr<< …


class MarianEngine:
    """Cuts the text between control tokens with `source`; a piece that `vocab` lacks is `unknown`."""

    encodes_targets = False

    def __init__(
        self, source: bytes, target: bytes, vocab: dict[str, int], specials: set[str], unknown: str, name: str
    ):
        if unknown not in vocab:
            raise TokenizerError(f"{name} lacks {unknown!r}, which stands for unknown pieces; fetch the file again.")
        self._cut, self._vocab, self._unknown = processor(source, name), dict(vocab), vocab[unknown]
        self._files = {"source.spm": source, "target.spm": target}
        self.specials: dict[str, int] = {}
        self.spacing = Spacing(-1, every=True, errors="each")
        self.add(dict.fromkeys(sorted(specials & vocab.keys()), True))
        self.bytes_of = lru_cache(maxsize=None)(self._bytes_of)

    def add(self, tokens: dict[str, bool]) -> None:
        """Gives ids after the vocabulary to texts that have none yet: `{text: is it a control token}`."""
        for text, special in tokens.items():
            index = self._vocab.setdefault(text, max(self._vocab.values()) + 1)
            if special:
                self.specials[text] = index
        self._pieces = {index: piece for piece, index in self._vocab.items()}
        self.size = max(self._pieces) + 1
        longest_first = sorted(self.specials, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def ids(self, text: str, literal: bool = False) -> list[int]:
        if literal:
            return self.continue_ids(text)
        out: list[int] = []
        at = 0
        for match in self._control.finditer(text):
            out += [*self._segment(text[at : match.start()]), self._vocab[match[0]]]
            at = match.end()
        return out + self._segment(text[at:])

    def ids_each(self, texts: list[str], literal: bool = False) -> list[list[int]]:
        return [self.ids(text, literal) for text in texts]

    def _segment(self, text: str) -> list[int]:
        code = LANGUAGE.match(text)
        first = [self._vocab.get(code[0], self._unknown)] if code else []
        return first + self.continue_ids(text[code.end() :] if code else text)

    def continue_ids(self, text: str) -> list[int]:
        return [self._vocab.get(piece, self._unknown) for piece in self._cut.encode(text, out_type=str)]

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        pieces = cut(self._cut, text)
        return [self._vocab.get(p.piece, self._unknown) for p in pieces], [(p.begin, p.end) for p in pieces]

    def between(self, prefix: list[int], suffix: list[int]) -> tuple[list[int], list[int], list[int]]:
        return prefix, suffix, suffix

    def _bytes_of(self, index: int) -> Bytes:
        return Bytes((self.piece(index) or "").replace("▁", " ").encode("utf-8"))

    def piece(self, index: int) -> str | None:
        return self._pieces.get(index)

    def index(self, piece: str) -> int | None:
        return self._vocab.get(piece)

    def to_json(self, prefix: list[int], suffix: list[int]) -> None:
        """None: a `tokenizer.json` has one set of pieces, and cannot say that only some of the numbered ones are cut."""

    def files(self) -> dict[str, bytes]:
        return {**self._files, "vocab.json": json.dumps(self._vocab, ensure_ascii=False).encode("utf-8")}

    def config(self, prefix: list[int], suffix: list[int]) -> dict[str, Any]:
        return {"tokenizer_class": "MarianTokenizer"}

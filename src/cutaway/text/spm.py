"""Tokenizers that `sentencepiece` runs: `.model` files, and the same vocabulary inside a GGUF."""

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from cutaway.errors import TokenizerError
from cutaway.text import proto, recipes
from cutaway.text.rust import byte_token
from cutaway.text.stream import Bytes, Spacing


class Added(NamedTuple):
    """A token outside the model's own vocabulary, or one of its pieces that text may name."""

    text: str
    special: bool = True
    lstrip: bool = False  # takes the white space before it
    rstrip: bool = False


class SentencePieceEngine:
    """Cuts the text between control tokens with sentencepiece.

    Sentencepiece puts a space before the text, so that a word is the same at the start as inside. `every_segment`: it
    does so after a control token as well (T5, llama.cpp, LLaMA's `legacy`), not only at the start of the whole text.
    """

    def __init__(self, data: bytes, name: str, added: dict[int, Added] | None = None, every_segment: bool = True):
        self.model = proto.read_model(data, name)
        if self.model.algorithm not in (proto.UNIGRAM, proto.BPE):
            raise TokenizerError(f"{name} is a word or character model; cutaway reads unigram and bpe models.")
        self._data, self._name, self._every = data, name, every_segment
        self._whole = processor(data, name)
        self._inner = self._whole if every_segment else processor(proto.without_dummy_prefix(data), name)
        pieces = self.model.pieces
        kinds = (proto.CONTROL, proto.UNKNOWN)
        self._added = {i: Added(piece.text) for i, piece in enumerate(pieces) if piece.kind in kinds}
        self._ids = {piece.text: index for index, piece in enumerate(pieces)}
        self._take(added or {})
        strip = self.model.add_dummy_prefix or self.model.remove_extra_spaces
        self.spacing = Spacing(int(strip), every=self.model.remove_extra_spaces, errors="each")
        self.bytes_of = lru_cache(maxsize=None)(self._bytes_of)

    def _take(self, added: dict[int, Added]) -> None:
        for index, token in added.items():
            own = self.model.pieces[index].text if 0 <= index < len(self.model.pieces) else token.text
            if index < 0 or own != token.text:
                raise TokenizerError(f"Added token {token.text!r} has id {index}, which {self._name} gives to {own!r}.")
        self._added |= added
        self._ids |= {token.text: index for index, token in added.items()}
        self.size = max(len(self.model.pieces), max(self._added, default=-1) + 1)
        self.specials = {token.text: index for index, token in self._added.items() if token.special}
        tokens = sorted(self._added.values(), key=lambda token: -len(token.text))
        self._texts = [token.text for token in tokens]
        self._control = re.compile("|".join(_pattern(token) for token in tokens) or "(?!)")

    def add(self, tokens: dict[str, bool]) -> None:
        """Gives ids after the vocabulary to texts that have none yet: `{text: is it a control token}`."""
        for text, special in tokens.items():
            self._take({self._ids.get(text, self.size): Added(text, special)})

    def ids(self, text: str, literal: bool = False) -> list[int]:
        if literal:
            return self._whole.encode(text)
        out: list[int] = []
        at = 0
        for match in self._control.finditer(text):
            out += self._segment(text[at : match.start()], at)
            out.append(self._ids[self._texts[(match.lastindex or 1) - 1]])
            at = match.end()
        return out + self._segment(text[at:], at)

    def ids_each(self, texts: list[str], literal: bool = False) -> list[list[int]]:
        return [self.ids(text, literal) for text in texts]

    def _segment(self, text: str, at: int) -> list[int]:
        return (self._inner if at else self._whole).encode(text) if text else []

    def continue_ids(self, text: str) -> list[int]:
        return self._inner.encode(text)

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        pieces = cut(self._whole, text)
        return [piece.id for piece in pieces], [(piece.begin, piece.end) for piece in pieces]

    def between(self, prefix: list[int], suffix: list[int]) -> tuple[list[int], list[int], list[int]]:
        return prefix, suffix, suffix

    def _bytes_of(self, index: int) -> Bytes:
        piece = self.piece(index)
        if piece is None:
            return Bytes(b"")
        if index < len(self.model.pieces) and self.model.pieces[index].kind == proto.BYTE:
            return Bytes(bytes([byte_token(piece) or 0]), raw=True)
        return Bytes(piece.replace("▁", " ").encode("utf-8"))

    def piece(self, index: int) -> str | None:
        if index in self._added:
            return self._added[index].text
        return self.model.pieces[index].text if 0 <= index < len(self.model.pieces) else None

    def index(self, piece: str) -> int | None:
        return self._ids.get(piece)

    def to_json(self, prefix: list[int], suffix: list[int]) -> str:
        document = recipes.sentencepiece(self.model, self._every)
        kinds = {i: Added(p.text, False) for i, p in enumerate(self.model.pieces) if p.kind == proto.USER_DEFINED}
        flags = {"single_word": False, "normalized": False}
        for index, token in sorted((kinds | self._added).items()):
            ends = {"special": token.special, "lstrip": token.lstrip, "rstrip": token.rstrip}
            document["added_tokens"].append({"id": index, "content": token.text, **ends, **flags})
        spell = [[str(self.piece(index)) for index in ids] for ids in (prefix, suffix)]
        document["post_processor"] = recipes.around(*spell, ids=self._ids)
        return json.dumps(document, ensure_ascii=False)

    def files(self) -> dict[str, bytes]:
        return {"tokenizer.model": self._data}

    def config(self, prefix: list[int], suffix: list[int]) -> dict[str, Any]:
        """What `tokenizer_config.json` must say, so that reading the folder again gives this engine."""
        outside = {i: t for i, t in self._added.items() if i >= len(self.model.pieces)}
        tokens = {str(i): {"content": t.text, **t._asdict()} for i, t in sorted(outside.items())}
        for token in tokens.values():
            del token["text"]
            token |= {"single_word": False, "normalized": False}
        sides = {"prefix": prefix, "suffix": suffix}
        own = {"every_segment": self._every} | {side: [self.piece(i) for i in ids] for side, ids in sides.items()}
        return {"cutaway_sentencepiece": own, "added_tokens_decoder": tokens}


def _pattern(token: Added) -> str:
    before, after = (r"\s*" if flag else "" for flag in (token.lstrip, token.rstrip))
    return f"{before}({re.escape(token.text)}){after}"


def cut(processor: Any, text: str) -> Any:
    """Pieces with their `id`, and the characters from `begin` to `end` that each is of."""
    return processor.encode(text, out_type="immutable_proto").pieces


def processor(data: bytes, name: str) -> Any:
    """What cuts as the bytes of a `.model` file say; `TokenizerError` naming `name` where they are none."""
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_proto=data)
    except (RuntimeError, ValueError, TypeError, OSError) as problem:
        reason = str(problem).strip().splitlines()[-1:] or ["unreadable"]
        raise TokenizerError(f"{name} is no usable sentencepiece model ({reason[0]}); fetch it again.") from None

"""Tokenizers that the `tokenizers` library runs: everything written as a `tokenizer.json`."""

import json
import secrets
from functools import cached_property, lru_cache
from typing import Any

from cutaway.errors import TokenizerError
from cutaway.text.recipes import Json, around
from cutaway.text.stream import Bytes, Spacing


class RustEngine:
    """Runs a `tokenizer.json` document; `name` is the file to blame when it is broken, `text` what it holds."""

    def __init__(self, document: Json, name: str, text: str | None = None):
        self._document = document | {"truncation": None, "padding": None}
        self._name = name
        self._rust = self._start(self._document, text)
        self._rust.no_truncation()
        self._rust.no_padding()
        self._finish()

    def _finish(self) -> None:
        self.size = self._rust.get_vocab_size(with_added_tokens=True)
        added = self._rust.get_added_tokens_decoder()
        self.specials = {token.content: index for index, token in added.items() if token.special}
        self._decoder = _Decoder(self._document.get("decoder"))
        self.spacing = self._decoder.spacing
        self.bytes_of = lru_cache(maxsize=None)(self._bytes_of)

    def _start(self, document: Json, text: str | None = None) -> Any:
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_str(json.dumps(document) if text is None else text)
        except BaseException as problem:
            reason = _reason(problem)
            raise TokenizerError(f"{self._name} describes no tokenizer ({reason}); fetch the file again.") from None

    def add(self, tokens: dict[str, bool]) -> None:
        """Gives ids to texts that have none yet: `{text: is it a control token}`."""
        from tokenizers import AddedToken

        if not tokens:
            return
        self._rust.add_tokens([AddedToken(t, special=s, normalized=not s) for t, s in tokens.items()])
        self._document = json.loads(self._rust.to_str())
        self._finish()

    def ids(self, text: str, literal: bool = False) -> list[int]:
        rust = self._literal if literal else self._rust
        return self._encode(rust, text).ids

    def ids_each(self, texts: list[str], literal: bool = False) -> list[list[int]]:
        rust = self._literal if literal else self._rust
        try:
            return [found.ids for found in rust.encode_batch_fast(texts, add_special_tokens=False)]
        except BaseException as problem:
            _reason(problem)
            return [self.ids(text, literal) for text in texts]  # which names the text

    def _encode(self, rust: Any, text: str, special: bool = False) -> Any:
        try:
            return rust.encode(text, add_special_tokens=special)
        except BaseException as problem:
            reason = _reason(problem)
            raise TokenizerError(f"{self._name} cannot cut {text[:40]!r} ({reason}); is it the right file?") from None

    def continue_ids(self, text: str) -> list[int]:
        rust, mark = self._continuing
        return self._encode(rust, mark + text).ids[1:]

    @cached_property
    def _literal(self) -> Any:
        """A second tokenizer, because the switch belongs to the whole tokenizer, not to a call (threads share it)."""
        rust = self._start(self._document)
        rust.encode_special_tokens = True
        return rust

    @cached_property
    def _continuing(self) -> tuple[Any, str]:
        """A third, with a token that no text contains: what comes after it is not at the start of the text."""
        from tokenizers import AddedToken

        rust, mark = self._start(self._document), f"<{secrets.token_hex(16)}>"
        rust.encode_special_tokens = True
        rust.add_tokens([AddedToken(mark, special=False, normalized=False)])
        return rust, mark

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = self._encode(self._literal, text)
        return found.ids, found.offsets

    def between(self, prefix: list[int], suffix: list[int]) -> tuple[list[int], list[int], list[int]]:
        if (prefix, suffix) == self.around():
            found = self._rust.encode("a", "a", add_special_tokens=True)
            mask = found.special_tokens_mask
            texts = [i for i, special in enumerate(mask) if not special]
            second = [i for i in texts if found.sequence_ids[i] == 1]
            if second and second[0] > texts[0]:
                first = [i for i in texts if found.sequence_ids[i] == 0]
                return found.ids[: first[0]], found.ids[first[-1] + 1 : second[0]], found.ids[second[-1] + 1 :]
        return prefix, suffix, suffix

    def around(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer's own post-processor puts before and after a text."""
        pieces = (self.piece(index) for index in range(50))  # where even "a" is no text
        for text in ("a", *filter(None, pieces)):
            encoding = self._encode(self._rust, text, special=True)
            mask = encoding.special_tokens_mask
            if 0 in mask:
                start, stop = mask.index(0), len(mask) - mask[::-1].index(0)
                return encoding.ids[:start], encoding.ids[stop:]
        return [], []

    def _bytes_of(self, index: int) -> Bytes:
        piece = self.piece(index)
        return Bytes(b"") if piece is None else self._decoder.bytes_of(piece)

    def piece(self, index: int) -> str | None:
        return self._rust.id_to_token(index)

    def index(self, piece: str) -> int | None:
        return self._rust.token_to_id(piece)

    def to_json(self, prefix: list[int], suffix: list[int]) -> str:
        document = self._document
        if (prefix, suffix) != self.around():
            spell = {index: text for text, index in self.specials.items()}
            step = around([spell[i] for i in prefix], [spell[i] for i in suffix], self.specials)
            document = document | {"post_processor": step}
        return json.dumps(document, ensure_ascii=False)

    def config(self, prefix: list[int], suffix: list[int]) -> dict[str, Any]:
        two = self._rust.encode(
            "a", "a", add_special_tokens=True
        )  # whether the second of two texts is told from the first
        names = ["input_ids", "token_type_ids", "attention_mask"]
        return {"model_input_names": names} if 1 in two.type_ids else {}

    def files(self) -> dict[str, bytes]:
        return {}


class _Decoder:
    """The `decoder` of a tokenizer.json, as bytes for each token and a rule for the start of the text."""

    def __init__(self, decoder: Json | None):
        steps = [decoder] if decoder else []
        if decoder and decoder.get("type") == "Sequence":
            steps = list(decoder.get("decoders", []))
        self._byte_level = self._byte_fallback = False
        self._replace: list[tuple[str, str]] = []
        self._unknown = ""
        self.spacing = Spacing() if steps else Spacing(between=" ")
        for step in steps:
            self._take(step)

    def _take(self, step: Json) -> None:
        kind = step.get("type")
        if kind == "ByteLevel":
            self._byte_level = True
        elif kind == "ByteFallback":
            self._byte_fallback = True
            self.spacing = Spacing(self.spacing.strip, errors="each")
        elif kind == "Replace" and "String" in step.get("pattern", {}):
            self._replace.append((step["pattern"]["String"], step.get("content", "")))
        elif kind == "Metaspace":
            self._replace.append((step.get("replacement", "▁"), " "))
            scheme = step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never")
            self.spacing = Spacing(0 if scheme == "never" else -1, errors=self.spacing.errors)
        elif kind == "Strip" and step.get("content") == " " and step.get("start") in (0, 1) and not step.get("stop"):
            self.spacing = Spacing(step["start"], errors=self.spacing.errors)
        elif kind == "WordPiece":
            self.spacing = Spacing(between=" ", joint=step.get("prefix", "##"), clean=step.get("cleanup", True))
        elif kind != "Fuse":
            self._unknown = str(kind)

    def bytes_of(self, piece: str) -> Bytes:
        if self._unknown:
            raise TokenizerError(
                f"The tokenizer's decoder {self._unknown!r} is not supported; it can encode text but not decode ids."
            )
        if self._byte_level:
            table = byte_table()
            known = all(character in table for character in piece)
            return Bytes(bytes(table[c] for c in piece) if known else piece.encode("utf-8"))
        if self._byte_fallback and (byte := byte_token(piece)) is not None:
            return Bytes(bytes([byte]), raw=True)
        for old, new in self._replace:
            piece = piece.replace(old, new)
        return Bytes(piece.encode("utf-8"))


def _reason(problem: BaseException) -> str:
    """What the library said; a panic inside it is no `Exception`, but no reason to end the program either."""
    if isinstance(problem, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        raise problem
    return str(problem)[:300]


def byte_token(piece: str) -> int | None:
    """The byte that a piece such as `<0xE2>` stands for."""
    if len(piece) != 6 or not piece.startswith("<0x") or piece[5] != ">":
        return None
    try:
        return int(piece[3:5], 16)
    except ValueError:
        return None


@lru_cache(maxsize=1)
def byte_table() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte: itself where Latin-1 prints it, else the next character from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}

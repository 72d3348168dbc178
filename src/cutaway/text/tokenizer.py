"""The one tokenizer class: text to ids and back, batches, streams and chats, whatever the file format was."""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway.errors import TokenizerError
from cutaway.text.chat import guarded, render, unguarded
from cutaway.text.engines import Engine, Roles
from cutaway.text.stream import Stream

if TYPE_CHECKING:
    from torch import Tensor

_NAMED = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")


class Tokenizer:
    """Made by `text.from_directory` and `text.from_gguf`.

    `vocab_size`: number of ids. `bos_id`, `pad_id`, `mask_id`: None where there is none. `eos_ids`: each ends a generation.
    `encodes_targets`: whether what a model writes is cut as what it reads is; Marian's has other pieces for it.
    """

    def __init__(self, engine: Engine, roles: Roles, chat_template: str | None = None):
        self._engine, self._roles, self.chat_template = engine, roles, chat_template
        self.vocab_size = engine.size
        ids = {name: self._id(getattr(roles, name)) for name in _NAMED}
        self.bos_id, self.eos_id, self.pad_id = ids["bos"], ids["eos"], ids["pad"]
        self.unk_id, self.mask_id = ids["unk"], ids["mask"]
        self.eos_ids: set[int] = set(roles.more_eos) | ({self.eos_id} - {None})  # type: ignore[operator]
        self.special_ids = frozenset(engine.specials.values())
        self.max_length = roles.max_length
        self.encodes_targets = getattr(engine, "encodes_targets", True)

    def _id(self, text: str | None) -> int | None:
        return None if text is None else self._engine.index(text)

    def encode(self, text: str | bytes, special: bool = True, parse_special: bool = True) -> list[int]:
        """Ids of `text`.

        `special`: put the model's own control tokens around it (BOS, EOS, [CLS] … [SEP]). Where the text itself begins
        with the BOS token's text, no second one is added.
        `parse_special`: text such as `<|im_end|>` becomes the control token, as in other libraries. Say False for text
        from strangers: it is then text like any other.

        Bytes are read as UTF-8. Broken bytes and lone surrogates count as U+FFFD, the replacement character.
        """
        return self._within(self._engine.ids(_clean(text), literal=not parse_special), special)

    def encode_each(
        self, texts: Sequence[str | bytes], special: bool = True, parse_special: bool = True
    ) -> list[list[int]]:
        """`encode` of each text; what the `tokenizers` library cuts is cut on all processors at once."""
        if isinstance(texts, (str, bytes)):
            raise TokenizerError("encode_each takes a list of texts; wrap the one text in [ ].")
        found = self._engine.ids_each([_clean(text) for text in texts], literal=not parse_special)
        return [self._within(ids, special) for ids in found]

    def _within(self, ids: list[int], special: bool) -> list[int]:
        if not special:
            return ids
        prefix = self._roles.prefix
        if prefix == [self.bos_id] and ids[:1] == prefix:
            prefix = []
        return [*prefix, *ids, *self._roles.suffix]

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of `text`, nothing added around it, and which of its characters each is of: `text[start:end]`.

        A control token's text is text like any other. Spaces before a word are left out of its span.
        """
        ids, found = self._engine.spans(_clean(text))
        return ids, [_trimmed(text, start, end) for start, end in found]

    def around(self, *, pair: bool = False) -> tuple[list[int], ...]:
        """The control tokens that `encode` puts before and after a text; of two texts: before, between and after."""
        prefix, suffix = self._roles.prefix, self._roles.suffix
        if not pair:
            return prefix, suffix
        return self._engine.between(prefix, suffix)

    def encode_batch(
        self, texts: Sequence[str | bytes], side: str = "right", special: bool = True, max_length: int | None = None
    ) -> "tuple[Tensor, Tensor]":
        """Ids (B, T) int64 and padding (B, T) bool, True on real tokens, with the padding on `side`.

        `max_length`: longer texts lose their end, but not the control tokens after it, so that T is at most this.
        """
        import torch

        if side not in ("left", "right"):
            raise TokenizerError(f"side is {side!r}; say 'left' or 'right'.")
        if isinstance(texts, (str, bytes)):
            raise TokenizerError("encode_batch takes a list of texts; wrap the one text in [ ].")
        suffix = self._roles.suffix if special else []
        if max_length is not None and max_length < len(suffix) + (len(self._roles.prefix) if special else 0):
            raise TokenizerError(f"max_length is {max_length}, which has no room for the control tokens of a text.")
        rows = self.encode_each(texts, special)
        rows = [
            row if max_length is None or len(row) <= max_length else row[: max_length - len(suffix)] + suffix
            for row in rows
        ]
        length = max(map(len, rows), default=0)
        ids = torch.full((len(rows), length), self.pad_id or 0)  # (B, T)
        padding = torch.zeros(len(rows), length, dtype=torch.bool)  # (B, T)
        for row, tokens in enumerate(rows):
            start = length - len(tokens) if side == "left" else 0
            ids[row, start : start + len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
            padding[row, start : start + len(tokens)] = True
        return ids, padding

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of `ids`. Ids beyond the vocabulary add nothing (models pad theirs); broken UTF-8 becomes U+FFFD."""
        stream = self.stream(skip_special)
        return "".join([stream.push(index) for index in _checked(ids)]) + stream.flush()

    def stream(self, skip_special: bool = True) -> Stream:
        """For text that arrives id by id: what `.push(id)` and `.flush()` return joins to `decode` of all ids."""
        return Stream(self._engine.bytes_of, self._engine.spacing, self.special_ids if skip_special else ())

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """One readable label for each id: spaces as ▁, control characters and parts of characters as escapes."""
        return [self._label(index) for index in _checked(ids)]

    def _label(self, index: int) -> str:
        piece = self._engine.piece(index)
        if piece is None:
            return f"<{index}>"
        if index in self.special_ids or self._engine.spacing.between:
            return piece
        text = self._engine.bytes_of(index).data.decode("utf-8", "backslashreplace").replace(" ", "▁")
        return "".join(c if _visible(c) else c.encode("unicode_escape").decode("ascii") for c in text)

    def chat(self, messages: Sequence[dict[str, Any]], generate: bool = True, **variables: Any) -> str:
        """The conversation as the model was trained to read it.

        `messages`: dicts with "role" and "content". `generate`: end where the assistant is to speak. Further variables
        (`tools`, …) go to the template. The string does not tell the template's control tokens from equal text in a
        message: to encode a conversation, use `encode_chat`.
        """
        return render(self.chat_template, list(messages), self._variables(generate, variables))

    def encode_chat(
        self, messages: Sequence[dict[str, Any]], generate: bool = True, parse_special: bool = False, **variables: Any
    ) -> list[int]:
        """Ids of the conversation. BOS is there if the template writes it, and never twice.

        A control token's text inside a message (`<|im_end|>` typed by a user) stays text, so nobody can forge a turn;
        `parse_special=True` makes it a control token, as `transformers` does.
        """
        if parse_special:
            return self.encode(self.chat(messages, generate, **variables), special=False)
        safe, found = guarded(list(messages), list(self._engine.specials))
        given, found_too = guarded(variables, list(self._engine.specials))
        text = _clean(render(self.chat_template, safe, self._variables(generate, given)))
        if not (found or found_too):
            return self._once(self._engine.ids(text))
        ids: list[int] = []
        for piece, control in unguarded(text, list(self._engine.specials)):
            if control:
                ids.append(self._engine.specials[piece])
            elif piece:
                ids += self._engine.continue_ids(piece) if ids else self._engine.ids(piece, literal=True)
        return self._once(ids)

    def _once(self, ids: list[int]) -> list[int]:
        twice = self.bos_id is not None and ids[:2] == [self.bos_id, self.bos_id]
        return ids[1:] if twice else ids

    def _variables(self, generate: bool, variables: dict[str, Any]) -> dict[str, Any]:
        named = {f"{name}_token": getattr(self._roles, name) for name in _NAMED}
        named = {name: text for name, text in named.items() if text is not None}
        return {"tools": None, "documents": None, "add_generation_prompt": generate} | named | variables

    def save(self, folder: str | Path) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json` (with the chat template), as `transformers` reads them.

        What came from a sentencepiece model keeps it, as `tokenizer.model`; Marian's keeps its own files, and only those.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        named = {f"{name}_token": getattr(self._roles, name) for name in _NAMED}
        config: dict[str, Any] = {name: text for name, text in named.items() if text is not None}
        config |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        if self.max_length is not None:
            config["model_max_length"] = self.max_length
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        sides = self._roles.prefix, self._roles.suffix
        config |= self._engine.config(*sides)
        if (document := self._engine.to_json(*sides)) is not None:
            (folder / "tokenizer.json").write_text(document, encoding="utf-8")
        text = json.dumps(config, ensure_ascii=False, indent=2)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
        for name, data in self._engine.files().items():
            (folder / name).write_bytes(data)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    return start, end


def _clean(text: str | bytes) -> str:
    """Text that every library takes: UTF-8, with U+FFFD for what is none."""
    if isinstance(text, (bytes, bytearray, memoryview)):
        return bytes(text).decode("utf-8", "replace")
    if not isinstance(text, str):
        raise TokenizerError(f"Text to encode must be str or bytes, not {type(text).__name__}.")
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:  # UTF-16 joins the surrogates that are pairs
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _checked(ids: Iterable[int]) -> list[int]:
    try:
        checked = [index.__index__() for index in ids]
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise TokenizerError("ids must be a flat list (or 1-D tensor) of whole numbers.") from None
    if any(index < 0 or index >> 31 for index in checked):
        raise TokenizerError(f"{min(checked)} … {max(checked)} are no token ids: they start at 0.")
    return checked


def _visible(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) in ("Cf", "Zs")

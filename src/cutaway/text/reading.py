"""Reading the files of a tokenizer's folder, each strictly: one error that names the file."""

import json
from pathlib import Path
from typing import Any

from cutaway.errors import TokenizerError
from cutaway.text.spm import Added

NAMED = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")
_LIMIT = 1 << 30  # bytes; no tokenizer file is a hundredth of this


def read_bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > _LIMIT:
            raise TokenizerError(f"{file} is larger than a gigabyte; that is no tokenizer file.")
        return file.read_bytes()
    except OSError as problem:
        raise TokenizerError(f"{file} cannot be read: {problem.strerror or problem}.") from None


def read_text(file: Path) -> str:
    try:
        return read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as problem:
        raise TokenizerError(f"{file} is not UTF-8 (byte {problem.start}); fetch the file again.") from None


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where the file is absent. A key that stands twice is an error."""
    if not file.exists():
        return {}
    try:
        value = json.loads(read_text(file), object_pairs_hook=_once)
    except (json.JSONDecodeError, RecursionError, _Twice) as problem:
        raise TokenizerError(f"{file} is broken ({problem}); fetch the file again.") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{file} must hold a JSON object, not {type(value).__name__}; fetch the file again.")
    return value


class _Twice(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Twice(f"{twice!r} stands there twice")
    return found


def read_vocab(file: Path) -> dict[str, int]:
    """A `vocab.json`: each token's id, all different."""
    vocab = read_json(file)
    checked_vocab(vocab, file)
    return vocab


def checked_vocab(vocab: dict[str, Any], file: Path) -> None:
    """Raises unless `vocab` gives each token a different id."""
    owner: dict[int, str] = {}
    for token, index in vocab.items():
        if type(index) is not int or not 0 <= index < 1 << 31:
            raise TokenizerError(f"{file}: the id of {token!r} is {index!r}, no number from 0; fetch the file again.")
        if index in owner:
            raise TokenizerError(f"{file}: {owner[index]!r} and {token!r} both have id {index}; fetch the file again.")
        owner[index] = token


def read_roles(config: dict[str, Any], file: Path) -> dict[str, Any]:
    """The texts of the named special tokens: `bos_token`, …, each a string or an object with "content"."""
    roles = {}
    for name in NAMED:
        value = config.get(f"{name}_token")
        value = value.get("content") if isinstance(value, dict) else value
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise TokenizerError(
                f'{file.parent / "tokenizer_config.json"}: "{name}_token" must be text, not {value!r}.'
            )
        roles[name] = value
    return roles


def added_tokens(folder: Path, config: dict[str, Any]) -> dict[int, Added]:
    """Tokens with an id outside the vocabulary file: `added_tokens_decoder`, or the older `added_tokens.json`."""
    added: dict[int, Added] = {}
    entries = config.get("added_tokens_decoder") or {}
    try:
        for text, index in read_json(folder / "added_tokens.json").items():
            added[int(index)] = Added(str(text), special=False)
        for index, entry in entries.items():
            flags = [bool(entry.get(flag, False)) for flag in ("special", "lstrip", "rstrip")]
            if not isinstance(entry["content"], str) or not entry["content"]:
                raise ValueError("empty content")
            added[int(index)] = Added(entry["content"], *flags)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise TokenizerError(
            f'{folder}: the added tokens must be {{"id": {{"content": text}}}} in tokenizer_config.json '
            'or {"text": id} in added_tokens.json; fetch both again.'
        ) from None
    return added


def unnumbered_tokens(config: dict[str, Any]) -> list[str]:
    """Further special tokens of the config, listed without ids."""
    found: list[str] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = config.get(key) or []
        entries = list(value.values()) if isinstance(value, dict) else value
        if not isinstance(entries, list):
            raise TokenizerError(f'tokenizer_config.json: "{key}" must be a list of tokens, not {value!r}.')
        texts = [entry.get("content") if isinstance(entry, dict) else entry for entry in entries]
        found += [text for text in texts if isinstance(text, str) and text]
    return found


def more_eos(folder: Path) -> frozenset[int]:
    """End tokens of `generation_config.json` (one id or several)."""
    value = read_json(folder / "generation_config.json").get("eos_token_id")
    ids = value if isinstance(value, list) else [value]
    return frozenset(index for index in ids if type(index) is int and index >= 0)


def read_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The chat template: `chat_template.jinja`, else the config's entry (of several, the one named "default")."""
    if (folder / "chat_template.jinja").exists():
        return read_text(folder / "chat_template.jinja")
    value = config.get("chat_template")
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default")
    if isinstance(value, dict):
        value = value.get("default")
    if value is not None and not isinstance(value, str):
        raise TokenizerError(f'{folder / "tokenizer_config.json"}: "chat_template" must be text; fetch it again.')
    return value

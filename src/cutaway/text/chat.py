"""Chat templates: a conversation as the one string a model was trained on, and no message able to forge a turn.

A template is a program in the Jinja language that comes with the weights, from a stranger: it runs in
`sandbox.Sandbox`. Messages come from strangers as well. Before the template sees them, `guarded` puts a mark inside each
control token that a message spells out; `unguarded` then finds the control tokens that the template itself wrote.
"""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from cutaway.errors import TokenizerError

_MARK = "\ufdd0"  # a noncharacter: no text may exchange it (Unicode 16, section 23.7)


def render(template: str | None, messages: list[dict[str, Any]], variables: dict[str, Any]) -> str:
    """What the template writes. Raises `TokenizerError` for a template that is missing, broken, hostile or endless."""
    if template is None:
        raise TokenizerError(
            "This tokenizer has no chat template; set `tokenizer.chat_template`, or encode plain text."
        )
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise TokenizerError('Each message must be a dict such as {"role": "user", "content": "Hello"}.')
    try:
        data = json.loads(json.dumps({"messages": messages, **variables}))
    except (TypeError, ValueError, RecursionError) as problem:
        raise TokenizerError(f"Messages must hold only text, numbers, lists and dicts: {problem}.") from None
    from cutaway.text.sandbox import run

    return run(_compiled(template), data)


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    from cutaway.text.sandbox import compile_template

    return compile_template(template)


def guarded(value: Any, specials: list[str]) -> tuple[Any, bool]:
    """A copy of `value` with the control tokens in its strings marked, and whether there were any."""
    pattern = _pattern(tuple(specials))
    found = False

    def mark(match: re.Match[str]) -> str:
        nonlocal found
        found = True
        return match[0][0] + _MARK + match[0][1:]

    def walk(part: Any, depth: int = 0) -> Any:
        if depth > 100:
            raise TokenizerError("Messages are nested more than 100 deep.")
        if isinstance(part, str):
            return pattern.sub(mark, part.replace(_MARK, "\ufffd"))
        if isinstance(part, dict):
            return {key: walk(item, depth + 1) for key, item in part.items()}
        if isinstance(part, (list, tuple)):
            return [walk(item, depth + 1) for item in part]
        return part

    return walk(value), found


def unguarded(text: str, specials: list[str]) -> Iterator[tuple[str, bool]]:
    """The rendered text in pieces: `(text, is it a control token that the template wrote)`, the marks removed."""
    at = 0
    for match in _pattern(tuple(specials)).finditer(text):
        yield text[at : match.start()].replace(_MARK, ""), False
        yield match[0], True
        at = match.end()
    yield text[at:].replace(_MARK, ""), False


@lru_cache(maxsize=16)
def _pattern(specials: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(specials, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

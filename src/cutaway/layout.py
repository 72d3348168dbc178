"""Checkpoint names and layouts as data: one table reads a published checkpoint and writes it back.

A family's table is a list of rules, most of them `Rule("their name", "our name")`:

    Rule("(model.|)layers.{i}.self_attn.q_proj", "stack.blocks.{i}.attention.q")
    Rule("(transformer.|)h.{i}.attn.c_attn", (q, k, v), split_transposed(3))
    tied("lm_head.weight", "stack.embedding.weight")
    ignore("(transformer.|)h.{i}.attn.(bias|masked_bias)")

- `{i}` and `{j}` stand for any number, the same on both sides.
- `(a|b)` stands for either on their side; the *first* is the one we write. `(bert.|)` is an optional prefix.
- A name that is a module of ours covers its weight and its bias, whichever the model has (on their side also
  `gamma` and `beta`, as the oldest checkpoints call them). Any other name is a parameter itself.
- Ops turn the layout, and back: `same`, `transpose`, `row`, `split`, `split_transposed`, `split_heads`, `permute`. They act on
  a weight and on its bias alike, since a bias has only the output axis.
- Several rules or alternatives may name the same parameter: those present must agree bit for bit.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from cutaway.errors import CheckpointError
from cutaway.keys import REQUIRED, Keys
from cutaway.ops import Op, permute, row, same, split, split_heads, split_transposed, transpose

__all__ = [
    "REQUIRED", "Entry", "Keys", "Op", "Rule", "expand", "ignore", "permute", "row", "same", "split",
    "split_heads", "split_transposed", "tied", "transpose",
]  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One line of a table. `optional`: a checkpoint may lack it; the parameter (a new head) starts afresh."""

    theirs: str
    ours: str | tuple[str, ...]
    op: Op = same
    optional: bool = False
    written: bool = True


def tied(theirs: str, ours: str) -> Rule:
    """A second name of a parameter: where a checkpoint has it, it must equal the first. Never written."""
    return Rule(theirs, ours, written=False)


def ignore(*theirs: str) -> Rule:
    """Buffers and leftovers that no part of ours needs. `*` stands for anything."""
    return Rule("|".join(theirs) if len(theirs) == 1 else f"({'|'.join(theirs)})", ())


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint and the parameters it holds."""

    theirs: str
    ours: tuple[str, ...]
    op: Op


def expand(rules: Iterable[Rule], parameters: Iterable[str], names: Collection[str] | None = None) -> Iterator[Entry]:
    """The rules made concrete: each tensor of a checkpoint and the parameters it fills, in the model's order.

    `parameters` are the names of the model's parameters, `names` those of the checkpoint's tensors; without
    `names` the result is what to write. Raises `CheckpointError` listing names nobody knows or nobody fills.
    """
    rules, parameters = list(rules), list(parameters)
    concrete = [c for rule in rules for c in _concrete(rule, parameters)]
    available = {name for c in concrete if c.written for name in alternatives(c.theirs)[:1]} if names is None else names
    entries: dict[str, Entry] = {}
    optional: set[str] = set()
    for rule in concrete:
        ours = _tuple(rule.ours)
        optional.update(ours if rule.optional else ())
        for theirs in alternatives(rule.theirs):
            if theirs in available and (names is not None or rule.written):
                entries.setdefault(theirs, Entry(theirs, ours, rule.op))
    filled = {name for entry in entries.values() for name in entry.ours}
    expected = {name: alternatives(c.theirs)[0] for c in reversed(concrete) for name in _tuple(c.ours)}
    unfilled = [name for name in parameters if name not in filled and name not in optional]
    if unfilled:
        missing = dict.fromkeys(expected.get(name, f"anything for {name}") for name in unfilled)
        raise CheckpointError(
            f"the checkpoint lacks {_some(list(missing))}: it is not whole, or not what its config says"
        )
    ignored = [_pattern(rule.theirs) for rule in rules if not rule.ours]
    extra = [n for n in available if n not in entries and not any(p.fullmatch(n) for p in ignored)]
    if extra:
        raise CheckpointError(f"the checkpoint holds {_some(extra)}, which the model its config describes lacks")
    order = {name: place for place, name in enumerate(parameters)}
    yield from sorted(entries.values(), key=lambda entry: min(order[name] for name in entry.ours))


def _tuple(ours: str | tuple[str, ...]) -> tuple[str, ...]:
    return (ours,) if isinstance(ours, str) else ours


def _concrete(rule: Rule, parameters: Sequence[str]) -> Iterator[Rule]:
    """The rule for every block, and for a module's weight and bias, as the model's parameters have them."""
    ours = _tuple(rule.ours)
    pattern = _pattern(ours[0], suffix=r"(?P<suffix>\.weight|\.bias|)") if ours else None
    for name in parameters:
        if pattern and (match := pattern.fullmatch(name)):
            numbers = {k: v for k, v in match.groupdict().items() if k != "suffix"}
            suffix = match["suffix"]
            theirs = rule.theirs + {".weight": ".(weight|gamma)", ".bias": ".(bias|beta)", "": ""}[suffix]
            yield replace(rule, theirs=theirs.format(**numbers), ours=tuple(o.format(**numbers) + suffix for o in ours))


def _pattern(template: str, suffix: str = "") -> re.Pattern[str]:
    seen: set[str] = set()
    pieces = []
    for piece in re.split(r"(\{\w+\}|[()|*])", template):
        if re.fullmatch(r"\{\w+\}", piece):
            name = piece[1:-1]
            pieces.append(rf"(?P={name})" if name in seen else rf"(?P<{name}>[0-9]+)")
            seen.add(name)
        else:
            pieces.append({"(": "(?:", ")": ")", "|": "|", "*": ".*"}.get(piece) or re.escape(piece))
    return re.compile("".join(pieces) + suffix)


def alternatives(template: str) -> list[str]:
    """Every name that a template with `(a|b)` stands for, the one we write first."""
    if not (match := re.search(r"\(([^()]*)\)", template)):
        return [template]
    head, tail = template[: match.start()], template[match.end() :]
    return [name for choice in match[1].split("|") for name in alternatives(head + choice + tail)]


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"

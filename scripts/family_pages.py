"""One page a family, made from its file while the site is built: what it is, drawn, counted and how to have one."""

import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import cutaway
from cutaway import families
from cutaway.errors import ConfigError
from cutaway.lab.anatomy import anatomy
from cutaway.lab.complexity import costs
from cutaway.lab.diagram import diagrams
from cutaway.lab.formula import Formula, counted, formulas

COLUMNS = ("vocab", "width", "layers", "heads", "kv_heads", "head_width", "hidden", "context", "state", "window")
SMALL = {"vocab": 100, "layers": 2, "width": 64, "heads": 4}  # of the model that the page makes and saves


def page(family: str) -> str:
    """The page, in Markdown."""
    module = families.get(family)
    title, identity, references, deviations = told(module)
    first = next(iter(module.PRESETS))
    with torch.device("meta"):
        model = module.compose(module.PRESETS[first])
    found = formulas(family)
    return "\n\n".join([
        "---\nhide: [toc]\n---",
        f"# {title}",
        f"**{identity}**",
        references,
        f"Deviations from what was published: {deviations}" if deviations else "",
        f"The whole of it is `src/cutaway/families/{family}.py`, {_lines(module)} lines; below, what is read off it.",
        "## Composition",
        _pictures(diagrams(model), first),
        _parts(anatomy(model), first),
        "## Sizes",
        _sizes(family, module),
        "## Parameters",
        *[_formula(each, [p for p in module.PRESETS if p in presets], module) for each, presets in found],
        "## What mixing tokens costs",
        "A layer, for T tokens" + (" of target and S of source:" if hasattr(model, "decoder") else ":"),
        "\n".join(f"- {mixer}: {said}" for mixer, said in costs(model).items()),
        "## In Python",
        usage(family),
    ])  # fmt: skip


def told(module: ModuleType) -> tuple[str, str, str, str]:
    """Title, identity, references and deviations, from the docstring of the family's file."""
    first, _, rest = (module.__doc__ or "").strip().partition("\n")
    title, _, identity = first.partition(". ")
    text = " ".join(rest.split())
    references, _, deviations = text.partition("Deviations: ")
    return title, identity.rstrip("."), references.strip(), deviations.strip()


def _lines(module: ModuleType) -> int:
    return len(Path(module.__file__ or "").read_text(encoding="utf-8").splitlines())


def _pictures(pictures: dict[str, str], preset: str) -> str:
    shown = "".join(
        f'<figure class="stack">{svg}<figcaption>{title} of {preset}</figcaption></figure>'.replace("model of ", "")
        for title, svg in pictures.items()
    )
    return f'<div class="stacks">{shown}</div>'


def _parts(words: dict[str, str], preset: str) -> str:
    """What each part is; an encoder's and a decoder's side by side."""
    sides = [side for side in ("encoder", "decoder") if any(name.startswith(f"{side} ") for name in words)]
    if not sides:
        return _table(["part", f"of `{preset}`"], [[name, said] for name, said in words.items()])
    names = dict.fromkeys(re.sub(r"^(encoder|decoder) ", "", name) for name in words)
    rows = [
        [name, *(words.get(f"{side} {name}", words.get(name, "–") if side == "decoder" else "–") for side in sides)]
        for name in names
    ]
    return _table([f"of `{preset}`", *sides], rows)


def _sizes(family: str, module: ModuleType) -> str:
    every = module.PRESETS.items()
    there = {f.name for f in fields(module.Sizes)}
    columns = [name for name in COLUMNS if name in there and any(getattr(s, name) for _, s in every)]
    rows = []
    for preset, sizes in every:
        published = module.PARAMETERS.get(preset)
        count = counted(family, preset)
        source = "–" if published is None else "the same" if published == count else f"{published:,}"
        shown = [_number(getattr(sizes, name)) for name in columns]
        rows.append([f"`{preset}`", f"{count:,}", source, *shown])
    head = ["preset", "parameters", "published", *(name.replace("_", " ") for name in columns)]
    return _table(head, rows) + "\n\n`cutaway card PRESET` shows every size, and what a model takes in memory and work."


def _formula(formula: Formula, presets: list[str], module: ModuleType) -> str:
    first = presets[0]
    values = module.PRESETS[first]
    named = ", ".join(f"{symbol} {size.replace('_', ' ')}" for symbol, size in formula.names.items())
    known = {symbol: getattr(values, size) for symbol, size in formula.names.items()}
    rows = [
        [term.part, _times(str(term.times)), str(term.count), f"{int(term.times.at(known) * term.count.at(known)):,}"]
        for term in formula.terms
    ]
    rows.append(["**all**", "", "", f"**{formula.at(values):,}**"])
    which = ", ".join(f"`{preset}`" for preset in presets)
    table = _table(["part", "times", "each", f"`{first}`"], rows)
    return f"Of {which}:\n\n<p class='formula'>{formula}</p>\n\nwith {named}.\n\n{table}"


def _times(times: str) -> str:
    return "" if times == "1" else times


def usage(family: str) -> str:
    """Code that runs: its shapes; then a small one, saved and loaded."""
    module = families.get(family)
    first = next(iter(module.PRESETS))
    lines = [
        "```python",
        "import cutaway",
        "",
        f'model = cutaway.build("{first}", device="meta")  # its shapes; without device="meta", weights to train',
        f"print(sum(p.numel() for p in model.parameters()))  # {counted(family, first):,}",
        "```",
        "",
        _loading(module),
        "",
        "```python",
        *_small(family, module),
        "```",
    ]
    return "\n".join(lines)


def _loading(module: ModuleType) -> str:
    if not module.MODEL_TYPES:
        return (
            "No published checkpoints of it have a common format: what is saved here is in cutaway's own, "
            "and `cutaway.load` reads it back."
        )
    kinds = ", ".join(f"`{kind}`" for kind in module.MODEL_TYPES)
    return (
        f"`cutaway.load` reads checkpoints whose `config.json` says model type {kinds}, from a folder or the hub, and "
        "`cutaway.save` writes them so that `transformers` reads them:"
    )


def _small(family: str, module: ModuleType) -> list[str]:
    """Code that makes a small model, saves and loads it."""
    preset = min(module.PRESETS, key=lambda name: counted(family, name))
    there = {f.name for f in fields(module.Sizes)}
    for given in (SMALL, {n: SMALL[n] for n in ("vocab", "layers", "width")}, {"vocab": 100}):
        chosen = {name: value for name, value in given.items() if name in there}
        try:
            sizes = cutaway.build(preset, device="meta", **chosen).sizes
            break
        except ConfigError:
            continue
    else:
        chosen, sizes = {}, module.PRESETS[preset]
    layout = "" if _published(module, sizes) else ', layout="cutaway"'
    arguments = "".join(f", {name}={value}" for name, value in chosen.items())
    return [
        f'cutaway.save(cutaway.build("{preset}"{arguments}, seed=0), "mine"{layout})',
        'model = cutaway.load("mine").model',
    ]


def _published(module: ModuleType, sizes: Any) -> bool:
    try:
        module.write(sizes)
    except ConfigError:
        return False
    return True


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _table(head: list[str], rows: list[list[str]]) -> str:
    numbers = [re.fullmatch(r"[\d,–*]+", row[i]) is not None for row in rows[:1] for i in range(len(head))]
    rule = [" ---: " if number else " --- " for number in numbers]
    lines = [head, *rows]
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([body[0], "|" + "|".join(rule) + "|", *body[1:]])


def index() -> str:
    """The table of all families, in the order in which they came here."""
    rows = []
    for name in families.FAMILIES:
        title, identity, *_ = told(families.get(name))
        rows.append([f"[{title}]({name}.md)", identity, str(len(families.get(name).PRESETS))])
    return _table(["family", "what it is", "presets"], rows)

"""Fills the site's tables from the code while the site is built, so that they cannot fall behind it."""

from typing import Any

from cutaway import families
from cutaway.cli import COMMANDS


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`<!-- families -->` and `<!-- commands -->` become what the code says."""
    for marker, make in {"<!-- families -->": _families, "<!-- commands -->": _commands}.items():
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    return markdown


def _families() -> str:
    out = []
    for name in families.FAMILIES:
        module = families.get(name)
        doc = (module.__doc__ or "").strip().splitlines()
        read = ", ".join(f"`{kind}`" for kind in module.MODEL_TYPES)
        out += [f"## {name}", "", doc[0], "", " ".join(doc[1:]).strip(), ""]
        if read:
            out += [f"Reads and writes `config.json` of model type {read}.", ""]
        out += ["| preset | published parameters |", "| --- | ---: |"]
        counts = module.PARAMETERS
        out += [f"| `{preset}` | {f'{counts[preset]:,}' if preset in counts else '–'} |" for preset in module.PRESETS]
        out += [""]
    return "\n".join(out)


def _commands() -> str:
    rows = [f"| `cutaway {name}` | {what} |" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows])

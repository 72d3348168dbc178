"""Fills the site from the code while it is built, so that it cannot fall behind: the families' pages, tables, commands."""

import pkgutil
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from cutaway import families, swaps
from cutaway.cli import COMMANDS

sys.path.insert(0, str(Path(__file__).parent))
import family_pages

SECTION = "Families"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The section of the families has a page of each behind what stands there."""
    section = next(entry[SECTION] for entry in config.nav or [] if SECTION in entry)
    section += [f"families/{name}.md" for name in families.FAMILIES]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Makes those pages."""
    for name in families.FAMILIES:
        files.append(File.generated(config, f"families/{name}.md", content=family_pages.page(name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A comment such as `<!-- commands -->` becomes what the code says."""
    for name, make in MARKERS.items():
        marker = f"<!-- {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    return re.sub(r"<!-- modules (\S+) -->", lambda match: _modules(match[1]), markdown)


def _commands() -> str:
    return _table(["command", "what it does"], [[f"`cutaway {name}`", what] for name, (_, what) in COMMANDS.items()])


def _modules(package: str) -> str:
    """Every module of a package that says something to its users, for the reference."""
    return "\n".join(f"::: {module.__name__}" for module in _inside(package) if _public(module))


def _parts() -> str:
    """The parts by file: what is in it, and its first line."""
    rows = []
    for module in _inside("cutaway.parts"):
        names = [name for name, thing in _public(module) if isinstance(thing, type)]
        if names:
            rows.append([", ".join(f"`{name}`" for name in names), _line(module)])
    return _table(["parts", "what they are"], rows)


def _swaps() -> str:
    rows = [[kind, ", ".join(f"`{name}`" for name in there)] for kind, there in PLAIN.items()]
    mixers = []
    for name, mixer in swaps.MIXERS.items():
        number = [f"`{name}:N`", f"N: {mixer.number}"] if mixer.number else [f"`{name}`", ""]
        mixers.append([number[0], mixer.what, number[1], "yes" if mixer.both_ways else "no"])
    head = ["mixer", "what it is", "", "in encoders too"]
    return _table(["", "by name"], rows) + "\n\n" + _table(head, mixers)


def _inside(package: str) -> list[ModuleType]:
    found = pkgutil.iter_modules(import_module(package).__path__)
    return [import_module(f"{package}.{name}") for _, name, _ in found]


def _public(module: ModuleType) -> list[tuple[str, Any]]:
    """Classes and functions that are made in this module and have something to say."""
    return [
        (name, thing)
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__ and thing.__doc__
    ]


def _line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


PLAIN = {"norm": swaps.NORMS, "position": swaps.POSITIONS, "feedforward": swaps.FEEDFORWARDS}
PLAIN["embedding"] = swaps.EMBEDDINGS
MARKERS = {"families": family_pages.index, "commands": _commands, "parts": _parts, "swaps": _swaps}

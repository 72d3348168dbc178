"""Fills the site from the code while it is built, so that it cannot fall behind: the families' pages, tables, commands."""

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from cutaway import families
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
    """`<!-- families -->` and `<!-- commands -->` become what the code says."""
    for marker, make in {"<!-- families -->": family_pages.index, "<!-- commands -->": _commands}.items():
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    return markdown


def _commands() -> str:
    rows = [f"| `cutaway {name}` | {what} |" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows])

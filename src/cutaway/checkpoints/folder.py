"""Folders that appear whole or not at all, and that take nobody's files with them."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from cutaway.checkpoints import hub
from cutaway.errors import CheckpointError

# what a folder may hold that is replaced; anything else in it is somebody's
REPLACEABLE = [
    *hub.DESCRIPTION, *hub.SAFETENSORS, *hub.PICKLED, "README.md", ".gitattributes",
    "config_sentence_transformers.json", "2_Normalize/config.json",
]  # fmt: skip
IDENTITY = ("config.json", "cutaway.json", "adapter_config.json")  # one of them makes a folder a checkpoint
SUBFOLDERS = {name.rpartition("/")[0] for name in REPLACEABLE}


def check_target(target: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """The absolute path of a folder that may be written: new, empty, or a checkpoint and `overwrite`.

    Raises:
        CheckpointError: it is none of these, or somebody stands in it.
    """
    target = Path(target).expanduser().absolute()
    if not os.path.lexists(target):
        return target
    if not target.is_dir():
        raise CheckpointError(f"{target} exists already and is no folder; choose another name")
    if any(target.iterdir()) and not overwrite:
        raise CheckpointError(
            f"{target} exists already; choose another folder, or replace it with overwrite=True (--overwrite)"
        )
    for lived_in in (Path.cwd(), Path("~").expanduser()):
        if lived_in.resolve().is_relative_to(target.resolve()):
            raise CheckpointError(f"{target} is or holds {lived_in}, so it is not replaced; name a folder inside it")
    for path in target.rglob("*"):
        name = path.relative_to(target).as_posix()
        plain = path.is_symlink() or not path.is_dir()
        if not (any(fnmatchcase(name, known) for known in REPLACEABLE) if plain else name in SUBFOLDERS):
            raise CheckpointError(
                f"{target} holds {name}, which is no part of a checkpoint; move it away or choose another folder "
                "(nothing was touched)"
            )
    if any(target.iterdir()) and not any((target / name).is_file() for name in IDENTITY):
        raise CheckpointError(
            f"{target} holds files but no checkpoint (no {' or '.join(IDENTITY)}), so it is not replaced; choose another "
            "folder (nothing was touched)"
        )
    return target


@contextmanager
def whole_folder(target: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yields a folder beside `target` to write into, and moves it there at the end. On any error nothing has changed.

    Raises:
        CheckpointError: `target` may not be written (see `check_target`), or the files cannot be.
    """
    target = check_target(target, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            yield made
            for file in made.rglob("*"):
                if file.is_file():
                    _to_disk(file)
            made.chmod(0o777 & ~_umask())
            check_target(target, overwrite)  # writing takes a while
            _replace(target, made)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "the disk is full" if full else error.strerror or str(error)
        raise CheckpointError(f"{target} could not be written: {reason}; what was there before is untouched") from error


def _replace(target: Path, made: Path) -> None:
    if not target.exists():
        os.replace(made, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    os.replace(target, aside / "folder")
    try:
        os.replace(made, target)
    except OSError:
        os.replace(aside / "folder", target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _to_disk(file: Path) -> None:
    with open(file, "rb+") as handle:
        os.fsync(handle.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

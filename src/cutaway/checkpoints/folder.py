"""Folders that appear whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cutaway.errors import CheckpointError


@contextmanager
def whole_folder(target: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yields a folder beside `target` to write into, and moves it there at the end. On any error nothing has changed.

    Raises:
        CheckpointError: `target` holds something and `overwrite` is False, or the files cannot be written.
    """
    target = Path(target).expanduser().absolute()
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not overwrite):
        raise CheckpointError(f"{target} exists already; choose another folder, or ask to overwrite it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            yield made
            for file in made.rglob("*"):
                if file.is_file():
                    _to_disk(file)
            made.chmod(0o777 & ~_umask())
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

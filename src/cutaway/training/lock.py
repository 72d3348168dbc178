"""A lock between processes, which the system takes back when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process alone holds it now. Without `wait` another one may; where there are no such locks, it seems so."""
    try:
        import fcntl
    except ImportError:
        yield True
        return
    with open(file, "w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            mine = True
        except OSError:
            mine = wait
        yield mine

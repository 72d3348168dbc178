"""A progress bar on work that turns out to be long, where somebody watches a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 1.0  # seconds before a bar appears


def track(items: Iterable[tuple[int, T]], total: int, label: str) -> Iterator[T]:
    """Yields the items; each comes with its share of `total` (bytes, say)."""
    if not sys.stderr.isatty():
        yield from (item for _, item in items)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task, begun, shown = bar.add_task(label, total=total), time.monotonic(), False
    try:
        for size, item in items:
            yield item
            bar.advance(task, size)
            if not shown and time.monotonic() - begun > PATIENCE:
                bar.start()
                shown = True
    finally:
        if shown:
            bar.stop()

"""What the `train` extra reads: Parquet files, and the data sets of a hub, example by example as they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from cutaway.training.data.readers import Row
from cutaway.training.errors import DataError

AT_ONCE = 1024  # rows of a Parquet file that are held in memory


def parquet_rows(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file, counted from 1."""
    parquet = _needed("pyarrow.parquet", f"{path} is a Parquet file")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, ValueError) as problem:
        raise DataError(f"{path} is a broken Parquet file ({_line(problem)}); fetch it again") from None


def hub_rows(name: str) -> Iterator[Row]:
    """The examples of `hub:NAME`, `hub:NAME:SPLIT` or `hub:NAME:CONFIG:SPLIT`; the split is "train" where none is given.

    Nothing is downloaded as a whole, and no code of the data set is run.
    """
    parts = name.removeprefix("hub:").split(":")
    if not parts[0] or len(parts) > 3:
        raise DataError(f"{name} is no data set: write hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIG:SPLIT")
    split = parts[-1] if len(parts) > 1 else "train"
    config = parts[1] if len(parts) == 3 else None
    datasets = _needed("datasets", f"{name} is a data set of a hub")
    try:
        yield from enumerate(datasets.load_dataset(parts[0], config, split=split, streaming=True), 1)
    except Exception as problem:  # whatever network, hub and formats may raise
        raise DataError(f"{name} cannot be read: {_line(problem)}") from None


def _needed(module: str, what: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise DataError(f"{what}: to read it, pip install 'cutaway[train]'") from None


def _line(problem: BaseException) -> str:
    return " ".join((str(problem) or type(problem).__name__).split())[:300]

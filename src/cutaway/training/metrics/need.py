"""Libraries that only measuring needs."""

from importlib import import_module
from typing import Any

from cutaway.training.errors import TrainingError


def library(name: str) -> Any:
    """A library of the extra `train`, imported now.

    Raises:
        TrainingError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise TrainingError(
            f"this measure needs {name.partition('.')[0]}, which is not installed: pip install 'cutaway[train]'"
        ) from None

"""Training: from text to a trained model, on one machine or many."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cutaway.training.recipe import Recipe
    from cutaway.training.runner import Summary, train
    from cutaway.training.tuning import evaluate, finetune, predict

__all__ = ["Recipe", "Summary", "evaluate", "finetune", "predict", "train"]

_HOMES = {
    "Recipe": "cutaway.training.recipe",
    **dict.fromkeys(("Summary", "train"), "cutaway.training.runner"),
    **dict.fromkeys(("evaluate", "finetune", "predict"), "cutaway.training.tuning"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cutaway.training' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value

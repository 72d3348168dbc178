"""Transformers with the hood off: readable parts, exact on published weights, open to look into while they run.

>>> import cutaway
>>> model = cutaway.build("bert-tiny", seed=0)
>>> sum(p.numel() for p in model.parameters())
4385920
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cutaway.api import Loaded, build, convert, load, save
    from cutaway.attention import recording
    from cutaway.generation import generate
    from cutaway.inspection import inspect
    from cutaway.training import evaluate, finetune, predict, train

__version__ = "0.1.0"
__all__ = [
    "Loaded",
    "__version__",
    "build",
    "convert",
    "evaluate",
    "finetune",
    "generate",
    "inspect",
    "load",
    "predict",
    "recording",
    "save",
    "train",
]

# where each name lives; loaded when first asked for, so that `import cutaway` costs next to nothing
_HOMES = {
    **dict.fromkeys(("Loaded", "build", "convert", "load", "save"), "cutaway.api"),
    "recording": "cutaway.attention",
    "generate": "cutaway.generation",
    "inspect": "cutaway.inspection",
    **dict.fromkeys(("evaluate", "finetune", "predict", "train"), "cutaway.training"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cutaway' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__

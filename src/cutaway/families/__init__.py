"""The architectures, one file each. A file says what its family *is*: sizes, composition, published names.

Each module holds `Sizes`, `PRESETS`, `PARAMETERS` (published counts), `MODEL_TYPES`, `compose(sizes, **parts)`,
`read(config, names)`, `write(sizes)` and `weights(sizes)`. `names` are those of the checkpoint's tensors, where they are
known: they tell what a config leaves open. `FAMILIES` is the only registry.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from cutaway.errors import ConfigError, SourceError

FAMILIES = (
    "transformer",
    "gpt2",
    "llama",
    "bert",
    "t5",
    "roberta",
    "distilbert",
    "electra",
    "albert",
    "modernbert",
    "mamba",
    "mamba2",
    "gpt",
    "gptneox",
    "mpt",
    "bloom",
    "qwen",
    "gemma2",
    "recurrent",
    "seq2seq",
    "s4",
    "bart",
    "deberta",
    "deberta_v2",
    "reformer",
    "linear_transformer",
    "performer",
    "linformer",
    "synthesizer",
    "transformerxl",
    "xlnet",
    "longformer",
    "bigbird",
    "sparse_transformer",
)


def get(name: str) -> ModuleType:
    """The module of a family, loaded on first use.

    Raises:
        ConfigError: there is no such family.
    """
    if name not in FAMILIES:
        raise ConfigError(f"no family {name!r}; there are {', '.join(FAMILIES)}")
    return import_module(f"cutaway.families.{name}")


def by_model_type(model_type: str) -> str:
    """The family that reads a published `config.json` of this `model_type`."""
    for name in FAMILIES:
        if model_type in get(name).MODEL_TYPES:
            return name
    known = ", ".join(t for name in FAMILIES for t in get(name).MODEL_TYPES)
    raise ConfigError(f"no family here reads checkpoints of model type {model_type!r}; known: {known}")


def by_preset(preset: str) -> str:
    """The family that has this preset.

    Raises:
        SourceError: none has; the message names the nearest.
    """
    if not isinstance(preset, str):
        raise SourceError(f"no preset {preset!r}; a preset is named by a text, such as 'gpt2'")
    if "/" in preset:
        raise SourceError(f"no preset {preset!r}; a folder or a hub id is read by cutaway.load")
    for name in FAMILIES:
        if preset in get(name).PRESETS:
            return name
    every = [preset for name in FAMILIES for preset in get(name).PRESETS]
    near = get_close_matches(preset, every, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`cutaway models` lists them"
    raise SourceError(f"no preset {preset!r}; {hint}")

"""Presets have the published sizes: on the meta device, each one's parameters count as its checkpoint's."""

import pytest
import torch

from cutaway import families
from cutaway.errors import ConfigError, SourceError

# architectures whose papers give no count of these very models
UNCOUNTED = ("recurrent", "seq2seq", "s4", "linear_transformer", "performer", "linformer", "synthesizer")
PRESETS = [
    (name, preset) for name in families.FAMILIES if name not in UNCOUNTED for preset in families.get(name).PRESETS
]
# In millions, of models whose weights were never published: Brown et al. 2020, table D.1; Child et al. 2019, table 1
ROUNDED = {
    "gpt3-125m": 125,
    "gpt3-350m": 356,
    "gpt3-760m": 760,
    "gpt3-1.3b": 1320,
    "gpt3-2.7b": 2650,
    "gpt3-6.7b": 6660,
    "gpt3-13b": 12850,
    "gpt3-175b": 174_600,
    "sparse-transformer-cifar10": 59,
    "sparse-transformer-enwik8": 95,
    "sparse-transformer-imagenet64": 152,
}
# Vaswani et al. 2017, table 3, in millions, for English-German (37,000 shared tokens)
TRANSFORMER = {"transformer-base": 65, "transformer-big": 213}


def count(family: str, preset: str) -> int:
    module = families.get(family)
    with torch.device("meta"):
        model = module.compose(module.PRESETS[preset])
    return sum(p.numel() for p in model.parameters())


def as_rounded(preset: str, count: int) -> bool:
    """Whether a paper gives this number of parameters, up to the half percent that its rounding leaves."""
    return preset in ROUNDED and abs(count / 1e6 / ROUNDED[preset] - 1) < 0.005


@pytest.mark.parametrize(("family", "preset"), PRESETS, ids=lambda x: x)
def test_parameters_equal_the_published_count(family, preset):
    found = count(family, preset)
    if preset in ROUNDED:
        assert as_rounded(preset, found)
    elif preset in TRANSFORMER:
        assert abs(found / 1e6 / TRANSFORMER[preset] - 1) < 0.04
    elif preset != "transformer-decoder":  # a tutorial's model, published by nobody in particular
        assert found == families.get(family).PARAMETERS[preset]


def test_the_counts_the_field_quotes():
    """Figures given independently of our tables: papers and model cards."""
    assert count("bert", "bert-base") == 109_482_240
    assert count("bert", "bert-large") == 335_141_888
    assert count("gpt2", "gpt2") == 124_439_808
    assert count("llama", "llama-7b") == 6_738_415_616
    assert count("llama", "llama-65b") == 65_285_660_672
    assert count("t5", "t5-base") == 222_903_552


def test_preset_names_are_unique():
    names = [preset for _, preset in PRESETS]
    assert len(names) == len(set(names))


def test_unknown_names_say_what_there_is():
    with pytest.raises(SourceError, match="gpt2-xl"):
        families.by_preset("gpt2-xxl")
    with pytest.raises(ConfigError, match="llama"):
        families.get("lama")
    with pytest.raises(ConfigError, match="falcon"):
        families.by_model_type("falcon")


@pytest.mark.parametrize("family", [f for f in families.FAMILIES if families.get(f).MODEL_TYPES])
def test_config_round_trip(family):
    """What we write as a published configuration, we read as the same sizes."""
    module = families.get(family)
    for sizes in module.PRESETS.values():
        assert module.read(module.write(sizes)) == sizes


@pytest.mark.parametrize("family", [f for f in families.FAMILIES if families.get(f).MODEL_TYPES])
def test_an_unknown_key_is_refused_by_name(family):
    module = families.get(family)
    config = module.write(next(iter(module.PRESETS.values())))
    with pytest.raises(ConfigError, match="frobnicate"):
        module.read({**config, "frobnicate": 3})

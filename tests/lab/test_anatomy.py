"""A model in words, read off its modules: what differs is named, and nothing else."""

import pytest
import torch

from cutaway import families
from cutaway.lab.anatomy import anatomy, differences
from cutaway.parts import LayerNorm


def words(preset: str, **swaps) -> dict[str, str]:
    family = families.get(families.by_preset(preset))
    with torch.device("meta"):
        return anatomy(family.compose(family.PRESETS[preset], **swaps))


def test_every_preset_can_be_told():
    for name in families.FAMILIES:
        for preset in families.get(name).PRESETS:
            told = words(preset)
            assert all(told.values())
            assert not any("object at" in each or "<" in each for each in told.values())


def test_gpt2_and_llama():
    differing, same = differences(words("gpt2"), words("llama-7b"))
    told = {part: (a, b) for part, a, b in differing}
    assert told["embedding steps"] == ("1,024 learned positions", "none")
    assert told["attention turns queries and keys"] == ("no", "rotary (base 10,000)")
    assert told["attention norm"][0].startswith("LayerNorm")
    assert told["attention norm"][1].startswith("RMSNorm")
    assert told["feedforward"][1].startswith("gated, silu")
    assert "attention sees" in same
    assert not set(same) & set(told)


def test_what_is_particular_to_later_decoders():
    neox, gemma, mpt = words("pythia-70m"), words("gemma-2-27b"), words("mpt-7b-storywriter")
    assert neox["sublayers"].startswith("side by side")
    assert "16 of 64 numbers" in neox["attention turns queries and keys"]
    assert "times 1 + g), on both sides" in gemma["attention norm"]
    assert gemma["attention scores"].endswith("capped softly at 50")
    assert gemma["head"].endswith("capped softly at 30")
    assert "last 4,096 tokens in blocks 0, 2, 4, …; causal in blocks 1, 3, 5, …" in gemma["attention sees"]
    assert mpt["attention turns values"] == "Clip (limit 6)"
    assert "plus ALiBi (" in mpt["attention scores"]
    assert "origin last" in mpt["attention scores"]


@pytest.mark.parametrize("preset", ["bert-base", "t5-small"])
def test_a_model_does_not_differ_from_itself(preset):
    assert differences(words(preset), words(preset))[0] == []


def test_only_what_is_swapped_differs():
    swapped = words("llama-7b", norm=lambda: LayerNorm(4096))
    differing, _ = differences(words("llama-7b"), swapped)
    assert {part for part, *_ in differing} == {"attention norm", "feedforward norm", "last norm"}


def test_windows_and_grouped_keys_are_told():
    differing, _ = differences(words("llama-2-7b"), words("mistral-7b"))
    told = {part: (a, b) for part, a, b in differing}
    assert told["attention"] == ("32 heads of 128", "32 heads of 128, 8 of keys and values")
    assert told["attention sees"] == ("causal", "causal, the last 4,096 tokens")

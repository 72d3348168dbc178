"""The card's figures, against a counter of FLOPs, a real cache, and published numbers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cutaway import families
from cutaway.attention import backend
from cutaway.errors import ConfigError, SourceError
from cutaway.lab import card
from cutaway.parts import State

TINY = {
    "gpt2": {"vocab": 50, "width": 24, "layers": 2, "heads": 3, "head_width": 8, "hidden": 40, "context": 16},
    "llama": {
        "vocab": 50, "width": 24, "layers": 2, "heads": 4, "kv_heads": 2, "hidden": 40, "head_width": 6, "context": 16,
    },
    "bert": {"vocab": 50, "width": 24, "layers": 2, "heads": 4, "hidden": 40, "context": 16, "head": "masked-lm"},
}  # fmt: skip


def sizes(family: str):
    return families.get(family).Sizes(**TINY[family])


@pytest.mark.parametrize("family", TINY)
def test_flops_are_those_that_a_forward_pass_makes(family):
    tokens = 16
    model = families.get(family).compose(sizes(family)).eval()
    with FlopCounterMode(display=False) as counter, backend("eager"), torch.no_grad():
        model(torch.randint(0, 50, (1, tokens)))
    described = card.describe(family, sizes(family), context=tokens)
    assert described.flops_per_token * tokens == counter.get_total_flops()


def test_flops_of_both_halves_of_an_encoder_decoder():
    tokens = 8
    chosen = families.get("transformer").Sizes(vocab=50, width=24, layers=2, heads=4, hidden=40)
    model = families.get("transformer").compose(chosen).eval()
    ids = torch.randint(0, 50, (1, tokens))
    with FlopCounterMode(display=False) as counter, backend("eager"), torch.no_grad():
        model(ids, ids)
    described = card.describe("transformer", chosen, context=tokens)
    assert described.flops_per_source_token is not None
    both = described.flops_per_token + described.flops_per_source_token
    assert both * tokens == counter.get_total_flops()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_cache_is_as_large_as_the_one_that_is_allocated(family, batch):
    model = families.get(family).compose(sizes(family)).eval()
    state = State(batch, 16)
    with torch.no_grad():
        model(torch.randint(0, 50, (batch, 2)), state=state)
    held = [x for kv in state.sites.values() for x in (kv.k, kv.v)]
    of_one_slot = sum(x[:, :, 0].numel() * x.element_size() for x in held)  # each buffer has one more, for padding
    described = card.describe(family, sizes(family), context=16, batch=batch)
    assert described.kv_cache is not None
    assert described.kv_cache["float32"] == 16 * of_one_slot


def test_a_window_bounds_the_cache_and_the_work():
    long, short = (card.of("mistral-7b", context=c) for c in (32768, 4096))
    assert long.kv_cache == short.kv_cache
    assert long.flops_per_token == short.flops_per_token
    assert card.of("mistral-7b", context=2048).kv_cache != short.kv_cache


def test_published_figures():
    bert = card.of("bert-base")
    assert bert.parameters == bert.published_parameters == 109_482_240
    assert bert.kv_cache is None
    # Brown et al. 2020, table D.1: 1.74e5 millions of parameters, 2 FLOPs each a token forward
    gpt3 = card.of("gpt3-175b", context=1)
    assert gpt3.flops_per_token == pytest.approx(2 * 174_600e6, rel=0.001)
    # half a MiB a token: keys and values, 32 layers of width 4096, two bytes each
    assert card.of("llama-7b", context=2048).kv_cache["float16"] == 2 * 32 * 4096 * 2 * 2048


def test_memory_of_weights_and_optimizer():
    found = card.of("gpt2")
    assert found.weights == {"float32": 4 * 124_439_808, "bfloat16": 2 * 124_439_808, "float16": 2 * 124_439_808}
    assert found.adamw == 8 * 124_439_808


@pytest.mark.parametrize("wrong", [{"context": 0}, {"batch": 0}, {"context": -1}])
def test_sizes_below_one_are_refused(wrong):
    with pytest.raises(ConfigError, match="at least 1"):
        card.of("gpt2", **wrong)


def test_a_context_beyond_learned_positions_is_refused():
    with pytest.raises(ConfigError, match="1024 positions"):
        card.of("gpt2", context=1025)


def test_a_preset_that_is_none_gets_a_suggestion():
    with pytest.raises(SourceError, match="bert-base"):
        card.of("bert-bse")

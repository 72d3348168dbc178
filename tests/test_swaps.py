"""Any part in any family's place, by name; and a clear word where parts cannot go together."""

import pytest
import torch

import cutaway
from cutaway import families, swaps
from cutaway.errors import ConfigError
from cutaway.parts import ALiBi, EncoderDecoder, LearnedPositions, RMSNorm, Rotary, State, T5Bias

TINY = {"vocab": 50, "width": 32, "layers": 2, "heads": 4}
IDS = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))


def run(model):
    return model(IDS, IDS[:, :5]) if isinstance(model, EncoderDecoder) else model(IDS)


@pytest.mark.parametrize("norm", swaps.NORMS)
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_every_norm(family, norm):
    assert run(cutaway.build(PRESET[family], norm=norm, seed=0, **TINY)).isfinite().all()


PRESET = {
    "gpt2": "gpt2",
    "llama": "smollm2-135m",
    "bert": "bert-base",
    "t5": "t5-small",
    "transformer": "transformer-base",
}


@pytest.mark.parametrize("position", swaps.POSITIONS)
@pytest.mark.parametrize("family", PRESET)
def test_every_position_in_every_family(family, position):
    """Each computes, learns, and (but for "none" in an encoder) tells the order of tokens."""
    model = cutaway.build(PRESET[family], position=position, seed=0, **TINY)
    out = run(model)
    out.square().mean().backward()
    assert out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    if family == "bert":
        turned = model(IDS.flip(1)).flip(1)
        assert torch.allclose(turned, out, atol=1e-5) == (position in ("none", "alibi"))  # ALiBi is symmetric


@pytest.mark.parametrize("feedforward", swaps.FEEDFORWARDS)
def test_every_feedforward(feedforward):
    assert run(cutaway.build("gpt2", feedforward=feedforward, seed=0, **TINY)).isfinite().all()


@pytest.mark.parametrize("mixer", [name for name, mixer in swaps.MIXERS.items() if mixer.causal])
@pytest.mark.parametrize("preset", ["gpt2", "smollm2-135m"])
def test_every_mixer_in_a_decoder(preset, mixer):
    """It never looks ahead, and token by token it gives what it gives at once."""
    model = cutaway.build(preset, mixer=["attention", mixer], seed=0, **TINY)
    whole = model(IDS)
    other = IDS.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 50
    assert torch.allclose(model(other)[:, :6], whole[:, :6], atol=1e-5)
    state = State(2, 9)
    with torch.no_grad():
        pieces = [model(IDS[:, :4], state=state), *(model(IDS[:, t : t + 1], state=state) for t in range(4, 9))]
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-4)


@pytest.mark.parametrize("mixer", [name for name, mixer in swaps.MIXERS.items() if mixer.both_ways])
def test_every_mixer_that_looks_both_ways_in_an_encoder(mixer):
    model = cutaway.build("bert-base", mixer=mixer, seed=0, **TINY)
    other = IDS.clone()
    other[:, -1] = (other[:, -1] + 1) % 50
    assert run(model).isfinite().all()
    assert not torch.allclose(model(other)[:, 0], model(IDS)[:, 0], atol=1e-6)


def test_mixers_take_turns():
    from cutaway.attention import Causal, Window

    model = cutaway.build("gpt2", mixer=["attention", "window:3"], **{**TINY, "layers": 4})
    masks = [block.attention.inner.mask for block in model.stack.blocks]
    assert masks == [Causal(), Causal() & Window(3)] * 2


def test_positions_go_where_they_belong():
    model = cutaway.build("bert-base", position="rotary", **TINY)
    assert all(isinstance(block.attention.inner.q_steps[0], Rotary) for block in model.stack.blocks)
    assert len(model.stack.embedding.steps) == 3
    assert model.max_positions is None
    model = cutaway.build("smollm2-135m", position="alibi", **TINY)
    assert all(isinstance(block.attention.inner.score_bias, ALiBi) for block in model.stack.blocks)
    model = cutaway.build("t5-small", position="learned", **TINY, norm="rms")
    assert model.max_positions == swaps.DEFAULT_CONTEXT
    assert isinstance(model.encoder.norm, RMSNorm)


def test_what_cannot_be():
    for wrong, said in [
        ({"mixer": "atention"}, "did you mean 'attention'"),
        ({"position": "rotatory"}, "did you mean 'rotary'"),
        ({"mixer": []}, "at least one"),
        ({"mixer": "linformer"}, "cannot stand in a decoder"),
        ({"mixer": "mamba", "position": "rotary"}, "no queries and keys"),
        ({"mixer": "synthesizer", "position": "rotary"}, "no queries and keys"),
        ({"mixer": ["gru", "s4"], "position": "t5"}, "no scores"),
        ({"mixer": ["lsh", "linear"], "position": "alibi"}, "no scores"),
        ({"mixer": "window:0"}, "how many"),
        ({"mixer": "attention:3"}, "takes no number"),
        ({"mixer": ["attention", 3]}, "no mixer 3"),
        ({"norm": ["rms"]}, "no norm"),
    ]:
        with pytest.raises(ConfigError, match=said):
            cutaway.build("gpt2", **TINY, **wrong)


PLACED = {"learned": LearnedPositions, "rotary": Rotary, "alibi": ALiBi, "t5": T5Bias}
NOWHERE = {  # whose mixers have nothing that such positions could turn or add to
    **dict.fromkeys(("mamba", "mamba2", "s4", "recurrent"), ("rotary", "alibi", "t5")),
    **dict.fromkeys(("reformer", "linear_transformer", "performer", "linformer"), ("alibi", "t5")),
    "synthesizer": ("rotary",),
}


@pytest.mark.parametrize("position", PLACED)
@pytest.mark.parametrize("family", [name for name in families.FAMILIES if name != "seq2seq"])
def test_positions_are_placed_or_refused(family, position):
    """None is left out in silence."""
    preset = next(iter(families.get(family).PRESETS))
    chosen = {"position": position, "device": "meta", "layers": 2}
    if position in NOWHERE.get(family, ()):
        with pytest.raises(ConfigError, match="choose another position"):
            cutaway.build(preset, **chosen)
    else:
        model = cutaway.build(preset, **chosen)
        assert any(isinstance(module, PLACED[position]) for module in model.modules())


def test_what_reads_from_left_to_right_cannot_stand_in_an_encoder():
    for mixer in (name for name, mixer in swaps.MIXERS.items() if not mixer.both_ways):
        with pytest.raises(ConfigError, match="cannot stand in an encoder"):
            cutaway.build("bert-base", **TINY, mixer=mixer)


def test_a_swapped_model_is_saved_and_loaded(tmp_path):
    model = cutaway.build("gpt2", mixer=["attention", "window:3"], position="rotary", norm="rms", seed=0, **TINY)
    cutaway.save(model, tmp_path / "saved")
    back = cutaway.load(tmp_path / "saved").model
    assert torch.equal(back(IDS), model(IDS))
    assert back.swaps == model.swaps
    with pytest.raises(ConfigError, match="no published form"):
        cutaway.save(model, tmp_path / "other", layout="huggingface")


NOTHING_TO_SWAP = ("recurrent", "seq2seq")


@pytest.mark.parametrize("family", [name for name in families.FAMILIES if name not in NOTHING_TO_SWAP])
def test_every_family_takes_swaps(family):
    swapped = cutaway.build(next(iter(families.get(family).PRESETS)), device="meta", norm="rms", layers=2)
    assert any(isinstance(module, RMSNorm) for module in swapped.modules())


@pytest.mark.parametrize("family", NOTHING_TO_SWAP)
def test_a_family_without_the_part_says_so(family):
    with pytest.raises(ConfigError, match="to put another in place of"):
        cutaway.build(next(iter(families.get(family).PRESETS)), device="meta", norm="rms")

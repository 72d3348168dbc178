"""Cached equals uncached, however the tokens arrive and wherever the padding stands."""

import jaxtyping
import pytest
import torch

from cutaway.errors import CapacityError, ConfigError
from cutaway.families import gpt2, llama, t5, transformer
from cutaway.parts import State

MODELS = {
    "gpt2": lambda: gpt2.compose(gpt2.Sizes(50, 32, 2, 4, 8, 64, 64, dropout=0.0)),
    "llama": lambda: llama.compose(llama.Sizes(50, 32, 2, 4, 2, 48, 8)),
    "window": lambda: llama.compose(llama.Sizes(50, 32, 3, 4, 2, 48, 8, window=4)),
    "transformer": lambda: transformer.compose(transformer.Sizes(50, 32, 2, 4, 64, encoder=False, dropout=0.0)),
}
BOUND = {"rtol": 1e-4, "atol": 2e-5}  # models are float64, but angles and some of their softmaxes float32


def sharp(name):
    model = MODELS[name]().eval().double()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8 if p.ndim == 2 else 1)
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pieces", [[13], [1] * 13, [5, 1, 1, 6], [2, 11], [12, 1], [3, 3, 3, 4]])
@torch.no_grad()
def test_in_pieces_equals_at_once(name, pieces):
    model, ids = sharp(name), torch.randint(0, 50, (2, 13))
    state = State(2, 13)
    found = torch.cat([model(piece, state=state) for piece in ids.split(pieces, 1)], 1)
    torch.testing.assert_close(found, model(ids), **BOUND)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", ["left", "right", "both"])
@torch.no_grad()
def test_rows_do_not_see_their_neighbours(name, side):
    """A batch of unequal rows, then single steps (one row resting at each): every row as if it were alone."""
    model, rows = sharp(name), [torch.randint(0, 50, (1, n)) for n in (3, 7, 5)]
    ids, padding = torch.zeros(3, 8, dtype=torch.int64), torch.zeros(3, 8, dtype=torch.bool)
    for i, row in enumerate(rows):
        n = row.shape[1]
        start = {"left": 8 - n, "right": 0, "both": 1}[side]
        ids[i, start : start + n], padding[i, start : start + n] = row[0], True
    state = State(3, 16)
    out = model(ids, padding, state=state, last=True)
    rows_now = list(rows)
    for step in range(5):
        for i, row in enumerate(rows_now):
            expected = model(row)[:, -1:]
            if step == 0 or i != (step - 1) % 3:
                torch.testing.assert_close(out[i : i + 1], expected, **BOUND)
        new = torch.randint(0, 50, (3, 1))
        awake = torch.ones(3, 1, dtype=torch.bool)
        awake[step % 3] = False
        out = model(new, awake, state=state)
        rows_now = [torch.cat([r, new[i : i + 1]], 1) if awake[i] else r for i, r in enumerate(rows_now)]


@pytest.mark.parametrize("encoder", ["t5", "transformer"])
@torch.no_grad()
def test_encoder_decoder(encoder):
    if encoder == "t5":
        model = t5.compose(t5.Sizes(50, 32, 2, 4, 64, 8, buckets=8, max_distance=16)).eval()
    else:
        model = transformer.compose(transformer.Sizes(50, 32, 2, 4, 64, dropout=0.0)).eval()
    for p in model.parameters():
        p.mul_(6 if p.ndim == 2 else 1)
    source, target = torch.randint(0, 50, (2, 9)), torch.randint(0, 50, (2, 6))
    padding = torch.ones_like(source, dtype=torch.bool)
    padding[1, :4] = False
    expected = model(source, target, padding)
    memory, state = model.encode(source, padding), State(2, 8)
    pieces = [model.decode(t, memory, padding, state=state) for t in target.split([2, 1, 1, 2], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), expected, **BOUND)
    # a source alone and without its padding gives the same
    torch.testing.assert_close(model(source[1:, 4:], target[1:]), expected[1:], **BOUND)


@torch.no_grad()
def test_a_window_keeps_only_its_keys():
    model, state = sharp("window"), State(1, 1000)
    model(torch.randint(0, 50, (1, 20)), state=state)
    assert {slots.capacity for slots in state.slots.values()} == {4}
    full = State(1, 1000)
    sharp("llama")(torch.randint(0, 50, (1, 20)), state=full)
    assert state.bytes < full.bytes / 50


@torch.no_grad()
def test_reorder():
    model, ids = sharp("llama"), torch.randint(0, 50, (2, 6))
    state = State(2, 10)
    model(ids, state=state)
    state.reorder(torch.tensor([1, 1, 0]))
    new = torch.randint(0, 50, (3, 1))
    found = model(new, state=state)
    expected = model(torch.cat([ids[[1, 1, 0]], new], 1))[:, -1:]
    torch.testing.assert_close(found, expected, **BOUND)


@torch.no_grad()
def test_unused_slots_cannot_leak():
    """A NaN in an empty slot or in the bin for padding would survive a weight of zero: buffers are zeros."""
    model, ids = sharp("llama"), torch.randint(0, 50, (1, 4))
    state = State(1, 9)
    model(ids, state=state)
    for held in state.sites.values():
        assert (held.k[:, :, 4:] == 0).all()
    padding = torch.tensor([[False]])
    model(ids[:, :1], padding, state=state)
    torch.testing.assert_close(model(ids[:, :1], state=state), model(torch.cat([ids, ids[:, :1]], 1))[:, -1:], **BOUND)


@torch.no_grad()
def test_too_much_is_refused_and_nothing_is_lost():
    model, ids = sharp("llama"), torch.randint(0, 50, (1, 6))
    state = State(1, 8)
    model(ids, state=state)
    with pytest.raises(CapacityError, match="room for 8 tokens"):
        model(ids, state=state)
    found = model(ids[:, :2], state=state)
    torch.testing.assert_close(found, model(torch.cat([ids, ids[:, :2]], 1))[:, -2:], **BOUND)
    with pytest.raises(ConfigError, match="batch >= 1"):
        State(0, 3)


def test_bad_calls_have_one_clear_error(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as a user has it: our own checks alone
    model = sharp("gpt2")
    for ids, match in [
        (torch.zeros(3, dtype=torch.int64), r"\(B, T\)"),
        (torch.zeros(1, 3), "whole numbers"),
        (torch.full((1, 3), 50), "0 to 49"),
        (torch.full((1, 3), -1), "-1"),
        (torch.zeros(1, 0, dtype=torch.int64), "T >= 1"),
    ]:
        with pytest.raises(ConfigError, match=match):
            model(ids)
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ConfigError, match="padding is bool"):
        model(ids, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ConfigError, match="padding is bool"):
        model(ids, torch.ones(2, 3))
    with pytest.raises(ConfigError, match="a state of 1 rows"):
        model(ids, state=State(1, 5))
    with pytest.raises(CapacityError, match="64 positions"):
        model(torch.zeros(1, 65, dtype=torch.int64))
    with pytest.raises(ConfigError, match="pooler"):
        model.pooled(ids)


@torch.no_grad()
def test_learned_positions_run_out_clearly_and_nothing_is_lost():
    model, ids = sharp("gpt2"), torch.randint(0, 50, (1, 64))
    state, before = State(1, 100), State(1, 100)
    model(ids[:, :60], state=state)
    model(ids[:, :60], state=before)
    padding = torch.tensor([[True] * 4 + [False]])
    with pytest.raises(CapacityError, match="65 tokens are more than the 64 positions"):
        model(ids[:, :5], state=state)
    assert (state.next, state.fed, state.calls, state.even) == (before.next, 60, 1, True)
    padded = torch.cat([ids[:, 60:], ids[:, :1]], 1)
    torch.testing.assert_close(model(padded, padding, state=state)[:, :4], model(ids)[:, 60:], **BOUND)  # 64 real ones
    with pytest.raises(CapacityError, match="65 tokens"):
        model(ids[:, :1], state=state)


@torch.no_grad()
def test_a_refused_target_is_not_remembered(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as a user has it: our own checks alone
    model = t5.compose(t5.Sizes(50, 32, 1, 4, 64, 8)).eval()
    source, target = torch.randint(0, 50, (2, 5)), torch.randint(0, 50, (2, 3))
    memory, state = model.encode(source), State(2, 8)
    for wrong in ({"memory": memory[:1]}, {"memory": memory, "source_padding": torch.ones(2, 4, dtype=torch.bool)}):
        with pytest.raises(ConfigError, match=r"sources for|padding is bool"):
            model.decode(target, state=state, **wrong)
    assert (state.fed, state.calls) == (0, 0)
    torch.testing.assert_close(model.decode(target, memory, state=state), model(source, target), **BOUND)

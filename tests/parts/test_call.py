"""What a call means: given positions, dtypes, segments; and what is refused, in one sentence, before anything ran."""

import jaxtyping
import pytest
import torch

from cutaway.attention import backend
from cutaway.errors import CapacityError, ConfigError
from cutaway.families import bert, gpt2, llama
from cutaway.parts import Context, Last, State

IDS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])
SHUFFLED = torch.tensor([[4, 0, 5, 2, 1, 3]])
BOUND = {"rtol": 1e-4, "atol": 2e-5}


def small(family=gpt2):
    sizes = {
        gpt2: lambda: gpt2.Sizes(50, 32, 2, 4, 8, 64, 16, dropout=0.0),
        llama: lambda: llama.Sizes(50, 32, 2, 4, 2, 48, 8, window=3),
        bert: lambda: bert.Sizes(vocab=50, width=32, layers=2, heads=4, hidden=64, context=16),
    }
    model = family.compose(sizes[family]()).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8 if p.ndim == 2 else 1)
    return model


@pytest.mark.parametrize("family", [gpt2, llama])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", ["sdpa", "eager", "tiled"])
@torch.no_grad()
def test_masks_go_by_given_positions(family, rows, name):
    """Tokens in another order, each with its position, are the same text, in every backend."""
    model, positions = small(family), SHUFFLED.expand(rows, -1)
    with backend(name):
        found = model(IDS, positions=positions)
        ordered = model(IDS[:, SHUFFLED[0].argsort()])
    torch.testing.assert_close(found, ordered[:, SHUFFLED[0]], **BOUND)


@torch.no_grad()
def test_the_last_token_is_that_of_the_last_column():
    """Not that of the highest position; wherever the padding is, with a state or without."""
    model = small()
    torch.testing.assert_close(model(IDS, positions=SHUFFLED, last=True), model(IDS, positions=SHUFFLED)[:, -1:])
    x = torch.randn(2, 6, 8)
    for padding, columns in [
        ([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]], [3, 4]),
        ([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]], [5, 5]),
        ([[0, 1, 1, 1, 1, 0], [1, 1, 0, 1, 0, 0]], [4, 3]),
    ]:
        real = torch.tensor(padding).bool()
        for given in ({"positions": SHUFFLED}, {"state": State(2, 8)}, {}):
            everywhere = model(IDS, real, **given)
            given = {"state": State(2, 8)} if "state" in given else given
            found = model(IDS, real, **given, last=True)
            torch.testing.assert_close(found[:, 0], everywhere[[0, 1], columns], **BOUND)
        context = Context(torch.where(real, SHUFFLED, -1), packing="any")
        assert torch.equal(Last()(x, context), x[[0, 1], columns])


@torch.no_grad()
def test_int32_is_as_good_as_int64():
    model, narrow = small(bert), torch.int32
    segments = (IDS > 4).long()
    expected = model(IDS, positions=SHUFFLED, segments=segments)
    found = model(IDS.to(narrow), positions=SHUFFLED.to(narrow), segments=segments.to(narrow))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.bool, torch.float32, torch.complex64])
def test_other_dtypes_are_refused(dtype, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as a user has it: our own checks alone
    model, wrong = small(bert), torch.ones(2, 6).to(dtype)
    for name, call in {
        "ids": lambda: model(wrong),
        "positions": lambda: model(IDS, positions=wrong),
        "segments": lambda: model(IDS, segments=wrong),
    }.items():
        with pytest.raises(ConfigError, match=rf"{name} are whole numbers .* int64 or int32, not {dtype}"):
            call()


def test_positions_and_segments_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model = small(bert)
    for numbers in (torch.zeros(3, 6), torch.zeros(2, 5)):
        with pytest.raises(ConfigError, match="but ids are"):
            model(IDS, positions=numbers.long())
        with pytest.raises(ConfigError, match="but ids are"):
            model(IDS, segments=numbers.long())
    with pytest.raises(ConfigError, match="positions are whole numbers"):
        model(IDS, positions=torch.tensor(3))
    with pytest.raises(CapacityError, match="16 positions"):
        model(IDS, positions=SHUFFLED + 11)
    with pytest.raises(ConfigError, match="segments run from 0 to 2; this model knows 0 to 1"):
        model(IDS, segments=torch.tensor([[0, 0, 1, 1, 2, 2]]).expand(2, -1))
    state = State(2, 8)
    with pytest.raises(ConfigError, match="tells no segments apart"):
        small()(IDS, segments=torch.zeros_like(IDS), state=state)
    assert (state.fed, state.calls) == (0, 0)


def test_a_model_without_weights_is_refused():
    model = small().to("meta")
    with pytest.raises(ConfigError, match="meta device has no weights"):
        model(IDS)
    assert model(IDS.to("meta")).shape == (2, 6, 50)  # shapes alone can be asked for

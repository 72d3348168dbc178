"""Linear attention: the sums are the definition's, in chunks, in segments, in a state of constant size."""

import pytest
import torch
from tests.parts.mixers import check_padding, check_pattern, check_pieces, whole

from cutaway.attention import Causal, Full, Prefix, Window
from cutaway.errors import ConfigError
from cutaway.parts import ALiBi, Context, EluPlusOne, LinearAttention, PerformerAttention, Rotary, State, T5Bias
from cutaway.parts import linear_attention as module

LENGTHS = [1, 2, 7, 13, 63, 64, 65, 127, 130]


def made(kind: type = LinearAttention, **given) -> torch.nn.Module:
    return kind(16, 4, 2, **given).double()


def definition(mixer: LinearAttention, x: torch.Tensor) -> torch.Tensor:
    """Equation 5, a token at a time."""
    heads = lambda p: p(x).unflatten(-1, (-1, 4)).transpose(1, 2)
    q, k, v = heads(mixer.q), *(heads(p).repeat_interleave(2, 1) for p in (mixer.k, mixer.v))
    phi = lambda y: torch.where(y > 0, y + 1, y.exp())
    rows = []
    for i in range(x.shape[1]):
        seen = slice(0, i + 1) if mixer.causal else slice(None)
        weights = (phi(q[:, :, i : i + 1]) * phi(k[:, :, seen])).sum(-1)
        rows.append((weights[..., None] * v[:, :, seen]).sum(2) / weights.sum(-1, keepdim=True))
    return mixer.out(torch.stack(rows, 2).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("mask", [Causal(), Full()], ids=["causal", "full"])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_equals_the_definition_with_gradients(mask, tokens):
    mixer, x = made(mask=mask, bias=True), torch.randn(2, tokens, 16, dtype=torch.float64, requires_grad=True)
    found, expected = mixer(x, whole(tokens)), definition(mixer, x)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    inputs = [x, *mixer.parameters()]
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), inputs) for y in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", [LinearAttention, PerformerAttention])
@pytest.mark.parametrize("mask", [Causal(), Full()], ids=["causal", "full"])
def test_segments_change_nothing(kind, mask, monkeypatch):
    mixer, x = made(kind, mask=mask), torch.randn(2, 150, 16, dtype=torch.float64)
    expected = mixer(x, whole(150))
    monkeypatch.setattr(module, "SEGMENT", 33)
    monkeypatch.setattr(module, "CHUNK", 8)
    torch.testing.assert_close(mixer(x, whole(150)), expected)


@pytest.mark.parametrize("kind", [LinearAttention, PerformerAttention])
@pytest.mark.parametrize("sizes", [(1,) * 20, (7, 1, 1, 5, 2), (3, 64, 65), (130, 1)], ids=str)
def test_recurrent_equals_parallel(kind, sizes):
    check_pieces(kind(16, 4, 2, mask=Causal(), q_steps=[Rotary(4)], k_steps=[Rotary(4)]), 16, sizes, 1e-4)


@pytest.mark.parametrize("kind", [LinearAttention, PerformerAttention])
@pytest.mark.parametrize("mask", [Causal(), Full()], ids=["causal", "full"])
def test_padding_changes_nothing(kind, mask):
    check_padding(kind(16, 4, 2, mask=mask), 16)


@pytest.mark.parametrize("kind", [LinearAttention, PerformerAttention])
@pytest.mark.parametrize("tokens", [1, 5, 70])
def test_the_implied_pattern_is_what_mixes(kind, tokens):
    pattern = check_pattern(kind(16, 4, 2, mask=Causal()), 16, tokens)
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
    assert (pattern >= 0).all()
    assert (pattern.triu(1) == 0).all()
    check_pattern(kind(16, 4, mask=Full()), 16, tokens)


def test_the_state_does_not_grow():
    mixer, sizes = LinearAttention(16, 4, mask=Causal()), []
    for tokens in (4, 400):
        state = State(1, 500)
        mixer(torch.randn(1, tokens, 16), Context(state.advance(tokens, None), state=state, site="m"))
        sizes.append(state.bytes)
    assert sizes[0] == sizes[1] < 4 * 4 * 5 * 4 + 100  # H·M·(E + 1) floats and a few more


def test_the_feature_map_keeps_its_digits():
    """elu(x) + 1 is 0 in float32 for x = -20, and a row of zeros would be divided by zero."""
    x = torch.tensor([-80.0, -20.0, -1.0, 0.0, 3.0])
    torch.testing.assert_close(EluPlusOne().queries(x.view(1, 1, 1, 5)).flatten().double()[:3], x[:3].double().exp())
    mixer = LinearAttention(16, 4, mask=Causal())
    for p in (mixer.q, mixer.k):
        torch.nn.init.zeros_(p.weight)
        p.register_parameter("bias", torch.nn.Parameter(torch.full((16,), -30.0)))
    x = torch.randn(1, 6, 16)
    average = mixer.v(x).cumsum(1) / torch.arange(1, 7)[:, None]
    torch.testing.assert_close(mixer(x, whole(6)), mixer.out(average), rtol=1e-4, atol=1e-5)


def test_sums_are_float32_in_half_precision():
    """Ten thousand equal weights in bfloat16 would stop adding up at 256."""
    mixer = LinearAttention(8, 1, mask=Causal()).bfloat16()
    x = torch.ones(1, 3000, 8).bfloat16()
    found = mixer(x, whole(3000))
    torch.testing.assert_close(found[0, -1], found[0, 0], rtol=0.02, atol=0.02)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="ALiBi"):
        LinearAttention(16, 4, score_bias=ALiBi(4))
    with pytest.raises(ConfigError, match="T5Bias"):
        PerformerAttention(16, 4, score_bias=T5Bias(4, False))
    with pytest.raises(ConfigError, match="all tokens or at the past"):
        LinearAttention(16, 4, mask=Window(3))
    with pytest.raises(ConfigError, match="all tokens or at the past"):
        LinearAttention(16, 4, mask=Causal() | Prefix(2))
    with pytest.raises(ConfigError, match="multiple"):
        LinearAttention(16, 4, 3)

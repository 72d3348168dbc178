"""State spaces: convolution = recurrence = the system solved directly in float64; HiPPO as its paper writes it."""

import math

import pytest
import torch

import cutaway
from cutaway.attention import Full, recording
from cutaway.errors import ConfigError
from cutaway.parts import Context, State
from cutaway.parts.hippo import diagonal_plus_low_rank, legs
from cutaway.parts.s4 import S4

N, D = 8, 3


def layer(kind: str, **more) -> S4:
    torch.manual_seed(0)
    return S4(D, state=N, kind=kind, step=(0.05, 0.3), **more).double()


def context(length: int) -> Context:
    return Context(torch.arange(length)[None])


def direct(s4: S4, u: torch.Tensor) -> torch.Tensor:
    """x_k = Ā x_{k-1} + B̄ u_k with dense matrices, written from the definitions alone."""
    outputs = []

    def full(x, channel):
        half = torch.view_as_complex(x[channel].detach().contiguous())
        return torch.cat([half, half.conj()])

    for channel in range(D):
        half = torch.complex(-s4.log_decay[channel].exp(), s4.frequency[channel]).detach()
        a, b, c = torch.diag(torch.cat([half, half.conj()])), full(s4.B, channel), full(s4.C, channel)
        dt, eye = s4.log_step[channel].exp().item(), torch.eye(N, dtype=torch.complex128)
        if s4.kind == "s4":
            p = full(s4.p, channel)
            a = a - p[:, None] * p.conj()[None, :]
            inverse = torch.linalg.inv(eye - dt / 2 * a)
            turn, enter = inverse @ (eye + dt / 2 * a), inverse @ b * dt
        else:
            turn = torch.linalg.matrix_exp(dt * a)
            enter = torch.linalg.inv(a) @ (turn - eye) @ b
        x, found = torch.zeros(len(u), N, dtype=torch.complex128), []
        for t in range(u.shape[1]):
            x = x @ turn.T + enter * u[:, t, channel, None]
            found.append((x @ c).real + s4.D[channel].item() * u[:, t, channel])
        outputs.append(torch.stack(found, 1))
    return torch.stack(outputs, -1).detach()


@pytest.mark.parametrize("kind", ["s4", "s4d"])
@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
def test_convolution_equals_recurrence_equals_the_system_itself(kind, length, monkeypatch):
    monkeypatch.setattr("cutaway.parts.s4.CHUNK", 5 * D * N)  # several chunks
    s4, u = layer(kind), torch.randn(2, length, D, dtype=torch.float64)
    expected = direct(s4, u)
    assert torch.allclose(s4.convolve(u) + u * s4.D, expected, atol=1e-10)
    caught = []
    s4.out.register_forward_pre_hook(lambda module, given: caught.append(given[0]))
    s4(u, Context(torch.arange(length)[None], state=State(2, length)))
    assert torch.allclose(caught[0], torch.nn.functional.gelu(expected), atol=1e-10)


@pytest.mark.parametrize("start", ["legs", "lin", "inv"])
def test_every_beginning_of_s4d_decays(start):
    s4 = layer("s4d", start=start)
    assert torch.allclose(
        s4.convolve(u := torch.randn(1, 9, D, dtype=torch.float64)) + u * s4.D, direct(s4, u), atol=1e-9
    )
    assert s4.kernel(400)[:, -1].abs().max() < s4.kernel(400).abs().max()


@pytest.mark.parametrize("kind", ["s4", "s4d"])
def test_gradients_of_both_modes_agree(kind):
    s4, u = layer(kind), torch.randn(1, 6, D, dtype=torch.float64)
    grads = []
    for state in (None, State(1, 6)):
        s4.zero_grad()
        s4(u, Context(torch.arange(6)[None], state=state)).square().sum().backward()
        grads.append([p.grad.clone() for p in s4.parameters()])
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*grads, strict=True))


def test_hippo_is_a_diagonal_minus_rank_one():
    """In the basis of its normal part, put together again from the kept half, LegS is itself."""
    a, b = legs(N)
    assert a[3, 1] == -math.sqrt(7 * 3) and a[2, 2] == -3 and a[1, 3] == 0 and b[2] == math.sqrt(5)  # noqa: PT018
    rate, p, turned, basis = diagonal_plus_low_rank(N)
    both = torch.cat([basis, basis.conj()], 1)
    inner = torch.diag(torch.cat([rate, rate.conj()])) - torch.outer(torch.cat([p, p.conj()]), torch.cat([p.conj(), p]))
    assert torch.allclose((both @ inner @ both.mH).real, a, atol=1e-9)
    assert torch.allclose((both @ torch.cat([turned, turned.conj()])).real, b, atol=1e-9)


def test_s4_begins_as_legs_discretised():
    """The kernel of real LegS with the same B and C, by dense matrices."""
    s4, length = layer("s4"), 12
    a, b = legs(N)
    basis = diagonal_plus_low_rank(N)[3]
    c = torch.view_as_complex(s4.C.detach())
    for channel in range(D):
        dt, eye = s4.log_step[channel].exp().item(), torch.eye(N, dtype=torch.float64)
        inverse = torch.linalg.inv(eye - dt / 2 * a)
        turn, enter = inverse @ (eye + dt / 2 * a), inverse @ b * dt
        real_c = 2 * (c[channel] @ basis.mH).real
        expected = torch.stack([real_c @ torch.linalg.matrix_power(turn, power) @ enter for power in range(length)])
        assert torch.allclose(s4.kernel(length)[channel], expected, atol=1e-6)  # the parameters began in float32


@pytest.mark.parametrize("kind", ["s4", "s4d"])
def test_pattern_times_values_is_the_output(kind):
    s4, u = layer(kind), torch.randn(2, 7, D, dtype=torch.float64)
    pos = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [-1, -1, 0, 1, 2, -1, 3]])
    with recording() as trace:
        s4(u, Context(pos, packing="any"))
    (site,) = trace
    mixed = (site.weights() @ site.v)[..., 0].mT
    assert torch.allclose(mixed[0], direct(s4, u[:1])[0], atol=1e-9)
    real = pos[1] >= 0
    assert torch.allclose(mixed[1, real], direct(s4, u[1:, real])[0], atol=1e-9)


@pytest.mark.parametrize("preset", ["s4-wikitext", "s4d-wikitext"])
def test_padding_and_states(preset):
    model = cutaway.build(preset, vocab=30, width=16, layers=2, hidden=32, state=8, seed=0)
    ids = torch.randint(0, 30, (1, 9))
    alone = model(ids)
    pad = torch.zeros(1, 4, dtype=torch.int64)
    for left in (True, False):
        padded = torch.cat([pad, ids] if left else [ids, pad], 1)
        real = torch.cat([pad.bool(), ids.bool() | True] if left else [ids.bool() | True, pad.bool()], 1)
        assert torch.allclose(model(padded, real)[real], alone[0], atol=1e-4)
    state, pieces = State(1, 9), []
    for piece in (ids[:, :4], ids[:, 4:5], ids[:, 5:]):
        pieces.append(model(piece, state=state))
        assert state.bytes < 2 * 16 * 8 * 4 + 64  # x of every layer and the count of tokens: it does not grow
    assert torch.allclose(torch.cat(pieces, 1), alone, atol=1e-4)


def test_what_cannot_be():
    with pytest.raises(ConfigError, match="left to right"):
        S4(4, mask=Full())
    with pytest.raises(ConfigError, match="pairs"):
        S4(4, state=7)
    with pytest.raises(ConfigError, match="legs, lin and inv"):
        S4(4, kind="s4d", start="fout")

"""Mamba and Mamba-2: fast scans equal their definitions with gradients, in pieces, with padding, and as a pattern."""

import pytest
import torch
import torch.nn.functional as F
from tests.parts.mixers import check_padding, check_pieces, padded, whole

from cutaway.attention import Causal, Full, recording
from cutaway.errors import ConfigError
from cutaway.parts import CausalConvolution, Context, Mamba, Mamba2, State, scan, ssd
from cutaway.parts import mamba as mamba_file

WIDTH = 16


def made(kind: type) -> torch.nn.Module:
    """Random enough that every term is heard: rates, steps and skips of any size, strong selection."""
    mixer = Mamba(WIDTH, state=5, rank=3) if kind is Mamba else Mamba2(WIDTH, head_size=8, groups=2, state=6)
    with torch.no_grad():
        for name, p in mixer.named_parameters():
            p.add_(torch.randn_like(p) * (0.2 if "norm" in name else 0.5))
    return mixer


def scan_inputs(rows: int, tokens: int, channels: int, n: int, dtype: torch.dtype) -> list[torch.Tensor]:
    u, dt = torch.randn(rows, tokens, channels), torch.rand(rows, tokens, channels)
    b, c = torch.randn(2, rows, tokens, n)
    rest = -torch.rand(n, channels) * 3, b, c, torch.randn(channels), torch.randn(rows, n, channels)
    return [x.to(dtype).requires_grad_() for x in (u, dt, *rest)]


def ssd_inputs(rows: int, tokens: int, dtype: torch.dtype) -> list[torch.Tensor]:
    x, dt = torch.randn(rows, tokens, 4, 3), torch.rand(rows, tokens, 4)
    b, c = torch.randn(2, rows, tokens, 2, 5)
    return [
        y.to(dtype).requires_grad_()
        for y in (x, dt, -torch.rand(4) * 3, b, c, torch.randn(4), torch.randn(rows, 4, 5, 3))
    ]


def same_with_gradients(fast, definition, inputs, bound):
    """Outputs, last states, and the gradient of every input, compared by the largest number of each."""
    weights, sides = None, []
    for f in (fast, definition):
        outs = f(*inputs)
        weights = weights or [torch.randn_like(x) for x in outs]
        loss = sum((x * w).sum() for x, w in zip(outs, weights, strict=True))
        sides.append([*outs, *torch.autograd.grad(loss, inputs)])
    for found, expected in zip(*sides, strict=True):
        assert (found - expected).abs().max() <= bound * expected.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 5e-6)], ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 7, 8, 9, 31, 37])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_scan_equals_its_definition(rows, tokens, dtype, bound, monkeypatch):
    """In pieces of four tokens, rows together or two at a time; the last piece and the last rows may be fewer."""
    monkeypatch.setattr(scan, "PIECE", 64)
    for shared in (1, 80, 2**16):
        monkeypatch.setattr(scan, "SHARED", shared)
        inputs = scan_inputs(rows, tokens, 8, 5, dtype)
        same_with_gradients(scan.selective_scan, scan.scan_by_definition, inputs, bound)


@pytest.mark.parametrize("channels", [64, 700])
def test_pieces_as_they_are_in_use(channels):
    same_with_gradients(
        scan.selective_scan, scan.scan_by_definition, scan_inputs(3, 130, channels, 16, torch.float64), 1e-12
    )


def test_the_scan_is_an_operation_torch_can_trust():
    """Its schema, its shapes for the compiler and its registered backward, by torch's own checks."""
    inputs = scan_inputs(2, 9, 4, 3, torch.float64)
    torch.library.opcheck(scan._scan, (*inputs, 2, 4, True), test_utils=("test_schema", "test_faketensor"))
    torch.autograd.gradcheck(scan.selective_scan, inputs)


def test_states_are_kept_for_training_only():
    inputs = scan_inputs(1, 9, 4, 3, torch.float32)
    assert scan._scan(*inputs, 1, 4, True)[2].shape == (3, 1, 3, 4)
    with torch.no_grad():
        assert not scan._scan(*inputs, 1, 4, False)[2].numel()


def test_fast_forgetting_neither_overflows_nor_loses_the_newest():
    """Decays that underflow within a few tokens: dividing by products of them, as fast scans like to, would give NaN."""
    for inputs, f, g in (
        (scan_inputs(1, 70, 8, 5, torch.float32), scan.selective_scan, scan.scan_by_definition),
        (ssd_inputs(1, 130, torch.float32), ssd.ssd, ssd.ssd_by_definition),
    ):
        inputs[2].data.mul_(100)
        same_with_gradients(f, g, inputs, 1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 5e-6)], ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 16, 31])
def test_the_dual_equals_its_definition(tokens, dtype, bound, monkeypatch):
    monkeypatch.setattr(ssd, "CHUNK", 8)
    same_with_gradients(ssd.ssd, ssd.ssd_by_definition, ssd_inputs(2, tokens, dtype), bound)


@pytest.mark.parametrize("tokens", [63, 64, 65, 130])
def test_chunks_as_they_are_in_use(tokens):
    same_with_gradients(ssd.ssd, ssd.ssd_by_definition, ssd_inputs(2, tokens, torch.float64), 1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("tokens", "kernel"), [(1, 4), (2, 4), (3, 4), (9, 4), (5, 1), (7, 6)])
def test_the_convolution_equals_torch(tokens, kernel, bias):
    ours = CausalConvolution(6, kernel, bias).double()
    x = torch.randn(2, tokens, 6, dtype=torch.float64, requires_grad=True)
    before = torch.randn(2, kernel - 1, 6, dtype=torch.float64, requires_grad=True)

    def theirs(x, before):
        return (F.conv1d(torch.cat([before, x], 1).mT, ours.weight, ours.bias, groups=6).mT,)

    def mine(x, before):
        return (ours(x, before),)

    torch.testing.assert_close(ours(x), theirs(x, torch.zeros_like(before))[0])
    inputs = [x, before, *ours.parameters()]
    weight = torch.randn(2, tokens, 6, dtype=torch.float64)
    for a, b in zip(
        *(torch.autograd.grad((f(x, before)[0] * weight).sum(), inputs) for f in (mine, theirs)), strict=True
    ):
        torch.testing.assert_close(a, b)
    torch.autograd.gradcheck(lambda *given: mine(*given)[0], (x, before))


@pytest.mark.parametrize("kind", [Mamba, Mamba2])
@pytest.mark.parametrize("sizes", [(1,) * 9, (7, 1, 1, 5, 2), (2, 3, 1), (3, 64, 65)], ids=str)
def test_step_by_step_equals_at_once(kind, sizes):
    check_pieces(made(kind), WIDTH, sizes, 1e-4)


@pytest.mark.parametrize("kind", [Mamba, Mamba2])
def test_padding_changes_nothing(kind):
    """Between the tokens too, and rows shorter than the convolution sees."""
    check_padding(made(kind), WIDTH, (5, 9, 1, 2), 1e-4)


@pytest.mark.parametrize("kind", [Mamba, Mamba2])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_in_later_pieces_changes_nothing(kind, side):
    """The convolution's memory is each row's last real tokens, and an all-padding row keeps what it had."""
    mixer, x = made(kind), torch.randn(3, 12, WIDTH)
    counts = [(4, 3, 1), (2, 0, 5), (5, 1, 0)]
    state, taken, found = State(3, 12), [0, 0, 0], [[], [], []]
    for piece in zip(*counts, strict=True):
        longest = max(piece)
        batch, real = torch.randn(3, longest, WIDTH), torch.zeros(3, longest, dtype=torch.bool)
        for i, n in enumerate(piece):
            place = slice(longest - n, longest) if side == "left" else slice(0, n)
            batch[i, place], real[i, place] = x[i, taken[i] : taken[i] + n], True
            taken[i] += n
        pos = state.advance(longest, real)
        packing = "any" if side == "left" else "right"
        out = mixer(batch, Context(pos, packing=packing, state=state, fresh=state.calls == 1, site="mixer"))
        for i in range(3):
            found[i].append(out[i, real[i]])
    for i, n in enumerate(taken):
        torch.testing.assert_close(torch.cat(found[i]), mixer(x[i : i + 1, :n], whole(n))[0], rtol=1e-4, atol=1e-4)


def test_segments_change_nothing(monkeypatch):
    mixer, x = made(Mamba), torch.randn(2, 23, WIDTH)
    left = padded([[1] * 23, [0] * 9 + [1] * 14])
    expected, behind = mixer(x, whole(23)), mixer(x, left)[left.pos >= 0]
    monkeypatch.setattr(mamba_file, "SEGMENT", 5)
    torch.testing.assert_close(mixer(x, whole(23)), expected, rtol=1e-4, atol=1e-5)
    left = padded([[1] * 23, [0] * 9 + [1] * 14])
    torch.testing.assert_close(mixer(x, left)[left.pos >= 0], behind, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Mamba, Mamba2])
@pytest.mark.parametrize("tokens", [1, 6, 70])
def test_the_hidden_attention_is_what_mixes(kind, tokens, monkeypatch):
    """Pattern times values is y, before the gate; recording changes nothing; nobody looks ahead."""
    monkeypatch.setattr(mamba_file, "SEGMENT", 32)
    mixer, x = made(kind), torch.randn(2, tokens, WIDTH)
    holes = padded([[1] * tokens, [0] + [1] * (tokens - 2) + [0] if tokens > 2 else [1] * tokens])
    for ctx in (whole(tokens), holes):
        with recording() as trace:
            out = mixer(x, ctx)
        assert torch.equal(out, mixer(x, Context(ctx.pos, ctx.packing, site="mixer")))
        record = trace["mixer"]
        pattern = record.weights()
        assert (pattern.shape[1], len(trace)) == (32 if kind is Mamba else 4, 1)
        y = (pattern @ record.v).transpose(1, 2).flatten(2)  # (B, T, I)
        gate = mixer.gate(x)
        again = mixer.out(y * F.silu(gate) if kind is Mamba else mixer.norm(y, gate))
        real = ctx.pos.expand(2, -1) >= 0
        torch.testing.assert_close(again[real], out[real], rtol=1e-4, atol=1e-4)
        assert not any(kept.requires_grad for kept in (record.v, pattern))
        assert ctx is holes or (pattern.triu(1) == 0).all()


@pytest.mark.parametrize("kind", [Mamba, Mamba2])
def test_the_state_does_not_grow(kind):
    sizes = []
    for tokens in (4, 300):
        state = State(2, 400)
        made(kind)(torch.randn(2, tokens, WIDTH), Context(state.advance(tokens, None), state=state, site="m"))
        sizes.append(state.bytes)
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("kind", [Mamba, Mamba2])
def test_states_are_float32_in_half_precision(kind):
    """In bfloat16 a state of a thousand small additions would stop adding up."""
    mixer, x = made(kind), torch.randn(1, 600, WIDTH)
    expected = mixer.bfloat16()(x.bfloat16(), whole(600)).float()
    precise = mixer.float()(x.bfloat16().float(), whole(600))
    assert (expected - precise).abs().max() < 0.05 * precise.abs().max()


def test_what_reads_from_left_to_right_is_no_encoder():
    for kind in (Mamba, Mamba2):
        with pytest.raises(ConfigError, match="left to right"):
            kind(WIDTH, 4, mask=Full())
        kind(WIDTH, 4, 2, 4, mask=Causal(), expand=4, dropout=0.1, q_steps=[], score_bias=None)  # as attention is
    with pytest.raises(ConfigError, match="groups"):
        Mamba2(WIDTH, head_size=8, groups=3)

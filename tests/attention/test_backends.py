"""Every backend computes the definition, forward and backward, over a grid of cases."""

import itertools

import pytest
import torch

from cutaway.attention import Causal, Dense, Full, Prefix, Scores, Window, attend, backend, weights
from cutaway.attention.backends import BACKENDS, choose
from cutaway.errors import ConfigError

MASKS = {"full": Full(), "causal": Causal(), "window": Causal() & Window(3), "prefix": Prefix(2) | Causal()}
SHAPES = [(1, 1), (1, 7), (7, 7), (1, 200), (131, 200), (200, 200)]  # queries, keys; tiles are 128


def scores(q, k, *, mask=Full(), bias=None, softcap=None, padding="none", heads=4, groups=4):
    """Random queries and keys whose first rows are padding where asked; all keys of row 1 for a short row."""
    q_, k_ = torch.randn(2, heads, q, 8, requires_grad=True), torch.randn(2, groups, k, 8, requires_grad=True)
    k_pos = torch.arange(k).repeat(2, 1)
    q_pos = k_pos[:, k - q :].clone()
    if padding == "some":
        k_pos[0, :3] = -1
    if padding == "all":
        k_pos[1] = -1
    bias = None if bias is None else torch.randn(bias).requires_grad_()
    packing = "none" if padding == "none" else "any"
    return Scores(q_, k_, q_pos, k_pos, mask, bias, 0.7, softcap, own=q == k, packing=packing)


@pytest.mark.parametrize(("q", "k"), SHAPES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_backends_agree(q, k, mask, groups):
    for padding, softcap, bias in itertools.product(
        ["none", "some", "all"], [None, 5.0], [None, (1, 4, 1, k), (4, q, k)]
    ):
        case = scores(q, k, mask=MASKS[mask], bias=bias, softcap=softcap, padding=padding, groups=groups)
        v = torch.randn(2, groups, k, 8, requires_grad=True)
        inputs = [x for x in (case.q, case.k, v, case.bias) if x is not None]
        expected = weights(case) @ v.repeat_interleave(4 // groups, 1)
        direction = torch.randn_like(expected)
        gradients = torch.autograd.grad((expected * direction).sum(), inputs)
        for name, candidate in BACKENDS.items():
            if not candidate.supports(case, 0.0):
                continue
            with backend(name):
                found = attend(case, v)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            for a, b in zip(torch.autograd.grad((found * direction).sum(), inputs), gradients, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", BACKENDS)
def test_an_empty_row_is_zero(name):
    """Not NaN, not the mean of v; and its gradient is zero, not NaN."""
    case = scores(5, 5, padding="all")
    v = torch.randn(2, 4, 5, 8, requires_grad=True)
    with backend(name):
        out = attend(case, v)
    assert (out[1] == 0).all()
    assert (out[0] != 0).any()
    for gradient in torch.autograd.grad(out.sum(), [case.q, case.k, v]):
        assert gradient.isfinite().all()
        assert (gradient[1] == 0).all()


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("mask", [Full(), Causal()])
def test_a_bias_can_forbid_a_whole_row(name, queries, mask):
    """-inf in a bias, with a mask or without one, is as good as a mask: zeros, and gradients that are finite."""
    case = scores(queries, 5, mask=mask, bias=(4, queries, 5), groups=2)
    with torch.no_grad():
        case.bias[:, 0, -1, :] = -torch.inf
        case.bias[:, 1, -1, 1:] = -torch.inf
    v = torch.randn(2, 2, 5, 8, requires_grad=True)
    with backend(name):
        out = attend(case, v)
    assert (out[:, 0, -1] == 0).all()
    torch.testing.assert_close(out[:, 1, -1], v[:, 0, 0])  # one key left
    pattern = weights(case)
    assert (pattern[:, 0, -1] == 0).all()
    assert (pattern[:, 2:] > 0).any()
    for gradient in torch.autograd.grad(out.square().sum(), [case.q, case.k, v, case.bias]):
        assert gradient.isfinite().all()


def test_a_nan_in_a_bias_is_seen():
    case = scores(5, 5, bias=(4, 5, 5))
    with torch.no_grad():
        case.bias[0, 0, 0, 0] = torch.nan
    assert weights(case)[:, 0, 0].isnan().any()


@pytest.mark.parametrize("name", BACKENDS)
def test_a_bias_of_a_wrong_shape_is_refused(name):
    v = torch.randn(2, 4, 6, 8)
    for shape in [(5, 5), (3, 1, 1), (2, 3, 6, 6), (7, 1), (1, 1, 1, 6, 6), (2, 4, 6, 12)]:
        with (
            backend(name),
            pytest.raises(ConfigError, match=r"the bias is .*, which does not spread over \(2, 4, 6, 6\)"),
        ):
            attend(scores(6, 6, bias=shape), v)
    with backend(name), pytest.raises((ConfigError, RuntimeError), match=r"size|spread"):
        attend(scores(1, 6, bias=(4, 1, 7)), v)


def test_tiled_refuses_a_second_derivative():
    """It knows the first alone, and autograd would take what that computes for constants."""
    case, v = scores(4, 4), torch.randn(2, 4, 4, 8)
    with backend("tiled"):
        out = attend(case, v)
    for loss in (out.square().sum(), out.sum()):  # of the sum, the gradient that comes in asks for no gradient itself
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(loss, case.q, create_graph=True, retain_graph=True)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_future_does_not_leak(name):
    """However large the forbidden logits are (a finite mask value would be too weak)."""
    case = scores(6, 6, mask=Causal())
    with torch.no_grad():
        case.k[:, :, 5] = 1e4
    v = torch.randn(2, 4, 6, 8)
    with backend(name), torch.no_grad():
        before = attend(case, v)
        v[:, :, 5] = 1e6
        after = attend(case, v)
    assert torch.equal(before[:, :, :5], after[:, :, :5])


def test_weights_equal_a_loop():
    """The definition itself against plain arithmetic, one number at a time."""
    case = scores(3, 4, mask=Causal(), softcap=2.0, bias=(4, 3, 4), groups=2)
    found = weights(case)
    for b, h, i in itertools.product(range(2), range(4), range(3)):
        numbers = []
        for j in range(4):
            x = float(case.q[b, h, i] @ case.k[b, h // 2, j]) * 0.7
            x = 2.0 * torch.tanh(torch.tensor(x / 2.0)).item() + case.bias[0, h, i, j].item()
            numbers.append(torch.tensor(x).exp().item() if case.k_pos[b, j] <= case.q_pos[b, i] else 0.0)
        expected = torch.tensor(numbers) / sum(numbers)
        torch.testing.assert_close(found[b, h, i], expected, rtol=1e-4, atol=1e-6)


def test_half_precision_softmax_is_float32():
    case = scores(4, 4)
    half = Scores(case.q.bfloat16(), case.k.bfloat16(), case.q_pos, case.k_pos, scale=0.7)
    assert weights(half).dtype == torch.float32
    assert attend(half, torch.randn(2, 4, 4, 8).bfloat16()).dtype == torch.bfloat16


def test_a_dense_mask_by_head_and_position():
    table = torch.rand(4, 10, 10) > 0.4
    case = scores(3, 6, mask=Dense(table))
    allowed = weights(case) > 0
    assert torch.equal(allowed, table[:, 3:6, :6].expand(2, -1, -1, -1) & allowed | (table[:, 3:6, :6] & allowed))
    assert not (allowed & ~table[:, 3:6, :6]).any()
    assert (allowed == table[:, 3:6, :6]).all()


def test_tiled_never_holds_the_pattern():
    """Memory is linear in the length: at 4 times the length, what is kept grows about 4 times, not 16."""

    def kept(length: int) -> int:
        case = scores(length, length, mask=Causal(), heads=1, groups=1)
        sizes = []
        with (
            backend("tiled"),
            torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x),
        ):
            attend(case, torch.randn(2, 1, length, 8))
        return sum(sizes)

    assert kept(1024) <= 4.1 * kept(256)


def test_unsupported_and_unknown_are_refused():
    with pytest.raises(ConfigError, match="tiled"), backend("flash"):
        pass
    capped = scores(4, 4, softcap=1.0)
    with backend("sdpa"), pytest.raises(ConfigError, match="soft cap"):
        attend(capped, torch.randn(2, 4, 4, 8))
    assert choose(capped, 0.0) is BACKENDS["eager"]
    with backend("tiled"), pytest.raises(ConfigError, match="dropout"):
        attend(scores(4, 4), torch.randn(2, 4, 4, 8), 0.5)


def test_dropout_is_in_the_pattern():
    """Half of the weights are dropped and the rest doubled; on average nothing changes."""
    case = scores(1, 64)
    v = torch.eye(64)[None, None].expand(2, 4, -1, -1)
    with torch.no_grad():
        expected = attend(case, v)
        mean = torch.stack([attend(case, v, 0.5) for _ in range(2000)]).mean(0)
    assert (mean - expected).abs().max() < 0.08
    assert not torch.allclose(attend(case, v, 0.5), expected)

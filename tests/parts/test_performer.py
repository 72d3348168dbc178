"""FAVOR+: unbiased, as precise as the theory says, and what a reference package computes with the same projection."""

import math

import pytest
import torch
from tests.parts.mixers import whole

from cutaway.attention import Causal, Full
from cutaway.errors import ConfigError
from cutaway.parts import Favor, PerformerAttention
from cutaway.parts.performer import orthogonal

WIDTH = 8


def vectors(count: int = 6) -> tuple[torch.Tensor, ...]:
    """Queries and keys, short enough for the estimate's tails to be light."""
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(1, 1, count, WIDTH, generator=generator, dtype=torch.float64) / 2 for _ in range(2))


def kernels(features: int, draws: int, q: torch.Tensor, k: torch.Tensor, orthogonal: bool) -> torch.Tensor:
    """Estimates of exp(q·k/sqrt(E)), (draws, Q, K): the features of a large map, `features` whole blocks at a time."""
    favor = Favor(WIDTH, features * draws, orthogonal=orthogonal)
    phi = [(favor.logits(y) + math.log(draws) / 2).exp()[0, 0].unflatten(-1, (draws, features)) for y in (q, k)]
    return torch.einsum("qdm,kdm->dqk", *phi)


@pytest.mark.parametrize("kind", [True, False], ids=["orthogonal", "independent"])
def test_the_kernel_is_unbiased(kind):
    """The mean of 5,000 estimates is within 5 standard errors of exp(q·k/sqrt(E)), for all 36 pairs."""
    q, k = vectors()
    drawn = kernels(24, 5000, q, k, kind)
    exact = (q @ k.mT / math.sqrt(WIDTH)).exp()[0, 0]
    off = (drawn.mean(0) - exact).abs() / (drawn.std(0) / math.sqrt(len(drawn)))
    assert off.max() < 5
    assert (drawn.mean(0) / exact - 1).abs().max() < 0.02


def softmax(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (q @ k.mT / math.sqrt(WIDTH)).softmax(-1) @ v


def estimated(favor: Favor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    weights = favor.queries(q) @ favor.keys(k, None)[0].mT
    return weights / weights.sum(-1, keepdim=True) @ v


def test_the_error_falls_as_one_over_the_root_of_the_features():
    """Root mean square over 30 draws, from 32 to 2,048 features: a slope of -1/2, here within 0.1, and a stated bound."""
    q, k = vectors(40)
    v = torch.randn(1, 1, 40, WIDTH, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    exact, errors, counts = softmax(q, k, v), [], [32, 128, 512, 2048]
    for count in counts:
        favor, squares = Favor(WIDTH, count), []
        for _ in range(30):
            favor.redraw()
            squares.append((estimated(favor, q, k, v) - exact).square().mean())
        errors.append(torch.stack(squares).mean().sqrt().item())
    slope = torch.tensor(errors).log().diff().sum() / math.log(counts[-1] / counts[0])
    assert -0.6 < slope < -0.4
    assert errors[-1] < 0.1 * exact.std()


def test_orthogonal_features_are_the_more_precise():
    """Theorem 2 of the paper."""
    q, k = vectors()
    spread = [kernels(WIDTH, 5000, q, k, kind).var(0).mean() for kind in (True, False)]
    assert spread[0] < 0.95 * spread[1]


def test_directions_are_orthogonal_and_uniform():
    """Without R's signs the first number of the first vector of each block would always be negative."""
    count = 2 * WIDTH + 3
    assert orthogonal(count, WIDTH).shape == (count, WIDTH)
    drawn = orthogonal(4000 * WIDTH, WIDTH).unflatten(0, (4000, WIDTH))
    block = drawn[0] / drawn[0].norm(dim=1, keepdim=True)
    torch.testing.assert_close(block @ block.T, torch.eye(WIDTH), atol=1e-5, rtol=0)
    assert drawn.mean(0).abs().max() < 5 / math.sqrt(4000)  # each number is N(0, 1)
    assert (drawn.square().mean(0) - 1).abs().max() < 5 * math.sqrt(2 / 4000)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kernel", ["softmax", "relu"])
def test_equals_the_reference_package(causal, kernel):
    reference = pytest.importorskip("performer_pytorch.performer_pytorch", exc_type=ImportError)
    mixer = PerformerAttention(32, 4, mask=Causal() if causal else Full(), features=20, kernel=kernel).double()
    x = torch.randn(2, 37, 32, dtype=torch.float64) * 2
    q, k, v = (p(x).unflatten(-1, (4, 8)).transpose(1, 2) for p in (mixer.q, mixer.k, mixer.v))
    w = mixer.features.projection
    if kernel == "softmax":  # the package adds 0.0001 to features, which biases the estimate; not here
        given = {"projection_matrix": w, "eps": 0.0}
        phi = reference.softmax_kernel(q, is_query=True, **given), reference.softmax_kernel(k, is_query=False, **given)
    else:
        phi = tuple(reference.generalized_kernel(y, projection_matrix=w) for y in (q, k))
    if causal:
        mixed = reference.causal_linear_attention_noncuda(*phi, v, chunk_size=5, eps=0.0)
    else:
        mixed = reference.linear_attention(*phi, v)
    torch.testing.assert_close(mixer(x, whole(37)), mixer.out(mixed.transpose(1, 2).flatten(2)))


def test_large_vectors_do_not_overflow():
    mixer = PerformerAttention(16, 2, mask=Causal(), features=16)
    x = torch.randn(1, 50, 16) * 100
    assert mixer(x, whole(50)).isfinite().all()


def test_features_are_drawn_anew_in_training_alone():
    mixer = PerformerAttention(16, 2, redraw_every=2)
    x = torch.randn(1, 3, 16)

    def changed() -> bool:
        before = mixer.features.projection.clone()
        mixer(x, whole(3))
        return not torch.equal(before, mixer.features.projection)

    assert [changed() for _ in range(5)] == [False, False, True, False, True]
    mixer.eval()
    assert not any(changed() for _ in range(4))
    before = mixer.features.projection.clone()
    mixer.redraw()
    assert not torch.equal(before, mixer.features.projection)


def test_a_checkpointed_forward_sees_the_same_features():
    from torch.utils.checkpoint import checkpoint

    mixer = PerformerAttention(16, 2, redraw_every=1)
    x = torch.randn(1, 3, 16, requires_grad=True)
    mixer(x, whole(3))
    out = checkpoint(mixer, x, whole(3), use_reentrant=False)
    before = mixer.features.projection.clone()
    out.sum().backward()
    assert torch.equal(before, mixer.features.projection)


def test_the_projection_is_saved_and_not_trained():
    mixer = PerformerAttention(16, 2)
    assert "features.projection" in dict(mixer.named_parameters())
    assert not mixer.features.projection.requires_grad
    assert Favor(64).projection.shape == (round(64 * math.log(64)), 64)
    with pytest.raises(ConfigError, match="kernel"):
        Favor(8, kernel="gauss")

"""Linformer's attention against a reference package with the same weights, and its sharing modes."""

import pytest
import torch
from tests.parts.mixers import check_padding, check_pattern, padded, whole

from cutaway.attention import Causal, Full
from cutaway.errors import CapacityError, ConfigError
from cutaway.parts import ALiBi, Along, LowRankAttention

MODES = ["none", "headwise", "key-value", "layerwise"]


def made(sharing: str = "headwise", **given) -> LowRankAttention:
    shared = Along(40, 6) if sharing == "layerwise" else None
    return LowRankAttention(16, 4, context=40, rank=6, sharing=sharing, shared=shared, **given)


@pytest.mark.parametrize("tokens", [1, 2, 7, 39, 40])
@pytest.mark.parametrize("groups", [4, 1])
@pytest.mark.parametrize("same", [False, True])
def test_equals_the_reference_package(tokens, groups, same):
    package = pytest.importorskip("linformer")
    theirs = package.LinformerSelfAttention(16, 40, k=6, heads=4, one_kv_head=groups == 1).double()
    ours = LowRankAttention(16, 4, groups, context=40, rank=6, sharing="key-value" if same else "headwise").double()
    ours.out.bias = theirs.to_out.bias
    with torch.no_grad():
        if same:
            theirs.proj_v.copy_(theirs.proj_k)
        for a, b in ((ours.q, theirs.to_q), (ours.k, theirs.to_k), (ours.v, theirs.to_v), (ours.out, theirs.to_out)):
            a.weight.copy_(b.weight.mul_(4))
        ours.along_k.weight.copy_(theirs.proj_k)
        ours.along_v.weight.copy_(theirs.proj_v)
    x = torch.randn(2, tokens, 16, dtype=torch.float64, requires_grad=True)
    found, expected = ours(x, whole(tokens)), theirs(x)
    torch.testing.assert_close(found, expected)
    grads = (torch.autograd.grad(y.square().sum(), x)[0] for y in (found, expected))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("sharing", MODES)
def test_padding_changes_nothing(sharing):
    check_padding(made(sharing), 16)


@pytest.mark.parametrize("sharing", MODES)
@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_the_implied_pattern_is_what_mixes(sharing, tokens):
    check_pattern(made(sharing), 16, tokens)
    if sharing != "layerwise":
        check_pattern(LowRankAttention(16, 4, 2, context=40, rank=6, sharing=sharing), 16, tokens)


def test_what_is_shared():
    """Section 4: with L layers of H heads, 2·H·L, 2·L, L matrices, and one."""
    layers = [[made(mode) for _ in range(3)] for mode in MODES[:3]]
    shared = Along(40, 6)
    layers.append([LowRankAttention(16, 4, context=40, rank=6, sharing="layerwise", shared=shared) for _ in range(3)])
    for mixers, matrices in zip(layers, (2 * 4 * 3, 2 * 3, 3, 1), strict=True):
        model = torch.nn.ModuleList(mixers)
        plain = 3 * 4 * 16 * 16
        assert sum(p.numel() for p in model.parameters()) - plain == matrices * 40 * 6


def test_no_text_longer_than_its_projection():
    with pytest.raises(CapacityError, match="40 positions"):
        made()(torch.randn(1, 41, 16), whole(41))
    made()(torch.randn(1, 45, 16), padded([[0] * 10 + [1] * 35]))


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="past alone"):
        made(mask=Causal())
    with pytest.raises(ConfigError, match="ALiBi"):
        made(score_bias=ALiBi(4))
    with pytest.raises(ConfigError, match="sharing"):
        LowRankAttention(16, 4, sharing="layerwise")
    with pytest.raises(ConfigError, match="sharing"):
        LowRankAttention(16, 4, sharing="sideways", mask=Full())

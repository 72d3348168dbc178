"""The Synthesizer's equations are held in tests/families; here its parameter counts, cache, padding, patterns, refusals."""

import math

import pytest
import torch
from tests.parts.mixers import check_padding, check_pattern, check_pieces, whole

from cutaway.attention import Causal, Full
from cutaway.errors import CapacityError, ConfigError
from cutaway.parts import Synthesizer, T5Bias

KINDS = ["dense", "factorised-dense", "random", "factorised-random", "dot"]
SETS = [(kind,) for kind in KINDS] + [("random", "dot"), tuple(KINDS)]


@pytest.mark.parametrize(("kind", "expected"), [
    ("dot", lambda d, h, n: 2 * d * d),
    ("dense", lambda d, h, n: d * d + d * n),
    ("factorised-dense", lambda d, h, n: d * d + d * 2 * math.isqrt(n)),
    ("random", lambda d, h, n: h * n * n),
    ("factorised-random", lambda d, h, n: h * 2 * n * 8),
])  # fmt: skip
def test_parameters_are_those_of_table_1(kind, expected):
    """Besides the values' and the output's, for width d, h heads and n = 64 tokens, a square."""
    mixer = Synthesizer(32, 4, kinds=[kind], context=64)
    assert sum(p.numel() for p in mixer.parameters()) == expected(32, 4, 64) + 2 * 32 * 32


@pytest.mark.parametrize("kinds", SETS, ids=str)
@pytest.mark.parametrize("mask", [Causal(), Full()], ids=["causal", "full"])
def test_padding_changes_nothing(kinds, mask):
    check_padding(Synthesizer(16, 4, kinds=kinds, context=20, mask=mask, bias=True), 16)


@pytest.mark.parametrize("kinds", SETS, ids=str)
@pytest.mark.parametrize("sizes", [(1,) * 9, (7, 1, 1, 5), (2, 9, 3), (13, 1)], ids=str)
def test_pieces_equal_the_whole(kinds, sizes):
    bias = T5Bias(4, False)
    check_pieces(Synthesizer(16, 4, kinds=kinds, context=20, mask=Causal(), score_bias=bias), 16, sizes)


@pytest.mark.parametrize("kinds", SETS, ids=str)
@pytest.mark.parametrize("tokens", [1, 5, 19])
def test_the_pattern_is_what_mixes(kinds, tokens):
    pattern = check_pattern(Synthesizer(16, 4, kinds=kinds, context=20, mask=Causal()), 16, tokens)
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))


def test_random_logits_see_no_text_and_may_be_fixed():
    mixer = Synthesizer(16, 4, kinds=["random"], context=20, fixed=True)
    patterns = [check_pattern(mixer, 16, 9)[0] for _ in range(2)]
    torch.testing.assert_close(*patterns)
    assert [n for n, p in mixer.named_parameters() if not p.requires_grad] == ["made.random.weight"]


def test_dense_logits_do_not_see_other_tokens():
    mixer = Synthesizer(16, 4, kinds=["dense"], context=20)
    part, x = mixer.made["dense"], torch.randn(1, 5, 16)
    before = part(x, torch.arange(5)[None], torch.arange(5)[None])
    x[0, 2] += 1
    changed = (part(x, torch.arange(5)[None], torch.arange(5)[None]) != before).any(-1)[0].any(0)
    assert changed.tolist() == [False, False, True, False, False]


def test_shares_of_a_mixture_begin_equal_and_sum_to_one():
    mixer = Synthesizer(16, 4, kinds=KINDS, context=20)
    torch.testing.assert_close(mixer.mixture.softmax(0), torch.full((5,), 0.2))


def test_what_it_cannot_do_is_refused():
    with pytest.raises(CapacityError, match="20 positions"):
        Synthesizer(16, 4, context=20)(torch.randn(1, 21, 16), whole(21))
    with pytest.raises(ConfigError, match="each once"):
        Synthesizer(16, 4, kinds=["dense", "dense"])
    with pytest.raises(ConfigError, match="factorised-dense"):
        Synthesizer(16, 4, kinds=["thick"])
    with pytest.raises(ConfigError, match="kv_heads"):
        Synthesizer(16, 4, 2)

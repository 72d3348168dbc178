"""Sampling: filters against transformers' own, draws against the exact distribution, and every bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as oracle

from cutaway.errors import CutawayError
from cutaway.generation.filters import draw, keep_min_p, keep_top_k, keep_top_p
from cutaway.generation.sampling import probabilities, sample

INF = math.inf


def reference(logits, previous=None, temperature=1.0, top_k=None, top_p=None, min_p=None, repetition_penalty=1.0):
    """The distribution by transformers' processors, in the order its `generate` lines them up."""
    steps = []
    if repetition_penalty != 1.0:
        steps.append(oracle.RepetitionPenaltyLogitsProcessor(repetition_penalty))
    if temperature != 1.0:
        steps.append(oracle.TemperatureLogitsWarper(temperature))
    if top_k is not None:
        steps.append(oracle.TopKLogitsWarper(top_k))
    if top_p is not None:
        steps.append(oracle.TopPLogitsWarper(top_p))
    if min_p is not None:
        steps.append(oracle.MinPLogitsWarper(min_p))
    return oracle.LogitsProcessorList(steps)(previous, logits.clone()).softmax(-1)


SETTINGS = [
    {},
    {"temperature": 0.7},
    {"temperature": 3.0},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 1000},
    {"top_p": 0.9},
    {"top_p": 0.05},
    {"top_p": 0.999},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"min_p": 0.0},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.6},
    {"temperature": 1.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.2},
    {"temperature": 0.4, "top_p": 0.95, "repetition_penalty": 1.1},
    {"temperature": 1.5, "top_k": 7, "min_p": 0.3},
]


@pytest.mark.parametrize("chosen", SETTINGS, ids=str)
@pytest.mark.parametrize("vocab", [2, 37, 5000])
def test_distribution_equals_transformers(chosen, vocab):
    torch.manual_seed(vocab)
    logits = 4 * torch.randn(6, vocab)
    previous = torch.randint(vocab, (6, 9))
    ours = probabilities(logits, previous=previous, **chosen)
    theirs = reference(logits, previous, **chosen)
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours.sum(-1), torch.ones(6))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    vocab=st.integers(1, 40),
    temperature=st.floats(0.05, 20),
    top_k=st.none() | st.integers(1, 50),
    top_p=st.none() | st.floats(0.01, 0.99),
    min_p=st.none() | st.floats(0, 1),
)
def test_any_combination_equals_transformers(seed, vocab, temperature, top_k, top_p, min_p):
    torch.manual_seed(seed)
    logits = torch.randn(2, vocab, dtype=torch.float64) * 3  # float64: the two sum in another order
    chosen = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    theirs = reference(logits, **chosen)
    torch.testing.assert_close(probabilities(logits, **chosen), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chosen", [c for c in SETTINGS if "repetition_penalty" not in c], ids=str)
def test_draws_follow_the_exact_distribution(chosen):
    """Total variation between 40,000 draws and the exact distribution of 24 tokens.

    Its mean is at most sqrt(24 / 40,000) / 2 = 0.0122, and it exceeds the mean by 0.01 with probability below
    exp(-2 * 40,000 * 0.01^2) = 3e-4 (McDiarmid); the seed makes it one fixed outcome.
    """
    draws, vocab = 40_000, 24
    logits = 2 * torch.randn(1, vocab, generator=torch.Generator().manual_seed(5))
    exact = probabilities(logits, **chosen)[0]
    ids = sample(logits.expand(draws, -1), generator=torch.Generator().manual_seed(6), **chosen)
    seen = torch.bincount(ids, minlength=vocab) / draws
    assert not seen[exact == 0].any()
    assert (seen - exact).abs().sum() / 2 < 0.0222


def test_draws_follow_the_exact_distribution_with_a_penalty():
    logits = torch.tensor([[1.0, -1.0, 2.0, 0.5]])
    previous = torch.tensor([[2, 1, -1]])
    exact = torch.tensor([1.0, -2.0, 1.0, 0.5]).softmax(-1)
    torch.testing.assert_close(probabilities(logits, repetition_penalty=2.0, previous=previous)[0], exact)
    many = (logits.expand(40_000, -1), 1.0, None, None, None, 2.0, previous.expand(40_000, -1))
    ids = sample(*many, generator=torch.Generator().manual_seed(1))
    assert (torch.bincount(ids, minlength=4) / 40_000 - exact).abs().sum() / 2 < 0.0222


def test_top_p_keeps_the_token_that_crosses():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for p, kept in [(0.0, 1), (0.3, 1), (0.6, 2), (0.81, 3), (0.94, 3), (0.96, 4), (1.0, 4)]:
        assert int((probabilities(logits, top_p=p) > 0).sum()) == kept, p


def test_top_p_of_one_keeps_even_the_least_likely():
    logits = torch.tensor([[0.0, -60.0, -90.0]])
    assert keep_top_p(logits, 1.0).isfinite().all()


def test_top_p_of_equals_keeps_the_lower_ids_and_as_many_as_transformers():
    logits = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0, 1.0]])
    for p in (0.1, 0.3, 0.5, 0.7, 0.95):
        kept = keep_top_p(logits, p).isfinite()[0]
        assert kept.sum() == (reference(logits, top_p=p)[0] > 0).sum()
        order = torch.tensor([1, 2, 4, 5, 0, 3])
        assert kept[order].tolist() == sorted(kept.tolist(), reverse=True)


def test_top_p_looks_further_when_the_first_glance_is_not_enough():
    """A flat row needs far more tokens than a peaked one beside it, and neither changes the other."""
    torch.manual_seed(0)
    logits = torch.randn(2, 5000) * torch.tensor([[0.01], [8.0]])
    both = probabilities(logits, top_p=0.9)
    assert (both[0] > 0).sum() > 4000 > 50 > (both[1] > 0).sum()
    for row in range(2):
        assert torch.equal(both[row : row + 1], probabilities(logits[row : row + 1], top_p=0.9))


def test_top_k_keeps_exactly_k_and_ties_with_the_kth():
    distinct = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    for k in (1, 2, 49, 50, 51):
        assert (keep_top_k(distinct, k).isfinite().sum(-1) == min(k, 50)).all()
    tied = keep_top_k(torch.tensor([[3.0, 1.0, 1.0, 0.0]]), 2)
    assert tied.isfinite().tolist() == [[True, True, True, False]]


def test_min_p_is_relative_to_the_most_likely():
    logits = torch.tensor([[0.4, 0.3, 0.21, 0.09]]).log()
    assert keep_min_p(logits, 0.5).isfinite().tolist() == [[True, True, True, False]]
    assert keep_min_p(logits + 7, 0.7).isfinite().tolist() == [[True, True, False, False]]


def test_temperature_zero_is_the_first_of_the_best():
    logits = torch.tensor([[1.0, 5.0, 5.0, 2.0], [-INF, -3.0, -4.0, -3.0]])
    assert sample(logits, temperature=0, top_p=0.5).tolist() == [1, 1]
    assert probabilities(logits, temperature=0).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-300])
def test_tiny_temperatures_do_not_overflow(temperature):
    logits = torch.tensor([[80.0, 90.0, -INF, 89.0], [-70.0, -60.0, -61.0, -60.0]])
    expected = torch.tensor([[0, 1.0, 0, 0], [0, 0.5, 0, 0.5]])
    assert torch.equal(probabilities(logits, temperature), expected)


def test_huge_temperature_is_uniform_over_what_is_allowed():
    exact = probabilities(torch.tensor([[5.0, -INF, -5.0]]), 1e9)
    torch.testing.assert_close(exact, torch.tensor([[0.5, 0.0, 0.5]]))


def test_ruled_out_tokens_are_never_drawn():
    logits = torch.full((5000, 6), -INF)
    logits[:, 2] = 0.0
    logits[:, 4] = 1.0
    ids = sample(logits, top_k=4, top_p=0.99, min_p=0.01, generator=torch.Generator().manual_seed(0))
    assert set(ids.tolist()) == {2, 4}


def test_draw_at_the_ends_of_the_unit_interval():
    exact = torch.tensor([[0.0, 0.25, 0.5, 0.25, 0.0]])
    ends = torch.tensor([0.0, 0.25, 0.75, 1 - 2.0**-53], dtype=torch.float64)
    assert draw(exact.expand(4, -1), ends).tolist() == [1, 2, 3, 3]
    assert draw(exact, torch.ones(1, dtype=torch.float64)).tolist() == [3]


def test_the_penalty_passes_over_padding():
    logits = torch.tensor([[2.0, 2.0, -2.0, 2.0]])
    padded = probabilities(logits, repetition_penalty=1.5, previous=torch.tensor([[-1, -1, 2, 3]]))
    alone = probabilities(logits, repetition_penalty=1.5, previous=torch.tensor([[2, 3]]))
    assert torch.equal(padded, alone)
    assert torch.equal(padded[0], torch.tensor([2.0, 2.0, -3.0, 2.0 / 1.5]).softmax(-1))


def test_the_penalty_counts_a_token_once_however_often_it_came():
    logits = torch.tensor([[1.0, 2.0]])
    once = probabilities(logits, repetition_penalty=2.0, previous=torch.tensor([[1]]))
    thrice = probabilities(logits, repetition_penalty=2.0, previous=torch.tensor([[1, 1, 1]]))
    assert torch.equal(once, thrice)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(dtype):
    logits = torch.randn(3, 100, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact = probabilities(logits, 0.7, top_p=0.9)
    torch.testing.assert_close(exact, reference(logits.to(exact.dtype), temperature=0.7, top_p=0.9))


def test_a_generator_a_row_gives_each_row_what_it_gets_alone():
    logits = torch.randn(4, 300, generator=torch.Generator().manual_seed(0))
    together = sample(logits, generator=[torch.Generator().manual_seed(i) for i in range(4)])
    alone = [int(sample(logits[i : i + 1], generator=torch.Generator().manual_seed(i))) for i in range(4)]
    assert together.tolist() == alone


def test_same_seed_same_tokens_and_logits_are_left_alone():
    logits = torch.randn(4, 300, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    previous = torch.tensor([[1], [2], [3], [-1]])
    chosen = (logits, 0.9, 40, 0.9, 0.01, 1.2, previous)
    first, again = (sample(*chosen, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("temperature", v) for v in (-0.1, math.nan, INF, "warm", None, True)],
        *[("top_k", v) for v in (0, -1, 2.5, "3", True)],
        *[("top_p", v) for v in (-0.1, 1.1, math.nan, "x")],
        *[("min_p", v) for v in (-0.1, 1.1, math.nan)],
        *[("repetition_penalty", v) for v in (0, -1.0, math.nan, INF, None)],
    ],
)
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(CutawayError, match=rf"^{name} must be .*, not "):
        sample(torch.zeros(1, 4), **{name: value})


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize(
    ("row", "words"), [([-INF] * 3, "nothing but -inf"), ([0, math.nan, 1], "NaN"), ([0, INF, 1], r"\+inf")]
)
def test_logits_that_are_no_distribution(row, words, temperature):
    logits = torch.tensor([[0.0, 1.0, 2.0], row])
    for function in (sample, probabilities):
        with pytest.raises(CutawayError, match=f"row 1 has {words}"):
            function(logits, temperature)


def test_wrong_shapes():
    with pytest.raises(CutawayError, match=r"logits: must be \(B, V\)"):
        sample(torch.zeros(4))
    with pytest.raises(CutawayError, match=r"previous: must be \(B, T\) with B = 2"):
        sample(torch.zeros(2, 4), previous=torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(CutawayError, match="token 4 is outside the vocabulary of 4"):
        sample(torch.zeros(1, 4), previous=torch.tensor([[4]]))
    with pytest.raises(CutawayError, match="3 generators for 2 rows"):
        sample(torch.zeros(2, 4), generator=[torch.Generator()] * 3)

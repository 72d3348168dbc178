"""What must or must not be said: as the reference, searched, greedy and sampled; as published, and only then."""

import pytest
import torch
from tests.generation.models import pair, prompts
from tests.generation.test_beam import check, frequent
from tests.generation.test_decode import theirs
from transformers import NoRepeatNGramLogitsProcessor

from cutaway.api import Loaded
from cutaway.errors import CutawayError
from cutaway.generation import Constraints, generate, stream
from cutaway.generation.constraints import repeats

NAMES = ["bart", "mbart", "marian", "pegasus", "t5", "llama"]
# ours, and what the reference calls them
SETTINGS = [
    ({"forced_eos": 95}, {"forced_eos_token_id": 95}),
    ({"no_repeat_ngram": 1}, {"no_repeat_ngram_size": 1}),
    ({"no_repeat_ngram": 3}, {"no_repeat_ngram_size": 3}),
    ({"min_new_tokens": 6}, {"min_new_tokens": 6}),
]


def both(name, said, ends):
    """Settings of ours and theirs; what is forbidden is what the model says when free, end tokens aside."""
    usual = sorted({token for row in said for token in row[:4]} - set(ends))  # the reference lets end tokens through
    assert usual
    yield {"suppress": tuple(usual)}, {"bad_words_ids": [[token] for token in usual]}
    yield from SETTINGS
    if name != "llama":  # where the reference forces the first of all tokens, not the first new one
        first = {"forced_bos": 94, "forced_eos": 95, "no_repeat_ngram": 2}
        yield first, {"forced_bos_token_id": 94, "forced_eos_token_id": 95, "no_repeat_ngram_size": 2}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("length_penalty", "early_stopping"), [(1.0, False), (2.0, True), (0.5, "never")])
def test_beam_search_equals_transformers(name, length_penalty, early_stopping):
    rows = prompts(40, (7, 3))
    eos = frequent(name, rows, 2)
    settings = {"beams": 4, "num_return": 2, "max_new_tokens": 10, "length_penalty": length_penalty}
    settings["early_stopping"] = early_stopping
    free = check(name, rows, eos, **settings).ids
    for mine, named in both(name, free, eos):
        if "no_repeat_ngram" in mine and name == "llama":
            continue  # the reference counts the padding of a prompt, too
        found = check(name, rows, eos, **settings, mine={"constraints": Constraints(**mine)}, named=named)
        if "suppress" in mine or "forced_bos" in mine:
            assert found.ids != free


@pytest.mark.parametrize("name", NAMES)
def test_greedy_equals_transformers(name):
    reference, ours = pair(name)
    for row in prompts(41, (7, 3)):
        free = generate(ours, row, max_new_tokens=8).ids
        ends = [free[0][2]]
        for mine, named in both(name, free, ends):
            found = generate(ours, row, max_new_tokens=10, eos=ends, constraints=Constraints(**mine))
            assert found.ids == theirs(reference, [row], max_new_tokens=10, eos_token_id=ends, **named)
            plain = generate(ours, row, max_new_tokens=10, eos=ends, constraints=Constraints(**mine), cache=False)
            assert plain.ids == found.ids


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 40])
def test_repeats_equal_the_reference(n, length):
    said = torch.randint(0, 4, (5, length), generator=torch.Generator().manual_seed(n))
    expected = NoRepeatNGramLogitsProcessor(n)(said, torch.zeros(5, 6)).isinf()
    assert torch.equal(repeats(said, n, 6), expected)
    padded = torch.cat([torch.full((5, 3), -1), said], 1)
    assert torch.equal(repeats(padded, n, 6), expected)


def test_rows_of_a_batch_and_samples_are_constrained_alone():
    _, ours = pair("marian")
    rows = prompts(42)
    rules = Constraints(forced_bos=7, no_repeat_ngram=1, suppress=(5,))
    settings = {"constraints": rules, "temperature": 1.5, "max_new_tokens": 12, "eos": [9], "seed": 3}
    together = generate(ours, rows, **settings, num_return=2)
    assert together.ids == [ids for row in rows for ids in generate(ours, row, **settings, num_return=2).ids]
    for ids in together.ids:
        assert ids[0] == 7
        assert 5 not in ids
        assert len(set(ids)) == len(ids)
    assert list(stream(ours, rows[0], **{**settings, "seed": 3})) == together.ids[0]


def test_what_is_published_is_the_default():
    _, ours = pair("mbart")
    published = {"forced_bos_token_id": 94, "forced_eos_token_id": [95], "bad_words_ids": [[5], [6, 7]], "num_beams": 4}
    loaded = Loaded(ours, None, "bart", None, "x", published)
    assert Constraints.published(published) == Constraints(94, 95, (5,))
    found = generate(loaded, [5, 6], max_new_tokens=6).ids[0]
    assert found[0] == 94
    assert found[-1] == 95
    assert generate(loaded, [5, 6], max_new_tokens=6, constraints=Constraints()).ids[0][0] != 94
    begun = generate(loaded, [5, 6], target=[8], max_new_tokens=6).ids[0]
    assert begun[0] != 94  # the target has begun already
    assert begun[-1] == 95


@pytest.mark.parametrize(
    "wrong", [{"no_repeat_ngram": 0}, {"min_new_tokens": -1}, {"forced_bos": 99}, {"suppress": (1.5,)}]
)
def test_out_of_range(wrong):
    with pytest.raises(CutawayError, match=next(iter(wrong))):
        generate(pair("marian")[1], [5], max_new_tokens=2, constraints=Constraints(**wrong))

"""Beam search gives the reference's sequences and scores, for decoders and encoder-decoders."""

import itertools
import warnings

import pytest
import torch
from tests.generation.models import pair, prompts
from tests.generation.test_decode import padded

from cutaway.generation import generate

PAD = 98  # not 0, which the reference takes for "none given"


def theirs(model, rows, **settings):
    ids, padding = padded(rows, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = model.generate(
            ids,
            attention_mask=padding.long(),
            pad_token_id=PAD,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )
    start = 1 if model.config.is_encoder_decoder else ids.shape[1]
    return out.sequences[:, start:].tolist(), out.sequences_scores


def check(name, rows, ends, *, mine=None, named=None, **settings):
    """Ids and scores; the reference pads what ended early, so only what we give is compared, and the rest is padding."""
    reference, ours = pair(name)
    translated = {**settings, "num_beams": settings["beams"], "num_return_sequences": settings["num_return"]}
    del translated["beams"], translated["num_return"]
    expected, scores = theirs(reference, rows, eos_token_id=list(ends) or None, **translated, **(named or {}))
    found = generate(ours, rows, eos=ends, **settings, **(mine or {}))
    for mine, full in zip(found.ids, expected, strict=True):
        assert full[: len(mine)] == mine
        assert set(full[len(mine) :]) <= {PAD}
    torch.testing.assert_close(torch.tensor(found.scores), scores, rtol=1e-4, atol=1e-4)
    return found


def frequent(name, rows, n):
    """End tokens that beams really meet: the most usual of the first steps."""
    _, ours = pair(name)
    said = generate(ours, rows, beams=4, num_return=4, max_new_tokens=8).ids
    tokens = [token for row in said for token in row[1:]]
    return sorted(set(tokens), key=tokens.count)[-n:]


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -1.0])
@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "marian"])
def test_equals_transformers(name, length_penalty, early_stopping):
    rows = prompts(20)
    met = set()
    for ends, beams, num_return in [(0, 3, 1), (1, 4, 4), (2, 3, 2), (5, 2, 2)]:
        settings = {"beams": beams, "num_return": num_return, "max_new_tokens": 12}
        eos = frequent(name, rows, ends) if ends else []
        found = check(name, rows, eos, length_penalty=length_penalty, early_stopping=early_stopping, **settings)
        met |= set(found.finish)
    assert met == {"eos", "length"}


@pytest.mark.parametrize("name", ["mistral", "flan", "bart", "mbart", "pegasus"])
def test_windows_and_other_variants(name):
    rows = prompts(21)
    check(name, rows, frequent(name, rows, 2), beams=3, num_return=3, max_new_tokens=10)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_repetition_penalty(name):
    for row in prompts(22):  # alone: in a batch the reference penalises its padding token
        found = check(name, [row], [], beams=3, num_return=3, max_new_tokens=10, repetition_penalty=1.4)
        assert found.ids != generate(pair(name)[1], row, beams=3, num_return=3, max_new_tokens=10).ids


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "t5", "mbart", "marian"])
def test_a_batch_equals_its_rows_and_cached_equals_uncached(name):
    _, ours = pair(name)
    rows = prompts(23)
    settings = {"beams": 3, "num_return": 2, "max_new_tokens": 10, "eos": frequent(name, rows, 2)}
    together = generate(ours, rows, **settings)
    alone = [generate(ours, row, **settings) for row in rows]
    plain = generate(ours, rows, cache=False, **settings)
    assert together.ids == plain.ids == [ids for one in alone for ids in one.ids]
    torch.testing.assert_close(together.scores, [score for one in alone for score in one.scores], rtol=1e-4, atol=1e-4)


def test_as_many_beams_as_there_are_sequences_find_the_best():
    """With V^2 beams nothing is pruned: the search is exhaustive over sequences of three."""
    _, ours = pair("gpt2")
    vocab, prompt = 5, [3, 4, 1]
    small = Narrow(ours, vocab)
    with torch.no_grad():
        scores = {}
        for said in itertools.product(range(vocab), repeat=3):
            logits = small(torch.tensor([[*prompt, *said]]))[0, 2:5].log_softmax(-1)
            scores[said] = float(sum(logits[t, token] for t, token in enumerate(said)))
    best = sorted(scores, key=scores.get, reverse=True)[:6]
    found = generate(small, prompt, beams=25, num_return=6, max_new_tokens=3, length_penalty=0.0)
    assert [tuple(ids) for ids in found.ids] == best
    torch.testing.assert_close(torch.tensor(found.scores), torch.tensor([scores[ids] for ids in best]))


class Narrow(torch.nn.Module):
    """A model of whose vocabulary only the first tokens exist."""

    causal, max_positions = True, None

    def __init__(self, model, vocab):
        super().__init__()
        self.model, self.vocab = model, vocab

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)[..., : self.vocab]

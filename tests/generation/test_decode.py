"""The decoding loop: against the reference's `generate`, cached against uncached, rows together against alone."""

import warnings

import numpy as np
import pytest
import torch
from tests.generation.models import Letters, Scripted, pair, prompts

from cutaway.api import Loaded, build
from cutaway.errors import CapacityError, CutawayError
from cutaway.generation import generate, probabilities, stream
from cutaway.parts import Model

NAMES = [
    "llama", "mistral", "gpt2", "t5", "flan", "mamba", "mamba2", "gptneox", "mpt", "bloom", "qwen2", "qwen3", "gemma2",
    "bart", "mbart", "marian", "pegasus",
]  # fmt: skip


def left_padded(rows):
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    return ids, torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])


def padded(rows, model):
    """As the reference must be given them: prompts of decoders end together; encoders may count columns, as BART's."""
    if not model.config.is_encoder_decoder:
        return left_padded(rows)
    ids, padding = left_padded([row[::-1] for row in rows])
    return ids.flip(1), padding.flip(1)


def theirs(model, rows, **settings):
    """The reference's new tokens, each row up to its end token."""
    ids, padding = padded(rows, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = model.generate(
            ids,
            attention_mask=padding.long(),
            pad_token_id=0,
            **{"do_sample": False, "eos_token_id": None, "max_new_tokens": 20, **settings},
        )
    new = out[:, 1:] if model.config.is_encoder_decoder else out[:, ids.shape[1] :]
    ends = settings.get("eos_token_id") or []
    return [row[: next((i + 1 for i, x in enumerate(row) if x in ends), len(row))] for row in new.tolist()]


@pytest.mark.parametrize("name", NAMES)
def test_greedy_equals_transformers_row_by_row_and_batched(name):
    reference, ours = pair(name)
    rows = prompts()
    expected = theirs(reference, rows)
    assert expected == [theirs(reference, [row])[0] for row in rows]  # else it is no oracle for batches
    assert generate(ours, rows, max_new_tokens=20).ids == expected
    assert len({tuple(row) for row in expected}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_end_tokens_equal_transformers(name):
    reference, ours = pair(name)
    rows = prompts(1)
    free = theirs(reference, rows)
    ends = [free[0][5], free[1][9]]
    expected = theirs(reference, rows, eos_token_id=ends)
    found = generate(ours, rows, max_new_tokens=20, eos=ends)
    assert found.ids == expected
    assert found.finish == ["eos" if row[-1] in ends else "length" for row in expected]
    assert "eos" in found.finish


@pytest.mark.parametrize("penalty", [1.3, 2.0, 0.8])
@pytest.mark.parametrize("name", NAMES)
def test_repetition_penalty_equals_transformers(name, penalty):
    """Row by row: in a batch the reference penalises its padding token too."""
    reference, ours = pair(name)
    rows = prompts(2)
    expected = [theirs(reference, [row], repetition_penalty=penalty)[0] for row in rows]
    assert generate(ours, rows, max_new_tokens=20, repetition_penalty=penalty).ids == expected
    assert expected != theirs(reference, rows)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.3, "top_p": 0.9, "seed": 3}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", NAMES)
def test_cached_equals_uncached(name, settings):
    _, ours = pair(name)
    rows = prompts(3)
    cached = generate(ours, rows, max_new_tokens=24, repetition_penalty=1.2, **settings)
    plain = generate(ours, rows, max_new_tokens=24, repetition_penalty=1.2, cache=False, **settings)
    assert cached.ids == plain.ids


@pytest.mark.parametrize("name", NAMES)
def test_any_form_of_prompt_gives_what_each_row_gives_alone(name):
    _, ours = pair(name)
    rows = prompts(4)
    settings = {"max_new_tokens": 16, "temperature": 1.0, "top_k": 30, "seed": 11}
    alone = [generate(ours, row, **settings).ids[0] for row in rows]
    assert generate(ours, rows, **settings).ids == alone
    left, left_padding = left_padded(rows)
    right = torch.tensor([row + [0] * (11 - len(row)) for row in rows])
    right_padding = torch.arange(11) < torch.tensor([[len(row)] for row in rows])
    assert generate(ours, left, padding=left_padding, **settings).ids == alone
    assert generate(ours, right, padding=right_padding, **settings).ids == alone
    assert generate(ours, torch.tensor(rows[0]), **settings).ids == alone[:1]
    assert generate(ours, [torch.tensor(row) for row in rows], **settings).ids == alone


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_end_early_do_not_disturb_the_others(name):
    _, ours = pair(name)
    rows = prompts(5, (5, 5, 2, 9, 4, 6))
    free = generate(ours, rows, max_new_tokens=20, temperature=1.0, seed=1, repetition_penalty=1.1)
    ends = {row[i] for row, i in zip(free.ids, (2, 19, 7, 7, 12, 3), strict=True)}
    ended = generate(ours, rows, max_new_tokens=20, temperature=1.0, seed=1, repetition_penalty=1.1, eos=ends)
    for whole, part, finish in zip(free.ids, ended.ids, ended.finish, strict=True):
        assert part == whole[: len(part)]
        first = next((i for i, token in enumerate(whole) if token in ends), None)
        assert finish == ("length" if first is None else "eos")
        assert len(part) == (20 if first is None else first + 1)
    assert len({len(row) for row in ended.ids}) > 2


def test_seeds():
    _, ours = pair("llama")
    row = prompts()[0]
    settings = {"temperature": 2.0, "max_new_tokens": 12}
    first = generate(ours, row, seed=5, **settings)
    assert generate(ours, row, seed=5, **settings).ids == first.ids
    assert generate(ours, row, seed=6, **settings).ids != first.ids
    assert generate(ours, row, seed=5, temperature=2.0, max_new_tokens=7).ids[0] == first.ids[0][:7]
    several = generate(ours, [row, row[:2]], seed=[5, 9], num_return=3, **settings)
    assert several.ids[:3] == [generate(ours, row, seed=5 + j, **settings).ids[0] for j in range(3)]
    assert several.ids[4] == generate(ours, row[:2], seed=10, **settings).ids[0]
    torch.manual_seed(1)
    unseeded = generate(ours, row, **settings).ids
    assert unseeded != generate(ours, row, **settings).ids
    torch.manual_seed(1)
    assert unseeded == generate(ours, row, **settings).ids


def test_sampled_tokens_follow_the_models_distribution():
    """Total variation of 6,000 first tokens over the 5 that top-k leaves.

    Its mean is at most sqrt(5 / 6,000) / 2 = 0.0145; 0.02 more has probability below exp(-2 * 6,000 * 0.02^2) = 0.9%.
    """
    _, ours = pair("gpt2")
    row = prompts()[0]
    exact = probabilities(ours(torch.tensor([row]))[:, -1], 1.5, top_k=5)[0].detach()
    found = generate(ours, row, max_new_tokens=1, temperature=1.5, top_k=5, num_return=6000, seed=0)
    counts = torch.bincount(torch.tensor(found.ids)[:, 0], minlength=len(exact)) / 6000
    assert (counts - exact).abs().sum() / 2 < 0.0345
    assert (exact > 0.02).sum() >= 3


def test_an_encoder_decoders_target_begins_as_told():
    reference, ours = pair("t5")
    rows = prompts(6)
    begun = [[0, 44, 17]] * len(rows)
    expected = theirs(reference, rows, decoder_input_ids=torch.tensor(begun))
    expected = [row[2:] for row in expected]  # the reference repeats what it was given
    assert generate(ours, rows, target=[44, 17], max_new_tokens=20).ids == expected
    assert generate(ours, rows, target=begun, max_new_tokens=20).ids == expected


def test_stream_gives_the_same_tokens_one_by_one():
    _, ours = pair("llama")
    row = prompts()[0]
    whole = generate(ours, row, max_new_tokens=15, temperature=1.0, seed=2)
    running = stream(ours, row, max_new_tokens=15, temperature=1.0, seed=2)
    assert next(running) == whole.ids[0][0]
    assert not torch.is_inference_mode_enabled()  # the caller's mode is the caller's
    assert running.result.ids == [whole.ids[0][:1]]
    assert running.result.finish == [None]
    assert list(running) == whole.ids[0][1:]
    assert running.result.ids == whole.ids
    assert running.result.finish == ["length"]
    assert running.result.tokens_per_second > 0


def test_gradients_and_training_mode_come_back():
    _, ours = pair("gpt2")
    ours.train()
    ours.stack.blocks[1].eval()
    try:
        modes = [module.training for module in ours.modules()]
        kept = generate(ours, [5, 6], max_new_tokens=5).ids
        assert [module.training for module in ours.modules()] == modes
        half = stream(ours, [5, 6], max_new_tokens=5)
        next(half)
        del half
        assert [module.training for module in ours.modules()] == modes
    finally:
        ours.eval()
    assert generate(ours, [5, 6], max_new_tokens=5).ids == kept
    assert ours(torch.tensor([[5, 6]])).requires_grad


def test_the_prompt_is_fed_once_and_then_one_token_a_step():
    model = Scripted({9: [3, 4, 2], 8: [5] * 9, 7: [6, 2]})
    found = generate(model, [[9, 9, 9], [8], [7, 7]], max_new_tokens=6, eos=2)
    assert found.ids == [[3, 4, 2], [5] * 6, [6, 2]]
    assert found.finish == ["eos", "length", "eos"]
    assert model.fed == [(3, 3), (3, 1), (2, 1), (1, 1), (1, 1), (1, 1)]  # rows that ended cost nothing


def test_learned_positions_end():
    _, ours = pair("gpt2")  # 64 positions
    long = (prompts(7, (64,))[0], prompts(8, (60,))[0], prompts(9, (5,))[0])
    with pytest.raises(CapacityError, match="row 1 has 65 tokens, and the model has 64 positions"):
        generate(ours, [[5], [*long[0], 5]], max_new_tokens=1)
    with pytest.warns(UserWarning, match="lowered from 10 to 1 for the longest prompt"):
        found = generate(ours, long, max_new_tokens=10)
    assert [len(row) for row in found.ids] == [1, 5, 10]
    assert found.finish == ["length"] * 3
    for row, ids in zip(long, found.ids, strict=True):
        assert generate(ours, row, max_new_tokens=len(ids)).ids == [ids]
    with pytest.warns(UserWarning, match="lowered"):
        assert [len(row) for row in generate(ours, long, max_new_tokens=10, beams=3).ids] == [1, 5, 10]


def test_windows_keep_bounded_buffers():
    _, ours = pair("mistral")
    reference, _ = pair("mistral")
    rows = prompts(10, (23, 2))
    expected = [theirs(reference, [row], max_new_tokens=30)[0] for row in rows]
    assert generate(ours, rows, max_new_tokens=30).ids == expected


def test_text_in_and_out():
    model = Scripted({ord("h"): [ord(c) for c in "ello"] + [2], 1: [200, 2]})
    found = generate(model, ["hi", ""], tokenizer=Letters(), max_new_tokens=9)
    assert found.texts == ["ello", "ab"]
    assert found.finish == ["eos", "eos"]
    assert found.ids[1] == [200, 2]
    assert list(stream(model, "hi", tokenizer=Letters(), max_new_tokens=2)) == ["e", "l"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prompt": []}, "there is no row|row 0 is empty"),
        ({"prompt": [[1], []]}, "row 1 is empty; give it a token, or say bos="),
        ({"prompt": "text"}, "text needs a tokenizer"),
        ({"prompt": [1, 99]}, "prompt: row 0 holds token 99, outside the vocabulary of 99"),
        ({"prompt": [1, -1]}, "row 0 holds token -1"),
        ({"prompt": [1, 2.5]}, "row 0 holds 2.5; token ids are whole numbers"),
        ({"prompt": ["a", 1], "tokenizer": Letters()}, "texts or token ids, not both"),
        ({"prompt": torch.zeros(2, 3)}, "row 0 holds 0.0; token ids are whole numbers"),
        ({"prompt": torch.zeros(1, 2, 3, dtype=torch.int64)}, r"row 0 holds \[0, 0, 0\]"),
        (
            {"prompt": torch.ones(1, 3, dtype=torch.int64), "padding": torch.ones(1, 2) > 0},
            r"padding must be bool .*not torch.bool \(1, 2\) for \(1, 3\)",
        ),
        ({"prompt": torch.ones(2, 3, dtype=torch.int64), "padding": torch.zeros(2, 3) > 0}, "row 0 is empty"),
        ({"prompt": [1], "padding": torch.ones(1, 1) > 0}, "padding goes with a tensor"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1"),
        ({"num_return": 2}, "greedy answers are all alike"),
        ({"num_return": 0}, "num_return must be"),
        ({"temperature": -1}, "temperature must be"),
        ({"top_k": 0}, "top_k must be"),
        ({"seed": [1, 2], "temperature": 1.0}, "2 seeds for 1 prompts"),
        ({"seed": "x", "temperature": 1.0}, "seed must be a whole number"),
        ({"eos": 99}, "eos holds token 99, outside the vocabulary of 99"),
        ({"eos": [5, -1]}, "eos holds token -1"),
        ({"eos": "x"}, "eos holds 'x'"),
        ({"eos": 2.5}, "eos holds 2.5"),
        ({"stop": "x"}, "need tokenizer="),
        ({"stop": 3, "tokenizer": Letters()}, "stop: must be strings"),
        ({"stop": "", "tokenizer": Letters()}, None),
        ({"stop": [""], "tokenizer": Letters()}, "stop: must be strings of at least one character"),
        ({"target": [4]}, "only an encoder-decoder"),
        ({"beams": 0}, "beams must be"),
        ({"beams": 2, "temperature": 1.0}, "beam search draws nothing"),
        ({"beams": 2, "num_return": 3}, "2 beams give at most 2"),
        ({"beams": 2, "stop": "x", "tokenizer": Letters()}, "beam search ends at eos tokens only"),
        ({"beams": 2, "early_stopping": "soon"}, "early_stopping must be"),
        ({"beams": 2, "length_penalty": float("nan")}, "length_penalty must be"),
    ],
)
def test_one_clear_error(wrong, words):
    _, ours = pair("llama")
    arguments = {"prompt": [1, 2, 3], "max_new_tokens": 2, **wrong}
    prompt = arguments.pop("prompt")
    if words is None:
        words = "stop"
    with pytest.raises(CutawayError, match=words):
        generate(ours, prompt, **arguments)


def test_errors_of_streams_are_raised_by_the_call():
    _, ours = pair("llama")
    with pytest.raises(CutawayError, match="takes one prompt, not 2"):
        stream(ours, [[1], [2]])
    with pytest.raises(CutawayError, match="top_p must be"):
        stream(ours, [1], top_p=3)


def test_models_that_cannot_generate():
    stack = pair("llama")[1].stack
    for model, words in (
        (Model(stack, causal=False), "cannot generate"),
        (Model(stack, causal=True), "Take a decoder with its head"),
        (build("gpt2", device="meta"), "meta device has no weights"),
        ("smollm2", "what cutaway.load returned, not str"),
    ):
        with pytest.raises(CutawayError, match=words):
            generate(model, [1, 2])


def test_what_load_returned_brings_its_tokenizer():
    model = Scripted({ord("h"): [ord(c) for c in "ello"] + [2]})
    loaded = Loaded(model, Letters(), "scripted", None, "nowhere")
    found = generate(loaded, "hi", max_new_tokens=9)
    assert (found.texts, found.finish) == (["ello"], ["eos"])
    assert list(stream(loaded, "hi", max_new_tokens=9)) == list("ello")


def test_numpy_and_torch_are_as_good_as_lists():
    _, ours = pair("llama")
    settings = {"max_new_tokens": 6, "temperature": 1.0}
    rows = [[5, 6, 7], [8, 9, 10]]
    expected = generate(ours, rows, seed=3, eos=[4, 11], **settings).ids
    for prompt in (np.array(rows), [np.array(row) for row in rows], [[np.int64(i) for i in row] for row in rows]):
        for eos in (np.array([4, 11]), torch.tensor([4, 11]), [np.int64(4), torch.tensor(11)]):
            assert generate(ours, prompt, seed=np.int64(3), eos=eos, stop=None, **settings).ids == expected
    alone = generate(ours, rows[:1], seed=3, eos=4, **settings).ids
    for one in (np.array(rows[0]), [torch.tensor(i) for i in rows[0]]):
        assert generate(ours, one, seed=torch.tensor(3), eos=np.int64(4), **settings).ids == alone
    padded, padding = np.array([[0, 5, 6, 7]]), np.array([[False, True, True, True]])
    assert generate(ours, padded, padding=padding, seed=3, eos=torch.tensor(4), **settings).ids == alone


def test_broken_weights_are_no_answer():
    model = Scripted({9: [3]})
    real = model.forward
    model.forward = lambda *args, **kwargs: real(*args, **kwargs) * float("nan")
    for settings in ({}, {"temperature": 1.0}, {"beams": 2}):
        with pytest.raises(CutawayError, match="row 0 has NaN"):
            generate(model, [9], **settings)

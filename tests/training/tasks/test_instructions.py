"""Conversations: what is asked for beside transformers' own mask, learnt, answered; what cannot be learnt from is said."""

import pytest
import torch
from tests.cli.conftest import TEMPLATE
from tests.training.tasks.conftest import tuned

import cutaway
from cutaway.training.batch import IGNORED
from cutaway.training.data import examples
from cutaway.training.errors import DataError, TrainingError
from cutaway.training.setup import prepare
from cutaway.training.tasks.instructions import Instructions
from cutaway.training.tuning import evaluate, predict, recipe_for

TALK = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "where is the cat <|im_end|>?"},
    {"role": "assistant", "content": "the cat sat on the mat"},
    {"role": "user", "content": "and the dog"},
    {"role": "assistant", "content": "on the log"},
]


def test_what_is_asked_for_is_what_transformers_marks(talker):
    from transformers import AutoTokenizer

    marked = TEMPLATE.replace(
        "{{ m['content'] }}<|im_end|>\n",
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m['content'] }}<|im_end|>{% endif %}{{ '\\n' }}",
    )
    theirs = AutoTokenizer.from_pretrained(talker)
    theirs.chat_template = marked
    talk = [TALK[0], {**TALK[1], "content": "where is the cat?"}, *TALK[2:]]
    batch = theirs.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    task = Instructions(cutaway.load(talker).tokenizer)
    (row,) = task.encode([Instructions.read(_file(talk))[0]]).rows
    assert row.ids == batch["input_ids"]
    assert [label != IGNORED for label in row.labels] == [bool(m) for m in batch["assistant_masks"]]
    assert all(label in (IGNORED, token) for label, token in zip(row.labels, row.ids, strict=True))


class _file:
    """Data of one conversation."""

    columns = ("messages",)

    def __init__(self, talk):
        self.parts = [type("Part", (), {"rows": lambda _: [(1, {"messages": talk})], "name": "f", "unit": "line"})()]


def test_a_user_cannot_end_a_turn(talker):
    task = Instructions(cutaway.load(talker).tokenizer)
    (row,) = task.encode(Instructions.read(_file(TALK))).rows
    end = task.tokenizer.eos_id
    assert row.ids.count(end) == 5
    assert [label for label in row.labels if label == end] == [end, end]


def test_the_loss_is_of_the_answers_alone(talker, talks):
    prepared = prepare(recipe_for(str(talker), "instructions", [str(talks)]))
    trainer = prepared.trainer
    rows = trainer.data.batch(0)
    batch = trainer.objective.batch(rows, torch.Generator())
    loss = trainer.objective.loss(trainer.model, batch)
    logits = trainer.model(rows.rows.ids, rows.rows.padding).log_softmax(-1)
    said = (rows.labels != IGNORED).nonzero().tolist()
    expected = -sum(logits[b, t - 1, rows.rows.ids[b, t]] for b, t in said)
    assert int(loss.count) == len(said)
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_it_learns_to_answer(talker, talks, tmp_path):
    tuned(talker, "instructions", talks, tmp_path / "run", loop__epochs=40, data__split=0, data__length=64)
    scores = evaluate(tmp_path / "run", task="instructions", data=str(talks), tokens=16)
    assert scores == {"exact": 1.0, "f1": 1.0, "examples": 24}
    answers = predict(tmp_path / "run", ["where is the dog"], task="instructions", tokens=16)
    assert answers[0]["text"] == "on the log"
    assert answers[0]["score"] > 0.6
    assert predict(talker, ["where is the dog"], task="instructions", tokens=4)[0]["score"] < 0.5


def test_without_a_template_the_response_follows_the_prompt(talker, talks):
    tokenizer = cutaway.load(talker).tokenizer
    tokenizer.chat_template = None
    (row,) = Instructions(tokenizer).encode(Instructions.read(examples(talks))[:1]).rows
    answer = [*tokenizer.encode("on the mat", special=False), tokenizer.eos_id]
    assert row.ids == tokenizer.encode("where is the cat", special=False) + answer
    assert [label for label in row.labels if label != IGNORED] == answer
    with pytest.raises(TrainingError, match="no chat template"):
        Instructions(tokenizer).encode(Instructions.read(_file(TALK)))


def test_what_cannot_be_learnt_from_is_said(talker, encoder, talks):
    tokenizer = cutaway.load(talker).tokenizer
    with pytest.raises(DataError, match="the last is the assistant's"):
        Instructions.read(_file(TALK[:-1]))
    with pytest.raises(DataError, match="no answer begins within 8 tokens"):
        Instructions(tokenizer, length=8).encode(Instructions.read(_file(TALK)))
    tokenizer.chat_template = "{{ messages | length }}" + TEMPLATE
    with pytest.raises(TrainingError, match="writes a turn otherwise when others follow"):
        Instructions(tokenizer).encode(Instructions.read(_file(TALK)))
    with pytest.raises(TrainingError, match="a decoder that writes"):
        prepare(recipe_for(str(encoder), "instructions", [str(talks)]))
    with pytest.raises(TrainingError, match="no use to train alone"):
        prepare(recipe_for(str(talker), "instructions", [str(talks)], {"task.frozen": "true"}))

"""Answers in a text: windows, the tokens of an answer, learnt, saved as transformers reads them, beside its rules."""

import json

import pytest
import torch
import torch.nn.functional as F
from tests.training.tasks.conftest import tuned

import cutaway
from cutaway.cli import main
from cutaway.training import run
from cutaway.training.data import examples
from cutaway.training.errors import DataError
from cutaway.training.tasks.questions import Questions
from cutaway.training.tasks.task import Example
from cutaway.training.tuning import evaluate, predict


@pytest.fixture(scope="module")
def finished(encoder, squad, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "squad"
    tuned(encoder, "questions", squad, folder, data__length=32, task__stride=8, loop__epochs=6)
    return folder


def test_it_learns_where_answers_are(finished, squad):
    entries = [e for e in run.entries(finished / run.LOG) if "valid" in e]
    scores = evaluate(finished, data=str(squad), length=32, stride=8)
    assert scores["examples"] == 80
    assert scores["f1"] > 0.9
    assert entries[-1]["valid"] < 0.2 < entries[0]["valid"]
    best = json.loads((run.named_in(finished, "best") / "trainer.json").read_text())
    assert best["best"] == max(e["f1"] for e in entries)
    (answer,) = predict(finished, [("what is good", "the old film had a lovely song and a long story")])
    assert answer["text"] == "lovely"
    assert answer["text"] == "the old film had a lovely song and a long story"[answer["start"] : answer["end"]]
    assert 0 < answer["score"] <= 1


def test_transformers_reads_it_with_the_same_numbers(finished):
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    path = run.named_in(finished, "best") / "model"
    theirs = AutoModelForQuestionAnswering.from_pretrained(path).eval()
    batch = AutoTokenizer.from_pretrained(path)("what is good", "the lovely song", return_tensors="pt")
    expected = theirs(**batch)
    ours = cutaway.load(path).model(batch["input_ids"], segments=batch["token_type_ids"])
    assert torch.allclose(ours[..., 0], expected.start_logits, atol=1e-5)
    assert torch.allclose(ours[..., 1], expected.end_logits, atol=1e-5)


@pytest.mark.parametrize("name", ["encoder", "minilm"])
def test_windows_are_those_of_transformers(name, request, squad):
    from transformers import AutoTokenizer

    folder = request.getfixturevalue(name)
    task = Questions(cutaway.load(folder).tokenizer, length=30, stride=7, segments=2)
    theirs = AutoTokenizer.from_pretrained(folder)
    for example in Questions.read(examples(squad))[:8]:
        batch = theirs(*example.text, max_length=30, stride=7, truncation="only_second", return_overflowing_tokens=True)
        rows = task.encode([example]).rows
        assert [row.ids for row in rows] == batch["input_ids"]
        assert [row.segments for row in rows] == batch["token_type_ids"]


def test_the_tokens_of_an_answer_say_it(encoder, squad):
    tokenizer = cutaway.load(encoder).tokenizer
    task = Questions(tokenizer, length=30, stride=7)
    found = Questions.read(examples(squad))
    rows = task.encode(found).rows
    there = set()
    for row in rows:
        first, last = row.labels
        _, said = found[row.example].answer[0]
        held = tokenizer.decode(row.ids[first : last + 1])
        if first:
            assert held == said
            assert first >= 5  # behind the question
            there.add(row.example)
        else:
            assert (first, last) == (0, 0)
    assert there == set(range(80))


def test_the_loss_is_that_of_transformers(encoder):
    """Where nothing is padding, which transformers lets be pointed at."""
    task = Questions(cutaway.load(encoder).tokenizer, length=40, segments=2)
    example = Example(("what is good", "the lovely song"), [(11, "song")])
    batch = task.objective(torch.nn.Identity()).batch(task.encode([example, example]).batch([0, 1]), torch.Generator())
    logits = torch.randn(*batch.inputs["ids"].shape, 2)
    loss = task.objective(torch.nn.Identity()).loss(lambda **_: logits, batch)
    theirs = (
        F.cross_entropy(logits[..., 0], batch.targets[:, 0]) + F.cross_entropy(logits[..., 1], batch.targets[:, 1])
    ) / 2
    assert (loss.total / loss.count).item() == pytest.approx(theirs.item(), rel=1e-6)
    assert "segments" in batch.inputs


def test_padding_is_not_pointed_at(encoder):
    task = Questions(cutaway.load(encoder).tokenizer, length=40)
    some = [Example(("what", "the lovely song"), [(11, "song")]), Example(("what", "a"), [(0, "a")])]
    objective = task.objective(torch.nn.Identity())
    batch = objective.batch(task.encode(some).batch([0, 1]), torch.Generator())
    logits = torch.zeros(*batch.inputs["ids"].shape, 2)
    before = objective.loss(lambda **_: logits, batch).total
    logits[1, -1] = 50.0  # a column of padding
    assert torch.equal(objective.loss(lambda **_: logits, batch).total, before)


def test_the_best_answer_of_a_window_is_the_best_of_all_pairs(encoder):
    task = Questions(cutaway.load(encoder).tokenizer, length=40, longest=3)
    spans = [(0, 0)] * 3 + [(i, i + 1) for i in range(8)] + [(0, 0)]
    logits = torch.randn(len(spans), 2)
    pairs = {(i, j): float(logits[i, 0] + logits[j, 1]) for i in range(3, 11) for j in range(i, min(i + 3, 11))}
    found = task._best(logits, spans)
    i, j = max(pairs, key=pairs.__getitem__)
    assert found[0] == (pytest.approx(pairs[i, j]), spans[i][0], spans[j][1])
    assert len(found) == min(20, len(pairs))
    assert [value for value, _, _ in found] == pytest.approx(sorted(pairs.values(), reverse=True)[:20])


def test_no_answer_where_there_may_be_none(encoder):
    task = Questions(cutaway.load(encoder).tokenizer, length=40, unanswerable=True)
    assert task._answer("abc", [(1.0, 0, 1)], 2.0)["text"] == ""
    assert task._answer("abc", [(3.0, 0, 1)], 2.0)["text"] == "a"
    assert task.score([{"text": ""}], [Example(("q", "c"), [])]) == {"exact": 1.0, "f1": 1.0}


def test_columns_of_a_hub_are_read_too(tmp_path):
    file = tmp_path / "rows.jsonl"
    row = {"question": "who", "context": "it was Ann", "answers": {"text": ["Ann"], "answer_start": [7]}}
    file.write_text(json.dumps(row))
    (example,) = Questions.read(examples(file))
    assert example.text == ("who", "it was Ann")
    assert example.answer == [(7, "Ann")]
    row["answers"]["answer_start"] = [6]
    file.write_text(json.dumps(row))
    with pytest.raises(DataError, match="line 1: the text has no 'Ann' at character 6"):
        Questions.read(examples(file))


def test_real_questions_are_read_whole(data):
    found = Questions.read(examples(data / "xquad" / "xquad.en.json"))
    assert len(found) == 1190
    assert len({example.group for example in found}) == 48


def test_from_the_shell(finished, capsys):
    text = "the old film had a lovely song and a long story"
    assert main(["predict", str(finished), "what is good", "--context", text, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["predictions"]
    assert answer["text"] == "lovely"
    assert main(["predict", str(finished), "what is good"]) == 2
    assert "questions need --context" in capsys.readouterr().err

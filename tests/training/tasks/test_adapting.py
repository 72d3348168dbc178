"""What is the same for each task: what is trained and how fast, that transformers would train it so, and reads it after."""

import json
import shutil

import pytest
import torch
import transformers
from tests.training.tasks.conftest import FAST, tuned

import cutaway
from cutaway.cli import main
from cutaway.training.batch import Labelled
from cutaway.training.setup import prepare
from cutaway.training.tuning import evaluate, predict, recipe_for

MODELS = {
    "classification": ("encoder", "reviews", "SequenceClassification"),
    "tokens": ("encoder", "names", "TokenClassification"),
    "questions": ("encoder", "squad", "QuestionAnswering"),
    "translation": ("translator", "pairs", "Seq2SeqLM"),
    "summarisation": ("translator", "pairs", "Seq2SeqLM"),
    "instructions": ("talker", "talks", "CausalLM"),
}
HEADED = list(MODELS)[:3]
STILL = FAST | {"schedule.name": "constant", "schedule.warmup": "0", "optimizer.decay": "0", "data.split": "0"}


@pytest.fixture
def work(request):
    """Of a task: its model, its data, and the keys that these need."""

    def found(task):
        source, file = (request.getfixturevalue(name) for name in MODELS[task][:2])
        columns = {"data.columns": "source,target"} if file.name == "pairs.tsv" else {}
        more = {"task.text": "source", "task.answer": "target"} if task == "summarisation" else {}
        return source, file, columns | more

    return found


def begun(source, task, file, **settings):
    return prepare(recipe_for(str(source), task, [str(file)], STILL | settings)).trainer


def moves(trainer, steps):
    """How far each parameter went, at most."""
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for number in range(1, steps + 1):
        trainer.step(number)
    return {name: (p - before[name]).abs().max().item() for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize("task", HEADED)
def test_a_frozen_backbone_stays_where_it_is(work, task):
    source, file, more = work(task)
    gone = moves(begun(source, task, file, **more, **{"task.frozen": "true"}), 4)
    assert all((far > 1e-4) == name.startswith("head.") for name, far in gone.items())
    assert all(far == 0 for name, far in gone.items() if not name.startswith("head."))


@pytest.mark.parametrize("task", MODELS)
def test_the_lower_a_layer_the_less_it_moves(work, task):
    """AdamW's first step takes each weight as far as its rate."""
    source, file, more = work(task)
    rates = {"optimizer.rate": "0.01", "optimizer.layer_decay": "0.5"}
    gone = moves(begun(source, task, file, **more, **rates), 1)
    for part, rate in (("blocks.1.", 0.005), ("blocks.0.", 0.0025), ("embedding.", 0.00125)):
        assert max(far for name, far in gone.items() if part in name) == pytest.approx(rate, rel=1e-3)
    above = [far for name, far in gone.items() if "blocks." not in name and "embedding." not in name]
    assert max(above) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("task", HEADED)
def test_transformers_would_have_tuned_it_so(work, task, tmp_path):
    source, file, more = work(task)
    still = shutil.copytree(source, tmp_path / "still") / "config.json"  # without dropout, so that no luck is in it
    drops = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    still.write_text(json.dumps({**json.loads(still.read_text()), **drops}))
    rows = "1" if task == "questions" else "8"  # transformers lets an answer stand in padding, so there is none
    trainer = begun(tmp_path / "still", task, file, **more, **{"loop.rows": rows})
    cutaway.save(trainer.model, tmp_path / "begun")
    kind = getattr(transformers, f"AutoModelFor{MODELS[task][2]}")
    theirs = kind.from_pretrained(tmp_path / "begun").train()
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.003, betas=(0.9, 0.999), weight_decay=0.0)
    for number in range(1, 13):
        loss = theirs(**arguments(trainer.data.batch(number - 1))).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        assert trainer.step(number).loss == pytest.approx(loss.item(), rel=1e-4)


def arguments(batch):
    assert isinstance(batch, Labelled)
    given = {"input_ids": batch.rows.ids, "token_type_ids": batch.rows.segments}
    given["attention_mask"] = None if batch.rows.padding is None else batch.rows.padding.long()
    ends = batch.rows.segments is not None
    labels = (
        dict(zip(("start_positions", "end_positions"), batch.labels.T, strict=True))
        if ends
        else {"labels": batch.labels}
    )
    return given | labels


@pytest.mark.parametrize("task", MODELS)
def test_transformers_reads_what_a_run_is_converted_to(work, task, tmp_path):
    source, file, more = work(task)
    settings = {name.replace(".", "__"): value for name, value in more.items()}
    tuned(source, task, file, tmp_path / "run", **settings, data__split=0, loop__epochs=0.5)
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "converted"), "--json"]) == 0
    ours = cutaway.load(tmp_path / "run")
    theirs = getattr(transformers, f"AutoModelFor{MODELS[task][2]}").from_pretrained(tmp_path / "converted").eval()
    ids = torch.tensor([[2, 11, 12, 13, 14, 3], [2, 15, 16, 17, 18, 3]])
    writes = task in ("translation", "summarisation")
    with torch.no_grad():
        found = theirs(ids, decoder_input_ids=ids) if writes else theirs(ids)
        logits = ours.model(ids, ids) if writes else ours.model(ids)
    expected = torch.stack([found.start_logits, found.end_logits], -1) if task == "questions" else found.logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    if names := ours.label_names:
        assert theirs.config.id2label == dict(enumerate(names))
        assert cutaway.load(tmp_path / "converted").label_names == names
    assert bool(names) == (task in ("classification", "tokens"))


def test_a_run_is_asked_as_it_was_tuned(work, tmp_path, capsys):
    """By its own task, columns, length and options, which can be given anew."""
    source, file, more = work("summarisation")
    settings = {name.replace(".", "__"): value for name, value in more.items()}
    out = tmp_path / "run"
    tuned(
        source, "summarisation", file, out, **settings, task__tokens=3, data__length=8, loop__epochs=0.1, data__split=0
    )
    capsys.readouterr()
    assert evaluate(out, data=str(file)).keys() == {"rouge1", "rouge2", "rougeL", "examples"}
    assert main(["eval", str(out), "--data", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == evaluate(out, data=str(file))
    assert predict(out, ["the film"]) == predict(out, ["the film"], task="summarisation", tokens=3, length=8)
    assert predict(next((out / "checkpoints").iterdir()), ["the film"]) == predict(out, ["the film"])
    assert evaluate(out, task="translation", data=str(file), columns=("source", "target"), tokens=3).keys() == {
        "bleu", "chrf", "examples",
    }  # fmt: skip


def test_a_model_is_not_asked_what_its_head_is_not_for(work, tmp_path):
    source, file, _ = work("classification")
    tuned(source, "classification", file, tmp_path / "run", loop__epochs=0.1)
    with pytest.raises(cutaway.errors.CutawayError, match="its head is for classification; tune it for tokens"):
        predict(tmp_path / "run", ["a film"], task="tokens")
    with pytest.raises(cutaway.errors.CutawayError, match="it has no head for a task; tune it for questions"):
        predict(source, [("who", "a film")], task="questions")
    strange = tmp_path / "strange.tsv"
    strange.write_text(file.read_text().replace("good\t", "yes\t"))
    with pytest.warns(
        UserWarning, match="does not know yes: its classes are bad, good; examples of others count as wrong"
    ):
        assert evaluate(tmp_path / "run", data=str(strange))["accuracy"] <= 0.5
    strange.write_text(strange.read_text().replace("bad\t", "no\t"))
    with pytest.raises(cutaway.errors.CutawayError, match="does not know no, yes: its classes are bad, good"):
        evaluate(tmp_path / "run", data=str(strange))

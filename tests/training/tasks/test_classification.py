"""Classes of texts: learnt, saved as transformers reads them, gone on with, refused; from the shell too."""

import json

import pytest
import torch
from tests.training.tasks.conftest import BAD, FAST, GOOD, Stop, tuned

import cutaway
from cutaway.cli import main
from cutaway.training import run
from cutaway.training.errors import DataError, TrainingError
from cutaway.training.setup import prepare
from cutaway.training.tuning import evaluate, finetune, predict, recipe_for


@pytest.fixture(scope="module")
def finished(encoder, reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    tuned(encoder, "classification", reviews, folder, data__valid=reviews)  # so that the best is so on all of them
    return folder


def test_it_learns_what_tells_the_classes_apart(finished, reviews):
    scores = [e for e in run.entries(finished / run.LOG) if "valid" in e]
    assert len(scores) == 8  # one an epoch
    assert scores[0]["accuracy"] < max(e["accuracy"] for e in scores) == 1.0
    assert evaluate(finished, data=str(reviews), rows=7) == {"accuracy": 1.0, "f1": 1.0, "examples": 120}
    answers = predict(finished, [f"the film was {word}" for word in GOOD + BAD])
    assert [answer["label"] for answer in answers] == ["good"] * 4 + ["bad"] * 4
    for answer in answers:
        assert answer["score"] == max(answer["scores"].values())
        assert sum(answer["scores"].values()) == pytest.approx(1)


def test_transformers_reads_it_with_the_same_numbers(finished):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = run.named_in(finished, "best")
    theirs = AutoModelForSequenceClassification.from_pretrained(path / "model").eval()
    assert theirs.config.id2label == {0: "bad", 1: "good"}
    assert theirs.config.label2id == {"bad": 0, "good": 1}
    texts = ["the film was good", "a dull and rather long story with a very old song", "[MASK] fine"]
    batch = AutoTokenizer.from_pretrained(path / "model")(texts[:2], padding=True, return_tensors="pt")
    expected = theirs(**batch).logits.softmax(-1)
    for row, answer in zip(expected, predict(finished, texts[:2]), strict=True):
        assert list(answer["scores"].values()) == pytest.approx(row.tolist(), rel=1e-5)


def test_steps_take_the_place_of_the_usual_epochs(encoder, reviews, tmp_path):
    assert recipe_for(str(encoder), "classification", [str(reviews)]).loop.epochs == 3
    given = recipe_for(str(encoder), "classification", [str(reviews)], {"loop.steps": "2"}).loop
    assert (given.steps, given.epochs) == (2, None)
    asked = {"loop.steps": 2, "watch.curves": False}
    made = finetune(encoder, task="classification", data=str(reviews), out=tmp_path / "run", settings=asked)
    assert (made.step, made.steps) == (2, 2)


def test_names_of_classes_travel(finished, tmp_path):
    loaded = cutaway.load(finished)
    assert loaded.label_names == loaded.model.label_names == ("bad", "good")
    for layout in ("huggingface", "cutaway"):
        cutaway.save(loaded, tmp_path / layout, layout=layout)
        assert cutaway.load(tmp_path / layout).label_names == ("bad", "good")
    assert cutaway.load(finished, head="sequence", labels=3).label_names == ()


def test_a_run_that_died_goes_on_as_if_it_had_not(encoder, reviews, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = {"loop__epochs": 0.5, "loop__ema": 0.9, "loop__batch": 200, "evaluate__every": 1}
    tuned(encoder, "classification", reviews, whole, **more)
    for after in (1, 2):
        with pytest.raises(InterruptedError):
            tuned(encoder, "classification", reviews, broken, watch=Stop(after), **more)
    tuned(encoder, "classification", reviews, broken, **more)
    a, b = (run.named_in(folder, "last") / "trainer.safetensors" for folder in (whole, broken))
    assert a.read_bytes() == b.read_bytes()

    def said(folder):
        return [{**e, "seconds": 0} for e in run.entries(folder / run.LOG)]

    assert said(whole) == said(broken)


def test_only_the_head_is_trained_where_the_rest_is_frozen(encoder, reviews, tmp_path):
    tuned(encoder, "classification", reviews, tmp_path / "run", task__frozen="true", loop__epochs=1)
    before = dict(cutaway.load(encoder).model.named_parameters())
    after = dict(cutaway.load(tmp_path / "run").model.named_parameters())
    moved = {name for name, p in after.items() if name not in before or not torch.equal(p, before[name])}
    assert moved == {f"head.{part}.{kind}" for part in ("pool.dense", "out") for kind in ("weight", "bias")}


def test_lower_layers_have_smaller_rates(encoder, reviews):
    settings = FAST | {"optimizer.layer_decay": "0.5", "optimizer.rate": "0.01"}
    trainer = prepare(recipe_for(str(encoder), "classification", [str(reviews)], settings)).trainer
    rates = {trainer.names[p]: g["rate"] for o in trainer.optimizers for g in o.param_groups for p in g["params"]}
    assert rates.keys() == set(trainer.names.values())
    block = "model.stack.blocks"
    expected = {"model.head.out.weight": 1, "model.head.pool.dense.bias": 1, f"{block}.1.attention.norm.weight": 1 / 2,
                f"{block}.0.feedforward.inner.up.weight": 1 / 4, "model.stack.embedding.tokens.weight": 1 / 8}  # fmt: skip
    assert {name: rates[name] / 0.01 for name in expected} == pytest.approx(expected)


def test_a_head_is_kept_where_its_classes_are_the_same(finished, encoder, reviews, tmp_path):
    kept = prepare(recipe_for(str(finished), "classification", [str(reviews)], FAST)).trainer.model
    assert torch.equal(kept.head.out.weight, cutaway.load(finished).model.head.out.weight)
    other = tmp_path / "other.tsv"
    other.write_text(reviews.read_text().replace("good\t", "yes\t").replace("bad\t", "no\t"))
    fresh = prepare(recipe_for(str(finished), "classification", [str(other)], FAST)).trainer.model
    assert fresh.label_names == ("no", "yes")
    assert not torch.equal(fresh.head.out.weight, kept.head.out.weight)
    assert torch.equal(fresh.head.pool.dense.weight, kept.head.pool.dense.weight)
    again = prepare(recipe_for(str(finished), "classification", [str(other)], FAST)).trainer.model
    assert torch.equal(fresh.head.out.weight, again.head.out.weight)


def test_numbers_are_labels_in_their_order(encoder, tmp_path):
    file = tmp_path / "stars.jsonl"
    file.write_text("\n".join(json.dumps({"label": i, "text": "the film"}) for i in (10, 9, 1, 2)))
    prepared = prepare(recipe_for(str(encoder), "classification", [str(file)], {"data.valid": str(file)}))
    assert prepared.trainer.model.label_names == ("1", "2", "9", "10")


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("good\ta film\nbad\ta play\n", {}, r"no column 'text': it has 'good', 'a film'.*--data.columns"),
        ("label\ttext\ngood\ta film\n", {"data.split": "0"}, "all examples are of one class, good"),
        ("label\ttext\n\ta film\n", {}, "line 2: column 'label' must be a label"),
        ("label\ttext\ngood\t \n", {}, "line 2: column 'text' must be a text"),
        ("label\ttext\ngood\ta\nbad\tb\n", {"task.colour": "red"}, "no such option.*colour"),
        ("label\ttext\ngood\ta\nbad\tb\n", {"data.length": "2"}, "no room"),
    ],
)
def test_what_cannot_be_learnt_is_said(encoder, tmp_path, text, settings, said):
    file = tmp_path / "data.tsv"
    file.write_text(text)
    with pytest.raises(TrainingError, match=said):
        tuned(
            encoder, "classification", file, tmp_path / "run", **{k.replace(".", "__"): v for k, v in settings.items()}
        )


def test_plain_text_and_strange_sources_are_refused(encoder, finished, reviews, tmp_path):
    file = tmp_path / "data.txt"
    file.write_text("once upon a time")
    with pytest.raises(DataError, match="plain text; a task needs columns"):
        tuned(encoder, "classification", file, tmp_path / "run")
    with pytest.raises(TrainingError, match="it has no head for a task"):
        predict(encoder, ["a film"])
    with pytest.raises(TrainingError, match=r"wrap the one text in \[ \]"):
        predict(finished, "a film")
    with pytest.raises(TrainingError, match=r"task\.name cannot be 'colours'; there are classification"):
        finetune(encoder, task="colours", data=str(reviews), out=tmp_path / "run")


def test_from_the_shell(encoder, reviews, tmp_path, capsys):
    line = [
        "finetune",
        str(encoder),
        "--task",
        "classification",
        "--data",
        str(reviews),
        "--out",
        str(tmp_path / "run"),
    ]
    settings = [word for name, value in FAST.items() for word in (f"--{name}", value)]
    assert main([*line, *settings, "--loop.epochs", "2", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["step"] == summary["steps"] == 28
    assert main(["eval", str(tmp_path / "run"), "--data", str(reviews), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores.keys() == {"accuracy", "f1", "examples"}
    assert main(["predict", str(tmp_path / "run"), "a good film", "a bad film", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["task"] == "classification"
    assert [p["input"] for p in answer["predictions"]] == ["a good film", "a bad film"]
    python = predict(tmp_path / "run", ["a good film", "a bad film"])
    assert answer["predictions"] == [
        {"input": i, **p} for i, p in zip(("a good film", "a bad film"), python, strict=True)
    ]
    assert main(["predict", str(tmp_path / "run"), "a good film"]) == 0
    assert "a good film" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "run"), "a good film", "--context", "x"]) == 2
    assert "questions need --context" in capsys.readouterr().err


def test_tensorboard_has_the_scores_of_the_log(encoder, reviews, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tuned(encoder, "classification", reviews, tmp_path / "run", loop__epochs="2", watch__tensorboard="true")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    ours = [(entry["step"], pytest.approx(entry["accuracy"])) for entry in log if "valid" in entry]
    assert ours
    assert [(event.step, event.value) for event in events.Scalars("validation/accuracy")] == ours

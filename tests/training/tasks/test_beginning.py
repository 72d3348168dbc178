"""Pairs from scratch: the tokenizer is learnt over both sides, the run resumes exactly, and is asked and scored afterwards."""

import json

import pytest
import torch
from tests.training.tasks.conftest import Stop

import cutaway
from cutaway.training import toml
from cutaway.training.errors import DataError, TrainingError
from cutaway.training.recipe import Recipe
from cutaway.training.runner import train
from cutaway.training.setup import prepare
from cutaway.training.tuning import evaluate, predict

SIZES = {
    "transformer-base": {"width": 32, "layers": 1, "heads": 2, "hidden": 64, "dropout": 0.0},
    "lstm-attention": {"width": 32, "hidden": 32, "tied": "true"},
    "t5-small": {"width": 32, "layers": 1, "heads": 2, "head_width": 16, "hidden": 64, "dropout": 0.0, "vocab": 300},
}


def recipe(pairs, preset, **more):
    settings = {
        "data.path": str(pairs), "data.columns": "source,target", "data.tokenizer": "bpe:300", "data.length": "32",
        "model.preset": preset, "task.name": "translation", "task.tokens": "16", "loop.tokens": "300",
        "loop.steps": "60", "evaluate.every": "20", "optimizer.rate": "0.01", "schedule.name": "noam",
        "schedule.warmup": "10", "watch.curves": "false",
    }  # fmt: skip
    settings |= {f"model.{name}": str(value) for name, value in SIZES[preset].items()}
    return toml.settings(settings | {name.replace("__", "."): value for name, value in more.items()}, Recipe())


@pytest.mark.parametrize("preset", SIZES)
def test_a_preset_learns_to_translate(pairs, preset, tmp_path):
    steps = "240" if preset == "t5-small" else "60"  # whose first weights were made for Adafactor
    train(recipe(pairs, preset, data__split="0", loop__steps=steps), tmp_path / "run")
    scores = evaluate(tmp_path / "run", data=str(pairs))
    assert scores["bleu"] > 90
    answers = predict(tmp_path / "run", ["the film good", "the play awful"])
    assert [answer["text"] for answer in answers] == ["a good old film", "a bad long play"]


def test_the_tokenizer_knows_both_sides_and_a_run_resumes_exactly(pairs, tmp_path):
    wanted = recipe(pairs, "transformer-base", data__split="0.2", model__dropout="0.1", save__every="7")
    train(wanted, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        train(wanted, tmp_path / "broken", watch=Stop(31))
    train(wanted, tmp_path / "broken")
    logs = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in ("whole", "broken")]
    for log in logs:
        for entry in log:
            entry.pop("seconds", None)
    assert logs[0] == logs[1]
    whole, broken = (cutaway.load(tmp_path / name) for name in ("whole", "broken"))
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), broken.model.parameters(), strict=True))
    assert len(whole.tokenizer.encode("old film", special=False)) == 2  # words of the targets alone are whole pieces


def test_what_cannot_begin_is_refused(pairs, tmp_path):
    with pytest.raises(TrainingError, match=r"model\.source"):
        prepare(recipe(pairs, "transformer-base", task__name="classification"))
    with pytest.raises(DataError, match="no column 'source'"):
        prepare(recipe(pairs, "transformer-base", data__columns="english,french"))
    with pytest.raises(TrainingError, match="encoder with a decoder"):
        prepare(toml.settings({"model.preset": "gpt2"}, recipe(pairs, "transformer-base")))

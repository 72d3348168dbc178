"""SmolLM2 learns by LoRA to answer in two lines; the lesson in `recipes` is what it says it is."""

import importlib.util
import json
from pathlib import Path

import pytest

from cutaway.training import predict, toml
from cutaway.training.runner import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("instructions", ROOT / "benchmarks" / "instructions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(name):
    return [json.loads(line) for line in (ROOT / "recipes" / "short_answers" / name).read_text().splitlines()]


def test_the_lesson_has_its_form_and_nothing_of_the_questions_after_it(benchmark):
    lesson, asked = rows("train.jsonl"), rows("held_out.jsonl")
    assert (len(lesson), len(asked)) == (80, 16)
    assert benchmark.well_formed([row["response"] for row in lesson]) == 1
    assert benchmark.well_formed(["Paris.", "Short: Paris.", "Short: Paris.\nWhy: It is.\nWhy: It is."]) == 0
    assert benchmark.right(["Short: The Lions.", "No, a Lion"], ["lion", "the lion"]) == 0.5
    assert not {row["prompt"] for row in lesson} & {row["prompt"] for row in asked}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_smollm2_answers_as_it_was_taught(benchmark, smollm2, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    prompts = [row["prompt"] for row in rows("held_out.jsonl")]
    before = predict("smollm2", prompts, task="instructions", tokens=64)
    train(toml.loads((ROOT / "recipes" / "short_answers.toml").read_text()), tmp_path / "run")
    after = predict(tmp_path / "run", prompts)
    assert benchmark.well_formed([answer["text"] for answer in before]) == 0
    assert benchmark.well_formed([answer["text"] for answer in after]) > 0.9
    alike = benchmark.proofs(tmp_path / "run", prompts[:4])
    assert alike.keys() == {"peft", "merged"}
    assert max(alike.values()) < 2e-5

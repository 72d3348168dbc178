"""lm-eval asks a model of cutaway and its own model of transformers the same things, on the same weights."""

import json
import subprocess
import sys

import pytest
import torch
from tests.cli.conftest import TEMPLATE
from tests.cli.conftest import write_tokenizer as write_talk

import cutaway
from cutaway import text
from cutaway.training.errors import TrainingError

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'cutaway[harness]'")

CHOICES = [
    {"ask": "the cat sat on", "choices": [" the mat", " a log and then the dog", " it"], "gold": 0},
    {"ask": "the dog", "choices": [" sat", " on the", " the cat sat on the mat and the dog"], "gold": 2},
    {"ask": "on the log " * 20, "choices": [" cat", " mat", " dog"], "gold": 1},  # longer than the model
] * 3
TEXTS = [{"text": "the cat sat on the mat. " * n} for n in (1, 2, 30)]  # the last is several windows
ASKED = [{"ask": "the cat", "gold": "the"}, {"ask": "on the mat and the dog sat", "gold": "on"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 of random, peaked weights, in the Hugging Face layout, with a tokenizer that both libraries read."""
    made = tmp_path_factory.mktemp("decoder")
    vocab = write_talk(made, TEMPLATE)
    model = cutaway.build("gpt2", vocab=vocab, width=32, layers=2, heads=2, context=64, seed=1)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4)
    return cutaway.save(model, made / "model", tokenizer=text.from_directory(made))


def task(folder, name, rows, **more):
    """A task of one file, as one would write it in YAML."""
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}}, "test_split": "test"}
    return {"task": name, **where, **more}


def tasks(folder):
    choose = {"output_type": "multiple_choice", "doc_to_text": "{{ask}}", "doc_to_choice": "{{choices}}"}
    until = {"until": ["\n", "zz"], "max_gen_toks": 12, "do_sample": False}
    return [
        task(folder, "choose", CHOICES, **choose, doc_to_target="gold", target_delimiter="",
             metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}]),
        task(folder, "foresee", TEXTS, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
             metric_list=[{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}]),
        task(folder, "write", ASKED, output_type="generate_until", doc_to_text="{{ask}}", doc_to_target="{{gold}}",
             generation_kwargs=until, metric_list=[{"metric": "exact_match"}]),
    ]  # fmt: skip


def asked(model, tmp_path, **more):
    """The scores, and what the model said to each request."""
    found = lm_eval.simple_evaluate(model=model, tasks=tasks(tmp_path), bootstrap_iters=0, **more)
    said = {name: [sample["resps"] for sample in samples] for name, samples in found["samples"].items()}
    return found["results"], said


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def flat(said):
    """Numbers and texts, one after another."""
    return [x for each in said for x in flat(each)] if isinstance(said, (list, tuple)) else [said]


def test_it_answers_as_their_own_model(folder, tmp_path, offline):
    from lm_eval.models.huggingface import HFLM

    from cutaway.training.harness import Harness

    scores, said = asked(Harness(folder, batch_size=4), tmp_path)
    peers, theirs = asked(HFLM(str(folder), dtype="float32", device="cpu", batch_size=4), tmp_path)
    for name in ("choose", "foresee"):
        assert flat(said[name]) == pytest.approx(flat(theirs[name]), rel=1e-4), name
    assert said["write"] == theirs["write"]
    assert any(answer for answer in flat(said["write"]))
    for name, found in scores.items():
        for metric, value in found.items():
            if isinstance(value, float):
                assert value == pytest.approx(peers[name][metric], rel=1e-4), (name, metric)


def test_a_chat_is_asked_in_the_models_own_form(folder, tmp_path, offline):
    from lm_eval.models.huggingface import HFLM

    from cutaway.training.harness import Harness

    ours, theirs = Harness(folder), HFLM(str(folder), dtype="float32", device="cpu")
    talk = [{"role": "user", "content": "the cat"}]
    assert ours.apply_chat_template(talk) == theirs.apply_chat_template(talk)
    assert ours.chat_template(True) == theirs.chat_template(True)
    assert (ours.prefix_token_id, ours.eot_token_id) == (theirs.prefix_token_id, theirs.eot_token_id)


def test_from_the_shell(folder, tmp_path):
    (tmp_path / "choose.yaml").write_text(json.dumps(tasks(tmp_path)[0]))  # JSON is YAML
    lines = [["--model_args", f"source={source}", "--tasks", tmp_path / "choose.yaml"] for source in (folder, tmp_path)]
    start = [sys.executable, "-m", "cutaway.training.harness", "run", "--model", "cutaway"]
    well, ill = (subprocess.run([*start, *line], capture_output=True, text=True) for line in lines)
    assert well.returncode == 0, well.stderr
    assert "|choose|" in well.stdout.replace(" ", "")
    assert ill.returncode == 2
    assert ill.stderr.splitlines()[-1].startswith("cutaway: ")


def test_what_cannot_be_asked(folder, tmp_path):
    from cutaway.training.harness import Harness

    reader = tmp_path / "reader"
    cutaway.save(cutaway.build("bert-tiny", seed=1), reader)
    with pytest.raises(TrainingError, match="only a decoder"):
        Harness(reader)
    mute = cutaway.save(cutaway.build("gpt2", vocab=50, width=32, layers=1, heads=2), tmp_path / "mute")
    with pytest.raises(TrainingError, match="no tokenizer"):
        Harness(mute)
    with pytest.raises(TrainingError, match="batch_size"):
        Harness(folder, batch_size="auto")

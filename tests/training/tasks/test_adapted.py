"""LoRA in runs: what a checkpoint holds, going on exactly, `peft` on the same files, merged, many on one base, refused."""

import shutil
import warnings

import pytest
import torch
from safetensors import safe_open
from tests.training.tasks.conftest import Stop, tuned

import cutaway
from cutaway.checkpoints import adapters
from cutaway.cli import main
from cutaway.errors import ConfigError
from cutaway.parts import lora
from cutaway.training import run
from cutaway.training.errors import TrainingError
from cutaway.training.recipe import Recipe
from cutaway.training.runner import train
from cutaway.training.setup import prepare
from cutaway.training.toml import settings
from cutaway.training.tuning import evaluate, predict, recipe_for

LORA = {"lora__rank": 8, "optimizer__rate": "0.003"}
TEXT = "the quick brown fox jumps over the lazy dog. " * 40


@pytest.fixture(scope="module")
def finished(encoder, reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    tuned(encoder, "classification", reviews, folder, data__valid=reviews, loop__epochs=20, **LORA)
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A base that has been trained a little, and what it read."""
    folder = tmp_path_factory.mktemp("decoder")
    (folder / "text.txt").write_text(TEXT)
    tiny = {"data.path": str(folder / "text.txt"), "data.tokenizer": "char", "data.length": "16", "model.preset": "llama",
            "model.width": "32", "model.layers": "2", "model.heads": "4", "model.kv_heads": "2", "model.hidden": "64",
            "loop.steps": "20", "loop.rows": "8", "watch.curves": "false"}  # fmt: skip
    train(settings(tiny, Recipe()), folder / "base")
    return folder


def going_on(decoder, text=None, **more):
    """The recipe of a run that adapts the decoder to another text."""
    file = decoder / "other.txt"
    file.write_text(text or "a lazy dog, the fox and a dog too. " * 40)
    given = {"data.path": str(file), "data.length": "16", "model.source": str(decoder / "base"), "loop.steps": "6",
             "loop.rows": "4", "evaluate.every": "2", "lora.rank": "2", "optimizer.rate": "0.01", "schedule.warmup": "2",
             "watch.curves": "false", **{k.replace("__", "."): str(v) for k, v in more.items()}}  # fmt: skip
    return settings(given, Recipe())


def keys(file):
    with safe_open(file, "pt") as opened:
        return set(opened.keys())


def test_detours_and_the_head_are_trained_and_kept_and_nothing_else(finished, encoder, reviews):
    assert evaluate(finished, data=str(reviews))["accuracy"] > 0.9
    kept = keys(run.named_in(finished, "last") / "trainer.safetensors")
    trained = [name for name in kept if name.startswith("weights/")]
    assert len(trained) == 2 * 6 * 2 + 4  # A and B of six matrices in each of two blocks; the head's two layers
    assert all(".detours.default." in name or name.startswith("weights/model.head.") for name in trained)
    stored = keys(run.named_in(finished, "best") / "model" / "adapter_model.safetensors")
    assert len(stored) == len(trained)
    before, after = cutaway.load(encoder).model, cutaway.load(finished).model
    lora.use(after, None)
    names = [
        name for name, _ in before.named_parameters() if not name.startswith("pooler.")
    ]  # the new head has its own
    assert all(torch.equal(before.get_parameter(name), after.get_parameter(name)) for name in names)


def test_peft_reads_the_adapter_with_the_same_numbers(finished, encoder):
    import peft
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = run.named_in(finished, "best") / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)
        theirs = peft.PeftModel.from_pretrained(base, path).eval()
    texts = ["the film was good", "a dull and rather long story with a very old song"]
    batch = AutoTokenizer.from_pretrained(path)(texts, padding=True, return_tensors="pt")
    expected = theirs(**batch).logits.softmax(-1)
    for row, answer in zip(expected, predict(finished, texts), strict=True):
        assert list(answer["scores"].values()) == pytest.approx(row.tolist(), rel=1e-5)


def test_the_shell_makes_one_model_of_base_and_adapter(finished, tmp_path, capsys):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert main(["convert", str(finished), str(tmp_path / "merged")]) == 0
    texts = ["the film was good", "a dull song"]
    expected = predict(finished, texts)
    for answer, alike in zip(expected, predict(tmp_path / "merged", texts), strict=True):
        assert answer["scores"] == pytest.approx(alike["scores"], abs=1e-5)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert theirs.config.id2label == {0: "bad", 1: "good"}
    batch = AutoTokenizer.from_pretrained(tmp_path / "merged")(texts, padding=True, return_tensors="pt")
    for row, answer in zip(theirs(**batch).logits.softmax(-1), expected, strict=True):
        assert list(answer["scores"].values()) == pytest.approx(row.tolist(), abs=1e-5)


def test_a_run_that_died_goes_on_as_if_it_had_not(encoder, reviews, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = {
        **LORA,
        "loop__epochs": 0.5,
        "loop__ema": 0.9,
        "loop__batch": 200,
        "evaluate__every": 1,
        "lora__dropout": 0.2,
    }
    tuned(encoder, "classification", reviews, whole, **more)
    for after in (1, 2):
        with pytest.raises(InterruptedError):
            tuned(encoder, "classification", reviews, broken, watch=Stop(after), **more)
    tuned(encoder, "classification", reviews, broken, **more)
    a, b = (run.named_in(folder, "last") / "trainer.safetensors" for folder in (whole, broken))
    assert a.read_bytes() == b.read_bytes()
    a, b = (run.named_in(folder, "last") / "model" / "adapter_model.safetensors" for folder in (whole, broken))
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_running_text_is_learnt_too(decoder, tmp_path, optimizer):
    chosen = going_on(decoder, optimizer__name=optimizer, loop__recompute="true")
    summary = train(chosen, tmp_path / "run")
    assert summary.trained == 2 * 2 * sum(
        sum(size) for size in [(32, 32)] * 2 + [(32, 16)] * 2 + [(32, 64)] * 2 + [(64, 32)]
    )
    losses = [entry["valid"] for entry in run.entries(tmp_path / "run" / run.LOG) if "valid" in entry]
    assert losses == sorted(losses, reverse=True)
    loaded = cutaway.load(tmp_path / "run")
    answer = cutaway.generate(loaded, "the ", max_new_tokens=5)
    lora.merge(loaded.model)
    assert cutaway.generate(loaded, "the ", max_new_tokens=5).ids == answer.ids


def test_adapters_of_several_runs_take_turns_on_one_base(decoder, tmp_path):
    texts = {"foxes": "the fox and the fox. " * 40, "numbers": "a dog or a dog or. " * 40}
    for name, text in texts.items():
        train(going_on(decoder, text), tmp_path / name)
    base = cutaway.load(decoder / "base")
    ids = torch.tensor([base.tokenizer.encode("the quick fox")])
    plain = base.model(ids)
    for name in texts:
        adapters.load(base, run.named_in(tmp_path / name, "best") / "model", name)
    assert lora.names(base.model) == list(texts)
    for name in texts:
        lora.use(base.model, name)
        assert torch.equal(base.model(ids), cutaway.load(tmp_path / name).model(ids))
        assert not torch.allclose(base.model(ids), plain, atol=1e-3)
    lora.use(base.model, None)
    assert torch.equal(base.model(ids), plain)


def test_a_base_that_changed_is_noticed(decoder, tmp_path):
    shutil.copytree(decoder / "base", tmp_path / "base")
    chosen = going_on(decoder, model__source=tmp_path / "base")
    with pytest.raises(InterruptedError):
        train(chosen, tmp_path / "run", watch=Stop(3))
    loaded = cutaway.load(tmp_path / "base")
    loaded.model.stack.blocks[0].attention.inner.q.weight.data[0, 0] += 0.01
    cutaway.save(loaded, run.named_in(tmp_path / "base", "best") / "model", overwrite=True)
    with pytest.raises(TrainingError, match="has changed since the run began"):
        train(chosen, tmp_path / "run")


def test_what_cannot_be_is_said(decoder, encoder, reviews, finished):
    with pytest.raises(TrainingError, match=r"give --model.source SOURCE, or leave out lora.rank"):
        prepare(settings({"data.path": str(decoder / "text.txt"), "model.preset": "gpt2", "model.width": "16",
                          "model.layers": "1", "model.heads": "2", "lora.rank": "2"}, Recipe()))  # fmt: skip
    with pytest.raises(TrainingError, match=r"leave one of them out"):
        prepare(recipe_for(str(encoder), "classification", [str(reviews)], {"lora.rank": "2", "task.frozen": "true"}))
    with pytest.raises(TrainingError, match=rf"cutaway convert {finished} FOLDER"):
        prepare(recipe_for(str(finished), "classification", [str(reviews)], {"lora.rank": "2"}))
    with pytest.raises(ConfigError, match=r"no matrix here is called w; there are .*down"):
        prepare(going_on(decoder, lora__targets="w"))
    with pytest.raises(TrainingError, match=r"lora.rank cannot be 0"):
        going_on(decoder, lora__rank=0)


def test_every_command_takes_the_run_and_the_adapter(decoder, tmp_path, capsys):
    train(going_on(decoder, loop__steps=40), tmp_path / "run")
    said = []
    beside = ["--adapter", str(run.named_in(tmp_path / "run", "best") / "model")]
    for source in ([str(tmp_path / "run")], [str(decoder / "base"), *beside], [str(decoder / "base")]):
        assert main(["generate", source[0], "the ", "--max-new-tokens", "8", *source[1:]]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]
    assert main(["verify", str(tmp_path / "run")]) == 0
    assert main(["convert", str(decoder / "base"), str(tmp_path / "merged"), *beside]) == 0
    capsys.readouterr()
    assert main(["generate", str(tmp_path / "merged"), "the ", "--max-new-tokens", "8"]) == 0
    assert capsys.readouterr().out == said[0]

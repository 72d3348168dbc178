"""Perplexity beside the strided loop that transformers documents; every token asked for once; bits of bytes; from the shell."""

import json
import math

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from tests.training.tasks.conftest import write_tokenizer
from transformers import AutoModelForCausalLM

import cutaway
from cutaway import text
from cutaway.cli import main
from cutaway.training.data import characters
from cutaway.training.errors import DataError, TrainingError
from cutaway.training.metrics.perplexity import perplexity, windows
from cutaway.training.recipe import Recipe
from cutaway.training.runner import train
from cutaway.training.toml import settings

TEXT = "the quick brown fox jumps over the lazy dog; é and ü and 猫. " * 9


@hypothesis.given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 20))
def test_each_token_is_asked_for_once_with_enough_before_it(count, length, stride):
    stride = min(stride, length)
    asked = [(begin, target) for begin, first, end in windows(count, length, stride) for target in range(first, end)]
    assert [target for _, target in asked] == list(range(1, count))
    for begin, target in asked:
        assert length >= target - begin >= min(target, length - stride + 1)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A GPT-2 of random, peaked weights that reads characters, without a token that begins a text."""
    folder = tmp_path_factory.mktemp("decoder")
    tokenizer = characters([TEXT])
    model = cutaway.build("gpt2", vocab=tokenizer.vocab_size, width=32, layers=2, heads=2, context=64, seed=1)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4)
    cutaway.save(model, folder / "model", tokenizer=tokenizer)
    return folder / "model"


def documented(model, ids, max_length, stride):
    """The page on perplexity of transformers' documentation: exactly, how many tokens that was, and as it is written there.

    There the mean of each window, the first aside, is weighted by one token less than it has.
    """
    total, count, mean_total, mean_count, before = 0.0, 0, 0.0, 0, 0
    for begin in range(0, ids.shape[1], stride):
        end = min(begin + max_length, ids.shape[1])
        given = ids[:, begin:end]
        target = given.clone()
        target[:, : -(end - before)] = -100
        with torch.no_grad():
            out = model(given, labels=target)
        seen = int((target != -100).sum()) - 1
        mean_total, mean_count = mean_total + float(out.loss) * seen, mean_count + seen
        losses = torch.nn.functional.cross_entropy(out.logits[0, :-1].float(), target[0, 1:], reduction="none")
        total, count = total + float(losses.sum()), count + int((target[0, 1:] != -100).sum())
        before = end
        if end == ids.shape[1]:
            return math.exp(total / count), count, math.exp(mean_total / mean_count)
    raise AssertionError


@pytest.mark.parametrize(("length", "stride"), [(63, 32), (63, 1), (20, 7), (63, 60)])
def test_it_is_what_transformers_documents(decoder, length, stride):
    loaded = cutaway.load(decoder)
    theirs = AutoModelForCausalLM.from_pretrained(decoder).eval()
    ids = torch.tensor([loaded.tokenizer.encode(TEXT)])
    found = perplexity(loaded.model, loaded.tokenizer, [(TEXT, True)], length=length, stride=stride, rows=3)
    expected, count, _ = documented(theirs, ids, length + 1, stride)
    assert found["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert found["tokens"] == count == ids.shape[1] - 1
    bits = math.log2(expected) * count + math.log2(loaded.model.vocab)
    assert found["bits_per_byte"] == pytest.approx(bits / len(TEXT.encode()), rel=1e-5)
    assert found["bytes"] == len(TEXT.encode()) > len(TEXT)


@pytest.mark.slow
def test_smollm2_foresees_shakespeare_as_in_transformers(smollm2, data, tmp_path):
    text = (data / "tinyshakespeare.txt").read_text()[:2400]
    (tmp_path / "text.txt").write_text(text)
    found = cutaway.evaluate(smollm2, data=str(tmp_path / "text.txt"), length=255, stride=128)
    theirs = AutoModelForCausalLM.from_pretrained(cutaway.convert(smollm2, tmp_path / "model", dtype="float32")).eval()
    ids = torch.tensor([cutaway.load(smollm2).tokenizer.encode(text)])
    exact, count, as_written = documented(theirs, ids, 256, 128)
    assert found["tokens"] == count > 600
    assert found["perplexity"] == pytest.approx(exact, rel=1e-5)
    assert found["perplexity"] == pytest.approx(as_written, rel=5e-3)


def test_documents_do_not_see_each_other(decoder):
    loaded = cutaway.load(decoder)
    texts = [TEXT[:100], TEXT[100:130], "q", TEXT[7:90]]
    each = [perplexity(loaded.model, loaded.tokenizer, [(one, True)], length=30) for one in texts if len(one) > 1]
    found = perplexity(loaded.model, loaded.tokenizer, [(one, True) for one in texts], length=30, rows=4)
    assert found["documents"] == 4
    assert found["tokens"] == sum(one["tokens"] for one in each)
    assert found["loss"] * found["tokens"] == pytest.approx(sum(one["loss"] * one["tokens"] for one in each), rel=1e-5)
    pieces = perplexity(loaded.model, loaded.tokenizer, [(TEXT[:50], False), (TEXT[50:], True)], length=30)
    assert pieces == perplexity(loaded.model, loaded.tokenizer, [(TEXT, True)], length=30)


def test_a_token_that_begins_a_text_asks_for_the_first_one(tmp_path):
    vocab = write_tokenizer(tmp_path / "words")
    model = cutaway.build("gpt2", vocab=vocab, width=32, layers=1, heads=2, context=64, seed=1)
    words = text.from_directory(tmp_path / "words")
    words._roles.suffix.clear()  # [CLS] before a text, and nothing after it
    found = perplexity(model, words, [("a film", True)])
    ids = words.encode("a film")
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0].log_softmax(-1)
    expected = -sum(float(logits[i, token]) for i, token in enumerate(ids[1:]))
    assert found["tokens"] == len(ids) - 1 == 2
    assert found["loss"] * 2 == pytest.approx(expected, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(expected / math.log(2) / 6, rel=1e-5)


def test_from_the_shell(tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"body": TEXT[i : i + 30]}) + "\n" for i in range(0, 200, 30)))
    given = {"data.path": str(file), "data.tokenizer": "char", "data.length": "16", "model.preset": "llama",
             "model.width": "32", "model.layers": "1", "model.heads": "2", "model.kv_heads": "2", "model.hidden": "64",
             "loop.steps": "30", "optimizer.rate": "0.01", "schedule.warmup": "2", "watch.curves": "false"}  # fmt: skip
    train(settings(given, Recipe()), tmp_path / "run")
    assert main(["eval", str(tmp_path / "run"), "--data", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["length"], found["stride"], found["documents"]) == (16, 8, 1)
    assert 1 < found["perplexity"] < 20
    assert found == cutaway.evaluate(tmp_path / "run", data=str(file))
    more = ["--task.text", "body", "--data.length", "12", "--task.stride", "12"]
    assert main(["eval", str(tmp_path / "run"), "--data", str(lines), *more]) == 0
    said = capsys.readouterr().out
    assert "perplexity" in said


def test_what_cannot_be_is_said(decoder, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    with pytest.raises(TrainingError, match="a stride of 9 leaves out tokens"):
        cutaway.evaluate(decoder, data=str(file), length=8, stride=9)
    with pytest.raises(TrainingError, match="64 positions"):
        cutaway.evaluate(decoder, data=str(file), length=65)
    with pytest.raises(TrainingError, match="no option beams"):
        cutaway.evaluate(decoder, data=str(file), beams=2)
    write_tokenizer(tmp_path / "words")
    model = cutaway.build("bert-tiny", vocab=200, width=32, layers=1, heads=2, hidden=64, context=64)
    cutaway.save(model, tmp_path / "bert", tokenizer=text.from_directory(tmp_path / "words"))
    with pytest.raises(TrainingError, match=r"has no perplexity: say which task"):
        cutaway.evaluate(tmp_path / "bert", data=str(file))
    (tmp_path / "short.txt").write_text("t")
    with pytest.raises(DataError, match="one token at most"):
        cutaway.evaluate(decoder, data=str(tmp_path / "short.txt"))

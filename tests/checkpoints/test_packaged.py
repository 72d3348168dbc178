"""The two packaged models written as folders that other libraries load, with the same answers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers as hf

import cutaway
from cutaway.cli.sources import vectors_of
from cutaway.errors import CheckpointError, ConfigError

LONG = ["word " * 200 + "cat. " * 100, "A cat sits on the mat. " * 100, "short"]  # above 256 tokens, above 512


@pytest.mark.parametrize("normalise", [True, False])
def test_long_texts_are_cut_as_sentence_transformers_does(minilm: Path, tmp_path: Path, normalise: bool) -> None:
    """At `max_seq_length`; and vectors have length 1 only where a Normalize module makes them so."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    shutil.copytree(minilm, tmp_path / "theirs")
    if not normalise:
        modules = json.loads((minilm / "modules.json").read_text())[:2]
        (tmp_path / "theirs" / "modules.json").write_text(json.dumps(modules))
    expected = sentence_transformers.SentenceTransformer(str(tmp_path / "theirs"), device="cpu").encode(
        LONG, convert_to_tensor=True
    )
    assert bool((expected.norm(dim=-1) - 1).abs().max() < 1e-5) is normalise
    cutaway.convert(tmp_path / "theirs", tmp_path / "hf")
    cutaway.convert(tmp_path / "theirs", tmp_path / "own", layout="cutaway")
    for folder in ("theirs", "hf", "own"):
        loaded = cutaway.load(tmp_path / folder)
        assert (loaded.tokenizer.max_length, loaded.sizes.normalise) == (256, normalise)
        assert float((vectors_of(loaded, LONG) - expected).abs().max()) < 1e-5
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "hf"), device="cpu")
    assert float((again.encode(LONG, convert_to_tensor=True) - expected).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["Transformer", "Pooling", "Dense", "Normalize"], "chains Transformer, Pooling, Dense, Normalize; only"),
        (["Transformer", "Normalize"], "chains Transformer, Normalize; only"),
        ({"0": "Transformer"}, "no list of modules"),
        ([1], "no list of modules"),
    ],
)
def test_other_chains_of_modules(modules: list | dict, message: str, tmp_path: Path) -> None:
    cutaway.save(cutaway.build("bert", head="mean", vocab=20, width=8, layers=1, heads=2), tmp_path / "st")
    entries = [{"type": f"x.y.{kind}"} if isinstance(kind, str) else kind for kind in modules]
    (tmp_path / "st" / "modules.json").write_text(json.dumps(entries if isinstance(modules, list) else modules))
    with pytest.raises((ConfigError, CheckpointError), match=rf"modules\.json.*{message}"):
        cutaway.load(tmp_path / "st")


@pytest.mark.slow
def test_smollm2_for_the_reference(smollm2: Path, tmp_path: Path) -> None:
    """From GGUF to a folder: the same logits, the same ids, the same settings for generation."""
    loaded = cutaway.load(smollm2)
    cutaway.save(loaded, tmp_path / "hf")
    model = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "hf")
    chat = [{"role": "user", "content": "Why is the sky blue?"}]
    ids = loaded.tokenizer.encode_chat(chat)
    assert tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True)["input_ids"] == ids
    with torch.no_grad():
        ours, theirs = loaded.model(torch.tensor([ids])), model(torch.tensor([ids])).logits
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5
    assert model.generation_config.eos_token_id == 2
    again = cutaway.load(tmp_path / "hf")
    assert again.tokenizer.encode_chat(chat) == ids
    mine, theirs = dict(loaded.model.named_parameters()), dict(again.model.named_parameters())
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_minilm_for_sentence_transformers(minilm: Path, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    loaded = cutaway.load(minilm)
    cutaway.save(loaded, tmp_path / "st")
    texts = ["A cat sits on the mat.", "Stocks fell."]
    ids, padding = loaded.tokenizer.encode_batch(texts)
    with torch.no_grad():
        ours = loaded.model(ids, padding)
    for folder in (minilm, tmp_path / "st"):
        model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
        theirs = model.encode(texts, convert_to_tensor=True)
        assert float((ours - theirs).abs().max()) < 1e-6
    assert cutaway.load(tmp_path / "st").sizes == replace(loaded.sizes, pooler=False)  # no part of the embedding

"""The two packaged models written as folders that other libraries load, with the same answers."""

from pathlib import Path

import pytest
import torch
import transformers as hf

import cutaway


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
    assert cutaway.load(tmp_path / "st").sizes == loaded.sizes

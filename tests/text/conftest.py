"""Small tokenizers of every kind, trained here."""

from pathlib import Path

import pytest
from tests.text.samples import CORPUS, train_sentencepiece


@pytest.fixture(scope="session")
def llama_model() -> bytes:
    """As LLaMA's: bpe, no normalisation, bytes for unknown characters."""
    return train_sentencepiece(
        "bpe",
        vocab_size=620,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.98,
        split_digits=True,
        allow_whitespace_only_pieces=True,
    )


@pytest.fixture(scope="session")
def t5_model() -> bytes:
    """As T5's: unigram, nmt_nfkc, pad 0, end 1, unknown 2."""
    return train_sentencepiece("unigram", vocab_size=400, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory) -> Path:
    """A folder with the `vocab.json` and `merges.txt` of a GPT-2-like tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    folder = tmp_path_factory.mktemp("byte_level")
    tokenizer.model.save(str(folder))
    return folder


@pytest.fixture(scope="session")
def smollm2_fields(smollm2: Path) -> dict:
    """The tokenizer fields inside SmolLM2's GGUF."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(smollm2)
    return {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}

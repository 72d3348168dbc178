"""Two small models on disk, as somebody might have them: a chat model of the LLaMA family, and a BERT encoder."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import cutaway

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tokenizer(folder: Path, template: str | None) -> int:
    """A byte-level BPE tokenizer of a few hundred tokens; returns how many."""
    special = ["<|im_start|>", "<|im_end|>"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(["the cat sat on the mat and the dog sat on the log"] * 4, trainer)
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return made.get_vocab_size()


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model that says nonsense."""
    folder = tmp_path_factory.mktemp("talker")
    vocab = write_tokenizer(folder, TEMPLATE)
    model = cutaway.build(
        "llama", vocab=vocab, width=32, layers=2, heads=4, kv_heads=2, hidden=48, head_width=8, context=256, seed=1
    )
    cutaway.save(model, folder / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(folder / "model" / name)
    return folder / "model"


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a head."""
    folder = tmp_path_factory.mktemp("reader")
    vocab = write_tokenizer(folder, None)
    cutaway.save(cutaway.build("bert-tiny", vocab=vocab, seed=1), folder / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(folder / "model" / name)
    return folder / "model"

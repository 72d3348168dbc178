"""A small encoder with words of its own, and texts whose class a word tells."""

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import cutaway
from cutaway import text
from cutaway.training.runner import train
from cutaway.training.tuning import recipe_for
from cutaway.training.watch import Watch

WORDS = "the a film play story actor scene song was is had and with very quite rather long short old new".split()
GOOD, BAD = "good fine lovely moving".split(), "bad dull awful boring".split()


def write_tokenizer(folder: Path, more: str = "") -> int:
    """WordPiece with lower case, as BERT's."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=specials)
    made.train_from_iterator([" ".join(WORDS + GOOD + BAD) + more] * 3, trainer)
    cls, sep = made.token_to_id("[CLS]"), made.token_to_id("[SEP]")
    made.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    roles = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    (folder / "tokenizer_config.json").write_text(
        __import__("json").dumps({"tokenizer_class": "BertTokenizerFast", **roles})
    )
    return made.get_vocab_size()


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """A BERT without a head, of random weights."""
    folder = tmp_path_factory.mktemp("encoder")
    vocab = write_tokenizer(folder / "words")
    model = cutaway.build("bert-tiny", vocab=vocab, width=32, layers=2, heads=2, hidden=64, context=64, seed=1)
    cutaway.save(model, folder / "model", tokenizer=text.from_directory(folder / "words"))
    return folder / "model"


@pytest.fixture(scope="session")
def reviews(tmp_path_factory) -> Path:
    """label<TAB>text, with a line of names; of different lengths."""
    draw = random.Random(0)
    lines = ["label\ttext"]
    for i in range(120):
        words = draw.choices(WORDS, k=draw.randint(2, 24))
        words.insert(draw.randint(0, len(words)), draw.choice(GOOD if i % 2 else BAD))
        lines.append(f"{'good' if i % 2 else 'bad'}\t{' '.join(words)}")
    file = tmp_path_factory.mktemp("reviews") / "reviews.tsv"
    file.write_text("\n".join(lines) + "\n")
    return file


FAST = {"loop.rows": "8", "loop.epochs": "8", "optimizer.rate": "0.003", "watch.curves": "false"}


def tuned(source, task, file, out, **more):
    """A run, with settings such as `loop__epochs="1"`."""
    settings = FAST | {name.replace("__", "."): str(value) for name, value in more.items() if name != "watch"}
    return train(recipe_for(str(source), task, [str(file)], settings), out, watch=more.get("watch"))


class Stop(Watch):
    """Leaves the run after a step, as if the process had died there."""

    def __init__(self, after: int) -> None:
        self.after = after

    def stepped(self, step, seconds):
        if step.number == self.after:
            raise InterruptedError

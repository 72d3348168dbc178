"""Small models with words of their own, and for each task data that a word decides."""

import json
import random
from pathlib import Path

import pytest
from tests.cli.conftest import TEMPLATE
from tests.cli.conftest import write_tokenizer as write_talk
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import cutaway
from cutaway import text
from cutaway.training.runner import train
from cutaway.training.tuning import recipe_for
from cutaway.training.watch import Watch

WORDS = "the a film play story actor scene song was is had and with very quite rather long short old new".split()
GOOD, BAD = "good fine lovely moving".split(), "bad dull awful boring".split()


def write_tokenizer(folder: Path) -> int:
    """WordPiece with lower case, as BERT's."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(set("".join(WORDS + GOOD + BAD)))  # a vocabulary learnt by the library is another in each process
    known = dict.fromkeys([*specials, *letters, *(f"##{c}" for c in letters), *WORDS, *GOOD, *BAD])
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    cls, sep = made.token_to_id("[CLS]"), made.token_to_id("[SEP]")
    made.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    roles = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizerFast", **roles}))
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


NAMES = ["Lovely", "Dull"]


def sentences(count, seed=0):
    draw = random.Random(seed)
    for _ in range(count):
        words = draw.choices(WORDS, k=draw.randint(2, 12))
        tags = ["O"] * len(words)
        at = draw.randrange(len(words))
        words[at : at + 1], tags[at : at + 1] = NAMES, ["B-person", "I-person"]
        yield words, tags


@pytest.fixture(scope="session")
def names(tmp_path_factory):
    file = tmp_path_factory.mktemp("names") / "names.conll"
    blocks = ("\n".join(f"{w}\t{t}" for w, t in zip(*pair, strict=True)) for pair in sentences(80))
    file.write_text("\n\n".join(blocks) + "\n")
    return file


def article(draw, count=4):
    """Questions about what is good."""
    paragraphs = []
    for _ in range(count):
        words = draw.choices(WORDS, k=draw.randint(6, 40))
        at = draw.randrange(len(words))
        words[at] = draw.choice(GOOD)
        begin = len(" ".join(words[:at])) + (at > 0)
        answers = [{"text": words[at], "answer_start": begin}]
        paragraphs.append(
            {"context": " ".join(words), "qas": [{"id": "1", "question": "what is good", "answers": answers}]}
        )
    return {"title": "x", "paragraphs": paragraphs}


@pytest.fixture(scope="session")
def squad(tmp_path_factory):
    draw = random.Random(0)
    file = tmp_path_factory.mktemp("squad") / "squad.json"
    file.write_text(json.dumps({"version": "1.1", "data": [article(draw) for _ in range(20)]}))
    return file


@pytest.fixture(scope="session")
def translator(tmp_path_factory):
    """A small T5 of random weights, whose texts end with [SEP]."""
    folder = tmp_path_factory.mktemp("translator")
    vocab = write_tokenizer(folder / "words")
    file = folder / "words" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": "[SEP]"}))
    sizes = {"width": 32, "layers": 2, "heads": 2, "hidden": 64, "head_width": 16, "dropout": 0.0}
    model = cutaway.build("t5-small", vocab=vocab, seed=1, **sizes)
    cutaway.save(model, folder / "model", tokenizer=text.from_directory(folder / "words"))
    return folder / "model"


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """A sentence that has a good word is to be called good, and else bad."""
    draw = random.Random(0)
    lines = []
    for i in range(80):
        words = draw.choices(WORDS, k=draw.randint(1, 3)) + [draw.choice(GOOD if i % 2 else BAD)]
        lines.append(f"{' '.join(words)}\t{'a good old film' if i % 2 else 'a bad long play'}")
    file = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="session")
def talker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talker")
    vocab = write_talk(folder / "words" if (folder / "words").mkdir() is None else folder, TEMPLATE)
    sizes = {"width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "hidden": 64, "head_width": 8, "context": 128}
    model = cutaway.build("llama", vocab=vocab, seed=1, **sizes)
    cutaway.save(model, folder / "model", tokenizer=text.from_directory(folder / "words"))
    return folder / "model"


@pytest.fixture(scope="session")
def talks(tmp_path_factory):
    file = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    pairs = [("where is the cat", "on the mat"), ("where is the dog", "on the log"), ("who sat", "the cat and the dog")]
    file.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in pairs * 8))
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

"""Tags of words: aligned to sub-words as transformers does, learnt, told as entities, saved as transformers reads them."""

import json

import pytest
import torch
from tests.training.tasks.conftest import tuned

import cutaway
from cutaway.cli import main
from cutaway.training import run
from cutaway.training.batch import IGNORED
from cutaway.training.errors import DataError
from cutaway.training.tasks.tokens import Tokens
from cutaway.training.tuning import evaluate, predict


@pytest.fixture(scope="module")
def finished(encoder, names, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "names"
    tuned(encoder, "tokens", names, folder, loop__epochs=16)
    return folder


def test_it_learns_where_names_are(finished, names):
    scores = evaluate(finished, data=str(names))
    assert scores == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "accuracy": 1.0, "examples": 80}
    text = "the film with Lovely  Dull, an actor"
    (answer,) = predict(finished, [text])
    assert answer["words"] == ["the", "film", "with", "Lovely", "Dull", ",", "an", "actor"]
    (entity,) = answer["entities"]
    assert (entity["label"], entity["text"], entity["start"], entity["end"]) == ("person", "Lovely  Dull", 14, 26)
    assert entity["score"] == pytest.approx(sum(answer["scores"][3:5]) / 2)
    assert predict(finished, [["the", "Lovely", "Dull"], "", "the film"])[0]["tags"] == ["O", "B-person", "I-person"]


def test_transformers_reads_it_with_the_same_numbers(finished):
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    path = run.named_in(finished, "best") / "model"
    theirs = AutoModelForTokenClassification.from_pretrained(path).eval()
    assert theirs.config.id2label == {0: "O", 1: "B-person", 2: "I-person"}
    words = ["the", "Lovely", "Dull", "film"]
    batch = AutoTokenizer.from_pretrained(path)(words, is_split_into_words=True, return_tensors="pt")
    expected = theirs(**batch).logits[0]
    ours = cutaway.load(path).model(batch["input_ids"])[0]
    assert torch.allclose(ours, expected, atol=1e-5)
    (answer,) = predict(path, [words])
    first = [batch.word_ids().index(i) for i in range(4)]
    assert answer["scores"] == pytest.approx(expected.softmax(-1).max(-1).values[first].tolist(), rel=1e-4)


@pytest.mark.parametrize("fast", ["encoder", "minilm"])
def test_labels_stand_where_transformers_puts_words(fast, request):
    """The first sub-word of each word is asked for its tag."""
    from transformers import AutoTokenizer

    folder = request.getfixturevalue(fast)
    tokenizer = cutaway.load(folder).tokenizer
    words = ["Xylophones", "don't", "the", "@paulwalk", "[SEP]", "Zürich", "...", "a-b", "film"]
    task = Tokens(tokenizer, [str(i) for i in range(9)])
    row = task.encode([type("E", (), {"text": words, "answer": [str(i) for i in range(9)]})]).rows[0]
    batch = AutoTokenizer.from_pretrained(folder)(words, is_split_into_words=True)
    ids, their_words = batch["input_ids"], batch.word_ids()
    at = words.index("[SEP]")  # where transformers takes a word of the text for a control token
    before = their_words.index(at)
    assert row.ids[:before] == ids[:before]
    expected = [IGNORED if w is None or w == their_words[i - 1] else w for i, w in enumerate(their_words)]
    assert row.labels[:before] == expected[:before]
    assert [label for label in row.labels if label != IGNORED] == list(range(9))


def test_long_texts_are_read_in_pieces(encoder):
    tokenizer = cutaway.load(encoder).tokenizer
    words = ["film", "Lovely", "the"] * 20
    tags = ["O", "B-x", "O"] * 20
    task = Tokens(tokenizer, ["O", "B-x"], length=12)
    rows = task.encode([type("E", (), {"text": words, "answer": tags})]).rows
    assert len(rows) > 5
    assert all(len(row.ids) <= 12 and row.labels[1] != IGNORED for row in rows)  # no word is cut
    assert [label for row in rows for label in row.labels if label != IGNORED] == [t == "B-x" for t in tags]
    assert [i for row in rows for i in row.ids[1:-1]] == tokenizer.encode(" ".join(words), special=False)
    assert (
        len(
            Tokens(tokenizer, ["O"], length=4).encode([type("E", (), {"text": ["songsongsong"], "answer": ["O"]})]).rows
        )
        > 1
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tokens": ["a"], "tags": ["O", "O"]}, "line 1: 1 words and 2 tags"),
        ({"tokens": [], "tags": []}, "column 'tokens' must be a list"),
        ({"tokens": "a b", "tags": ["O"]}, "column 'tokens' must be a list"),
        ({"tokens": ["a"]}, "has no column 'tags'"),
    ],
)
def test_broken_rows_are_said(encoder, tmp_path, row, said):
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=said):
        tuned(encoder, "tokens", file, tmp_path / "run")


def test_from_the_shell(finished, capsys):
    assert main(["predict", str(finished), "the Lovely Dull film", "the film"]) == 0
    shown = capsys.readouterr().out
    assert "person  Lovely Dull" in shown
    assert "nothing" in shown

"""Text files, character by character and byte by byte, against what nanoGPT's recipe does with the same file."""

import numpy as np
import pytest

import cutaway.text
from cutaway.training.data import characters, examples, octets, tokenise
from cutaway.training.data.readers import PIECE
from cutaway.training.errors import DataError


def test_shakespeare_by_characters_is_what_everybody_trains_on(data):
    file = data / "tinyshakespeare.txt"
    text = file.read_text(encoding="utf-8")
    source = examples(file)
    tokenizer = characters(text for (text,), _ in source.texts())
    train, valid = tokenise(source, tokenizer).split(0.1)
    known = {character: index for index, character in enumerate(sorted(set(text)))}
    assert len(known) == 65
    cut = int(0.9 * len(text))
    assert train.read(0, len(train)).tolist() == [known[c] for c in text[:cut]]
    assert valid.read(0, len(valid)).tolist() == [known[c] for c in text[cut:]]


@pytest.mark.parametrize("make", [lambda: characters(["héllo\n\t wörld", "日本"]), octets])
def test_a_tokenizer_made_here_is_saved_and_read_back(make, tmp_path):
    made = make()
    made.save(tmp_path)
    read = cutaway.text.from_directory(tmp_path)
    for text in ("wörld", " \n\nhé", "日本\t", ""):
        assert read.encode(text) == made.encode(text)
        assert read.decode(read.encode(text)) == text
    assert read.vocab_size == made.vocab_size
    assert read.unk_id == made.unk_id


def test_bytes_are_the_bytes():
    text = "a\x00é <unk>\r\n日"
    assert octets().encode(text) == list(text.encode())


def test_an_unknown_character_is_not_lost():
    tokenizer = characters(["abc"])
    assert tokenizer.encode("aXb") == [0, tokenizer.unk_id, 1]


def test_a_long_text_is_one_document_in_pieces(tmp_path):
    file = tmp_path / "long.txt"
    file.write_text("one line of text\n\n  indented\n" * (3 * PIECE // 29))
    pieces = [text for (text,), _ in examples(file).texts()]
    assert len(pieces) > 2
    assert "".join(pieces) == file.read_text()
    assert all(piece.endswith("\n") and not piece[0].isspace() for piece in pieces)
    tokens = tokenise(examples(file), octets())
    assert tokens.ends.tolist() == [len(tokens)] == [file.stat().st_size]


def test_a_split_keeps_the_ends_of_the_texts(tmp_path):
    (tmp_path / "lines.txt").write_text("abc\nde\n\nfghij\n")
    tokens = tokenise(examples(tmp_path, document="line"), octets())
    assert tokens.ends.tolist() == [3, 5, 10]
    train, valid = tokens.split(0.4)
    assert (train.ends.tolist(), valid.ends.tolist()) == ([3, 5, 6], [4])
    assert bytes(np.concatenate([train.read(0, 6), valid.read(0, 4)]).astype(np.uint8)) == b"abcdefghij"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad.txt is empty"),
        (b" \n\n", "bad.txt is empty"),
        (b"fine\nbroken \xff\n", "bad.txt, line 2: byte 8 of the line is not UTF-8"),
        ("text".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, message):
    (tmp_path / "bad.txt").write_bytes(content)
    for document in ("file", "line"):
        with pytest.raises(DataError, match=message):
            tokenise(examples(tmp_path / "bad.txt", document=document), octets())

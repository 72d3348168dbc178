"""Tokenizers learnt from real texts: saved and read back identically, by `transformers` too, and what they promise."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cutaway
import cutaway.text
from cutaway.training import train
from cutaway.training.data import examples, learn
from cutaway.training.errors import DataError, TrainingError
from cutaway.training.recipe import read

LEARNT = ["bpe", "wordpiece", "unigram"]
STRANGE = ["", " ", "  two  spaces\n\n\n", "½ naïve 日本 🙂\r\n\t", "</s> [SEP] <mask>", "a" * 300, "\ud800"]


@pytest.fixture(scope="module")
def shakespeare(data):
    return examples(data / "tinyshakespeare.txt")


@pytest.fixture(scope="module")
def made(shakespeare):
    return {kind: learn(kind, (t for (t,), _ in shakespeare.texts()), 1000) for kind in LEARNT}


@pytest.mark.parametrize("kind", LEARNT)
def test_saved_and_read_back_it_is_the_same(kind, made, shakespeare, tmp_path):
    import transformers

    tokenizer = made[kind]
    assert tokenizer.vocab_size == 1000
    tokenizer.save(tmp_path)
    read, theirs = cutaway.text.from_directory(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    ((text,), _) = next(shakespeare.texts())
    for piece in [text[:20_000], *STRANGE]:
        ids = tokenizer.encode(piece)
        assert read.encode(piece) == ids
        assert read.decode(ids) == tokenizer.decode(ids)
        if piece != STRANGE[-1]:
            assert theirs(piece).input_ids == ids
    for role in ("bos_id", "eos_id", "pad_id", "unk_id", "mask_id", "vocab_size", "special_ids"):
        assert getattr(read, role) == getattr(tokenizer, role)
    read.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_byte_pairs_keep_any_text(made, text):
    tokenizer = made["bpe"]
    assert tokenizer.decode(tokenizer.encode(text, parse_special=False)) == text


@given(st.text(" \nabcXYZ,.;!?'", max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_unigram_model_keeps_text_of_known_characters(made, text):
    tokenizer = made["unigram"]
    assert tokenizer.decode(tokenizer.encode(text, parse_special=False)) == text


def test_the_most_frequent_pair_is_merged_first(made, shakespeare):
    """By counting, over the words as the tokenizer's own first step cuts them."""
    from collections import Counter

    document = json.loads(made["bpe"]._engine.to_json([], []))
    words = Counter()
    for (text,), _ in shakespeare.texts():
        words.update(word for word, _ in made["bpe"]._engine._rust.pre_tokenizer.pre_tokenize_str(text))
    words = {tuple(word): count for word, count in words.items()}
    for merge in document["model"]["merges"][:30]:
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        assert pairs[tuple(merge)] == max(pairs.values())
        words = _summed(words, tuple(merge))


def _merged(word, pair):
    out, at = [], 0
    while at < len(word):
        step = 2 if word[at : at + 2] == pair else 1
        out.append("".join(word[at : at + step]))
        at += step
    return tuple(out)


def _summed(words, pair):
    summed = {}
    for word, count in words.items():
        new = _merged(word, pair)
        summed[new] = summed.get(new, 0) + count
    return summed


def test_byte_pairs_are_the_same_each_time(made, shakespeare):
    again = learn("bpe", (t for (t,), _ in shakespeare.texts()), 1000)
    assert again._engine.to_json([], []) == made["bpe"]._engine.to_json([], [])


def test_what_stands_around_texts(made):
    bert, t5, gpt = made["wordpiece"], made["unigram"], made["bpe"]
    assert bert.tokens(bert.encode("the king"))[0] == "[CLS]"
    assert bert.tokens(bert.encode("the king"))[-1] == "[SEP]"
    assert t5.encode("the king")[-1] == t5.eos_id
    assert gpt.encode("the king") == gpt.encode("the king", special=False)


@pytest.mark.parametrize("kind", LEARNT)
def test_further_control_tokens_are_one_id_each(kind, shakespeare):
    marks = [f"<extra_id_{n}>" for n in range(10)]
    tokenizer = learn(kind, (t for (t,), _ in shakespeare.texts()), 500, special=marks)
    assert all(len(tokenizer.encode(mark, special=False)) == 1 for mark in marks)
    assert len({tokenizer.encode(mark, special=False)[0] for mark in marks}) == 10
    assert len(tokenizer.encode(marks[0], special=False, parse_special=False)) > 1


def test_lowercase_is_asked_for():
    texts = ["The King and the Queen, é"] * 5
    lower = learn("wordpiece", texts, 60, lowercase=True)
    assert lower.encode("KING é") == lower.encode("king e")
    cased = learn("wordpiece", texts, 60)
    assert cased.encode("King") != cased.encode("king")


@pytest.mark.parametrize("kind", LEARNT)
def test_what_cannot_be_learnt_is_said(kind, tmp_path):
    for texts in ([], [""]):
        with pytest.raises(DataError, match=r"not one character|no vocabulary"):
            learn(kind, texts, 1000)
    with pytest.raises(DataError, match=r"no room|too small|not large enough"):
        learn(kind, ["some text with a few letters: ½"] * 3, 6)
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n' * 3 + "broken\n")
    with pytest.raises(DataError, match=r"bad\.jsonl, line 4"):
        learn(kind, (t for (t,), _ in examples(tmp_path).texts()), 1000)


def test_no_such_kind():
    with pytest.raises(DataError, match="there are char, byte, bpe, wordpiece, unigram"):
        learn("sentencepiece", ["a"])


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_a_run_goes_on_with_the_tokenizer_that_it_learnt(kind, tmp_path):
    """Learnt twice, word pieces and unigrams come out in another order: a run that did would find other data."""
    (tmp_path / "text.txt").write_text(
        "\n".join(f"the {a} sat on the {b} and ate it" for a in "abcdef" for b in "ghijkl")
    )
    recipe = {
        "data": {"path": [str(tmp_path / "text.txt")], "tokenizer": f"{kind}:290", "length": 16},
        "model": {"preset": "gpt2", "width": 16, "layers": 1, "heads": 2},
        "loop": {"steps": 2, "rows": 2},
        "watch": {"curves": False},
    }
    train(read(recipe), tmp_path / "run")
    assert train(None, tmp_path / "run").step == 2
    saved = cutaway.load(tmp_path / "run")
    assert saved.model.stack.embedding.tokens.num_embeddings == saved.tokenizer.vocab_size
    assert saved.tokenizer.decode(saved.tokenizer.encode("the a sat")).strip().startswith("the")


def test_a_size_is_a_number(tmp_path):
    (tmp_path / "text.txt").write_text("some text")
    recipe = {"data": {"path": [str(tmp_path / "text.txt")], "tokenizer": "bpe:x"}, "model": {"preset": "gpt2"}}
    with pytest.raises(TrainingError, match="how many tokens it may have, not 'x'"):
        train(read(recipe), tmp_path / "run")

"""Ids identical to the libraries that define them: transformers, tokenizers, sentencepiece, tiktoken."""

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.text.samples import NASTY, random_texts, write

from cutaway import text
from cutaway.text.rust import byte_table

TEXTS = NASTY + random_texts(300)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SHARED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reference(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def different(ours, theirs, texts=TEXTS):
    return [t for t in texts if list(ours(t)) != list(theirs(t))]


def test_wordpiece_files_agree_with_each_other_and_with_transformers(minilm, tmp_path):
    folder = write(tmp_path / "txt", {n: (minilm / n).read_bytes() for n in ("vocab.txt", "tokenizer_config.json")})
    ours, plain, theirs = text.from_directory(minilm), text.from_directory(folder), reference(minilm)
    assert not different(ours.encode, theirs.encode)
    assert not different(plain.encode, theirs.encode)
    assert len(ours.encode("word " * 1000)) == 1002  # the file's own truncation to 128 is not applied
    ids = ours.encode("Don't panic, it's fine. [MASK] !")
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(("lower", "accents"), [(True, None), (False, None), (False, True), (True, False)])
def test_wordpiece_casing(minilm, tmp_path, lower, accents):
    config = {"do_lower_case": lower, "strip_accents": accents, "tokenizer_class": "BertTokenizer"}
    folder = write(tmp_path, {"vocab.txt": (minilm / "vocab.txt").read_bytes(), "tokenizer_config.json": config})
    assert not different(text.from_directory(folder).encode, reference(folder).encode)
    stripped = text.from_directory(folder).encode("é") == text.from_directory(folder).encode("e")
    assert stripped == (lower if accents is None else accents)


@pytest.mark.parametrize("config", [{}, {"add_prefix_space": True}, {"add_bos_token": True}])
def test_byte_level_files(byte_level, tmp_path, config):
    files = {name: (byte_level / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    config = {"tokenizer_class": "GPT2Tokenizer", **names, **config}
    folder = write(tmp_path, files | {"tokenizer_config.json": config})
    ours, theirs = text.from_directory(folder), reference(folder)
    texts = [t + "<|endoftext|> " + t for t in TEXTS if t] + TEXTS  # BOS at the start: see test_tokenizer.py
    assert not different(ours.encode, theirs.encode, texts)
    again = lambda t: theirs.decode(theirs.encode(t), skip_special_tokens=True)
    assert not different(lambda t: ours.decode(ours.encode(t)), again, texts)


# The digits are cut out first, so that the spaces before one end their piece of text.
SMOLLM = r"\p{N}|\s+(?=\p{N})|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def tiktoken_of(tokens, special, pattern):
    import tiktoken

    table = byte_table()
    ranks = {bytes(table[c] for c in t): i for i, t in enumerate(tokens) if t not in special}
    return tiktoken.Encoding("test", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


@pytest.mark.parametrize(
    ("pre", "pattern"),
    [("smollm", SMOLLM), ("gpt-2", GPT2), ("default", GPT2), ("llama-bpe", LLAMA3), ("qwen2", QWEN2)],
)
def test_gguf_byte_level_against_tiktoken(smollm2_fields, pre, pattern):
    """SmolLM2's real vocabulary, cut by an independent implementation, with each way to find words."""
    import unicodedata

    tokens = smollm2_fields["tokenizer.ggml.tokens"]
    kinds = smollm2_fields["tokenizer.ggml.token_type"]
    special = {t: i for i, (t, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == 3}
    oracle = tiktoken_of(tokens, special, pattern)
    ours = text.from_gguf(smollm2_fields | {"tokenizer.ggml.pre": pre})
    normal = (lambda t: unicodedata.normalize("NFC", t)) if pre == "qwen2" else (lambda t: t)
    smollm2_lacks = {b for b in range(256) if bytes([b]) not in oracle._mergeable_ranks}
    texts = [t for t in TEXTS if not smollm2_lacks & set(normal(t).encode())]
    assert len(texts) > 250
    expected = lambda t: oracle.encode(normal(t), allowed_special="all")
    assert not different(lambda t: ours.encode(t, special=False), expected, texts)


def test_smollm2_agrees_with_transformers_on_its_gguf(smollm2, smollm2_fields):
    """Transformers reads the same file but takes the GPT-2 way to find words, hence texts without digits."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    ours = text.from_gguf(smollm2_fields)
    texts = [t for t in TEXTS if not any(c.isnumeric() for c in t)]
    assert not different(ours.encode, lambda t: theirs.encode(t, add_special_tokens=False), texts)


@pytest.fixture(scope="session")
def gguf_llama(llama_model):
    """The fields that llama.cpp's converter writes for a sentencepiece model."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=llama_model)
    ids = range(sp.get_piece_size())
    kind = lambda i: 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [sp.id_to_piece(i) for i in ids],
        "tokenizer.ggml.scores": [sp.get_score(i) for i in ids],
        "tokenizer.ggml.token_type": [kind(i) for i in ids],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def test_gguf_sentencepiece(gguf_llama, llama_model):
    sp = sentencepiece.SentencePieceProcessor(model_proto=llama_model)
    ours = text.from_gguf(gguf_llama)
    assert not different(ours.encode, lambda t: [1, *sp.encode(t)])
    assert not different(lambda t: ours.decode(ours.encode(t)), lambda t: sp.decode(sp.encode(t)))
    bare = text.from_gguf(
        gguf_llama | {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False}
    )
    assert bare.encode("banana") == sp.encode(" banana")[2:] or bare.decode(bare.encode("banana")) == "banana"
    assert bare.tokens(bare.encode("banana"))[0][0] != "▁"


def test_sentencepiece_files(llama_model, t5_model, tmp_path):
    for name, model, start, end in (("tokenizer.model", llama_model, [1], []), ("spiece.model", t5_model, [], [1])):
        sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        ours = text.from_directory(write(tmp_path / name, {name: model}))
        assert not different(ours.encode, lambda t, sp=sp, start=start, end=end: [*start, *sp.encode(t), *end])


def test_t5_sentinels(t5_model, tmp_path):
    folder = write(tmp_path, {"spiece.model": t5_model, "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer"}})
    ours, theirs = text.from_directory(folder), reference(folder)
    size = sentencepiece.SentencePieceProcessor(model_proto=t5_model).get_piece_size()
    assert ours.encode("<extra_id_0>", special=False) == [size + 99]
    assert ours.encode("<extra_id_99>", special=False) == [size]
    assert ours.vocab_size == len(theirs) == size + 100
    texts = [
        "The <extra_id_0> walks in <extra_id_1> park</s>",
        "<extra_id_0>the<extra_id_1> the <extra_id_2>",
        "a<pad>b <unk> c",
    ]
    assert not different(ours.encode, theirs.encode, texts)


@pytest.mark.parametrize("legacy", [True, False])
def test_llama_spaces_after_control_tokens(llama_model, tmp_path, legacy):
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>", "eos_token": "</s>"}
    folder = write(
        tmp_path, {"tokenizer.model": llama_model, "tokenizer_config.json": config | {"add_bos_token": True}}
    )
    ours, theirs = text.from_directory(folder), reference(folder)
    texts = ["the dog</s>the dog", "</s>the <unk>the", "the quick</s>\nthe", "<unk>the", "the</s>"]
    # Sentencepiece doubles a space that is already there, as the models were trained; transformers 5 does not.
    texts += [] if legacy else ["the</s> the"]
    assert not different(ours.encode, theirs.encode, texts)
    assert ours.encode("the</s>the") == ([1, *ours.encode("the", False), 2, *(ours.encode("the", False))]) or not legacy


@pytest.fixture(scope="session")
def pairs(llama_model, t5_model, gguf_llama, byte_level, tmp_path_factory):
    """Pairs (ours, the reference), of any text."""
    from transformers import GPT2Tokenizer

    llama = sentencepiece.SentencePieceProcessor(model_proto=llama_model)
    t5 = sentencepiece.SentencePieceProcessor(model_proto=t5_model)
    ours_t5 = text.from_directory(write(tmp_path_factory.mktemp("t5"), {"spiece.model": t5_model}))
    ours_llama, ours_gpt2, gpt2 = (
        text.from_gguf(gguf_llama),
        text.from_directory(byte_level),
        GPT2Tokenizer.from_pretrained(byte_level),
    )
    return [
        (lambda t: ours_t5.encode(t, parse_special=False), lambda t: [*t5.encode(t), 1]),
        (lambda t: ours_llama.encode(t, parse_special=False), lambda t: [1, *llama.encode(t)]),
        (
            lambda t: ours_llama.decode(ours_llama.encode(t, parse_special=False)),
            lambda t: llama.decode(llama.encode(t)),
        ),
        (ours_gpt2.encode, gpt2.encode),
        (lambda t: ours_gpt2.decode(ours_gpt2.encode(t)), lambda t: t),
    ]


@SHARED
@given(ANY_TEXT)
def test_any_text(pairs, content):
    for ours, theirs in pairs:
        assert ours(content) == theirs(content)


@pytest.mark.parametrize("length", [1_000_000])
def test_very_long_text(llama_model, t5_model, minilm, smollm2_fields, tmp_path, length):
    long = ("The quick brown fox, 12 dogs 😀. " * (length // 30))[:length]
    llama = sentencepiece.SentencePieceProcessor(model_proto=llama_model)
    ours = text.from_directory(write(tmp_path / "l", {"tokenizer.model": llama_model}))
    assert ours.encode(long) == [1, *llama.encode(long)]
    assert ours.decode(ours.encode(long)) == long
    small = text.from_gguf(smollm2_fields)
    assert small.decode(small.encode(long)) == long
    assert len(text.from_directory(minilm).encode(long)) > length / 10


def tiny_gguf(tokens, merges, **more):
    fields = {"model": "gpt2", "tokens": tokens, "merges": merges, "token_type": [1] * len(tokens), **more}
    return text.from_gguf({f"tokenizer.ggml.{name}": value for name, value in fields.items()})


@pytest.mark.parametrize(
    ("pre", "digits", "word"),
    [
        ("gpt-2", ["1212"], ["ab", "c"]),
        ("smollm", ["1", "2", "1", "2"], ["ab", "c"]),
        ("llama-bpe", ["12", "1", "2"], ["abc"]),
        ("qwen2", ["1", "2", "1", "2"], ["ab", "c"]),
    ],
)
def test_what_the_kinds_of_words_differ_in(pre, digits, word):
    """Digits: all, one or up to three together. LLaMA 3 takes a whole word of its vocabulary without merging."""
    tokens = ["1", "2", "12", "1212", "a", "b", "c", "ab", "abc"]
    ours = tiny_gguf(tokens, ["1 2", "12 12", "a b"], pre=pre)
    assert ours.tokens(ours.encode("1212", special=False)) == digits
    assert ours.tokens(ours.encode("abc", special=False)) == word


def test_merges_go_by_score_and_not_by_id(tmp_path):
    tokens = ["<unk>", "a", "b", "c", "ab", "bc"]
    scores = {"scores": [0.0, -9.0, -9.0, -9.0, -2.0, -1.0], "token_type": [2, 1, 1, 1, 1, 1]}
    ours = tiny_gguf(tokens, [], model="llama", add_space_prefix=False, **scores)
    ours.save(tmp_path)
    assert ours.tokens(ours.encode("abc")) == ["a", "bc"]
    assert ours.encode("abc") == reference(tmp_path).encode("abc")


def test_spaces_and_broken_bytes_decode_as_sentencepiece_does(gguf_llama, llama_model, t5_model, tmp_path):
    t5, llama = (sentencepiece.SentencePieceProcessor(model_proto=model) for model in (t5_model, llama_model))
    space, word = t5.piece_to_id("▁"), t5.piece_to_id("▁the")
    ours = text.from_directory(write(tmp_path, {"spiece.model": t5_model}))
    assert ours.decode([space, space, word, space, word]) == t5.decode([space, space, word, space, word])
    byte = lambda *values: [llama.piece_to_id(f"<0x{value:02X}>") for value in values]
    ours, word = text.from_gguf(gguf_llama), [llama.piece_to_id("▁the")]
    broken = [byte(0xE2, 0x82), byte(0xE2, 0x82, 0x41), byte(0xF0, 0x9F, 0x98, 0x80, 0xF0, 0x9F), byte(0xFF, 0x80)]
    broken += [byte(0xED, 0xA0, 0x80), byte(0xF4, 0x90, 0x80, 0x80), byte(0xC0, 0xAF)]
    for ids in broken:
        assert ours.decode(word + ids + word) == llama.decode(word + ids + word)
        assert ours.decode(ids) == llama.decode(ids)

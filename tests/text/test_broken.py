"""Broken tokenizer files give one error that names the file; never a panic, a hang or a wrong tokenizer."""

import json
import random

import pytest
from tests.text.samples import write

from cutaway import text
from cutaway.errors import TokenizerError


def refused(folder, match):
    with pytest.raises(TokenizerError, match=match) as caught:
        text.from_directory(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.fixture(scope="session")
def small_json(byte_level, tmp_path_factory):
    """A whole tokenizer.json with every step, small enough to be broken often."""
    folder = tmp_path_factory.mktemp("small")
    tokenizer = text.from_directory(write(folder / "from", {n.name: n.read_bytes() for n in byte_level.iterdir()}))
    tokenizer.save(folder)
    document = json.loads((folder / "tokenizer.json").read_text())
    kept = {t: i for t, i in document["model"]["vocab"].items() if len(t) == 1 or i == 0}
    document["model"] |= {"vocab": kept, "merges": []}
    return document


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "holds no tokenizer"),
        ({"tokenizer.json": b""}, r"tokenizer\.json is broken"),
        ({"tokenizer.json": b'{"model": {"vocab'}, r"tokenizer\.json is broken"),
        ({"tokenizer.json": b"\xff\xfe"}, r"tokenizer\.json is not UTF-8"),
        ({"tokenizer.json": []}, r"tokenizer\.json must hold a JSON object"),
        ({"tokenizer.json": {"model": None}}, r'tokenizer\.json has no "model"'),
        ({"tokenizer.json": {"model": {"type": "BPE", "vocab": 3, "merges": []}}}, r"tokenizer\.json describes no"),
        ({"tokenizer.json": {"model": {"type": "X"}}}, r"tokenizer\.json describes no"),
        ({"tokenizer.json": b"[" * 100_000}, r"tokenizer\.json is broken"),
        ({"tokenizer.json": '{"model": {"type": "WordLevel", "vocab": {"a": 0, "a": 1}}}'}, "'a' stands there twice"),
        ({"vocab.txt": "[UNK]\n[CLS]\n[SEP]\na\na\n"}, r"vocab\.txt, line 5: 'a'"),
        ({"vocab.txt": "a\nb\n"}, r"vocab\.txt has no \[UNK\]"),
        ({"vocab.txt": b"[UNK]\n\xff\n"}, r"vocab\.txt is not UTF-8"),
        ({"vocab.json": {"a": 0, "b": 0}, "merges.txt": ""}, r"vocab\.json: 'a' and 'b' both have id 0"),
        ({"vocab.json": {"a": "0"}, "merges.txt": ""}, r"vocab\.json: the id of 'a'"),
        ({"vocab.json": {"a": -1}, "merges.txt": ""}, r"vocab\.json: the id of 'a'"),
        ({"vocab.json": {"a": 0, "b": 1}, "merges.txt": "#version: 0.2\na b\n"}, r"merges\.txt, line 2: 'a b'"),
        ({"vocab.json": {"a": 0, "b": 1}, "merges.txt": "a b c\n"}, r"merges\.txt, line 1"),
        ({"vocab.json": {"a": 0}, "merges.txt": "", "tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer"}}, "CLIP"),
        ({"tokenizer.model": b""}, r"tokenizer\.model is not a sentencepiece model"),
        ({"tokenizer.model": b"version https://git-lfs"}, r"tokenizer\.model is not a sentencepiece model"),
        ({"spiece.model": b"\x0a\xff\xff\xff\xff\x0f"}, r"spiece\.model is not a sentencepiece model"),
        ({"vocab.txt": "[UNK]\n[CLS]\n[SEP]\n", "tokenizer_config.json": {"added_tokens_decoder": {"x": 3}}}, "added tokens"),
        ({"vocab.txt": "[UNK]\n[CLS]\n[SEP]\n", "added_tokens.json": {"new": 77}}, "'new' id 77"),
        ({"vocab.txt": "[UNK]\n[CLS]\n[SEP]\n", "tokenizer_config.json": {"pad_token": 5}}, "json: .pad_token"),
        ({"vocab.txt": "[UNK]\n[CLS]\n[SEP]\n", "tokenizer_config.json": {"additional_special_tokens": 5}}, "additional"),
    ],
)  # fmt: skip
def test_broken_files(tmp_path, files, match):
    refused(write(tmp_path, files), match)


def test_broken_sentencepiece(t5_model, llama_model, tmp_path):
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": "many"}
    refused(write(tmp_path / "a", {"spiece.model": t5_model, "tokenizer_config.json": config}), '"extra_ids"')
    config = {"tokenizer_class": "XLMRobertaTokenizer"}
    refused(write(tmp_path / "b", {"spiece.model": t5_model, "tokenizer_config.json": config}), "renumbers")
    config = {"added_tokens_decoder": {"5": {"content": "<new>"}}}
    refused(
        write(tmp_path / "c", {"tokenizer.model": llama_model, "tokenizer_config.json": config}), "'<new>' has id 5"
    )


def use(tokenizer):
    ids = tokenizer.encode("the dog 😀</s> <unk>", parse_special=True)
    tokenizer.encode("the", parse_special=False)
    tokenizer.decode(range(0, 300, 7))
    tokenizer.tokens(ids)


def survives(folder):
    """Broken files either still make a tokenizer or raise the one error."""
    try:
        use(text.from_directory(folder))
        return True
    except TokenizerError as problem:
        told = str(problem)
    assert str(folder) in told or "decoder" in told or "_tokens" in told
    return False


def test_truncated_and_flipped_bytes(llama_model, t5_model, small_json, byte_level, tmp_path):
    draw = random.Random(0)
    whole = {
        "tokenizer.model": llama_model,
        "spiece.model": t5_model,
        "tokenizer.json": json.dumps(small_json).encode(),
        "vocab.json": (byte_level / "vocab.json").read_bytes(),
    }
    refusals = 0
    for name, content in whole.items():
        others = {"merges.txt": (byte_level / "merges.txt").read_bytes()} if name == "vocab.json" else {}
        for trial in range(60):
            broken = bytearray(content)
            if trial % 2:
                del broken[draw.randrange(len(broken)) :]
            else:
                for _ in range(draw.randrange(1, 6)):
                    broken[draw.randrange(len(broken))] = draw.randrange(256)
            refusals += not survives(write(tmp_path / f"{name}{trial}", {name: bytes(broken), **others}))
    assert refusals > 100


def places(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if key != "vocab":
                yield from places(item, (*path, key))


def test_wrong_types_in_tokenizer_json(small_json, tmp_path):
    """Every place of the file, with every kind of wrong value."""
    folder, outcomes = tmp_path, set()
    for path in places(small_json):
        for wrong in (None, -1, 2**40, "x", [], {}, [1], True, {"type": "x"}):
            document = json.loads(json.dumps(small_json))
            at = document
            for key in path[:-1]:
                at = at[key]
            if path:
                at[path[-1]] = wrong
            outcomes.add(survives(write(folder, {"tokenizer.json": document if path else wrong})))
    assert outcomes == {True, False}


def test_wrong_types_in_the_config(minilm, tmp_path):
    files = {"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n"}
    config = json.loads((minilm / "tokenizer_config.json").read_text())
    config |= {"added_tokens_decoder": {"0": {"content": "[PAD]"}}, "chat_template": "x", "add_bos_token": False}
    for key in [*config, "additional_special_tokens", "extra_special_tokens"]:
        for wrong in (None, -1, 2**40, "x", [], {}, [1], True, {"content": 3}, {"0": 1}):
            survives(write(tmp_path, files | {"tokenizer_config.json": config | {key: wrong}}))


GGUF = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["a", "b", "ab", "<e>"],
    "tokenizer.ggml.token_type": [1, 1, 1, 3],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 3,
}
LLAMA = GGUF | {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.scores": [0.0, -1.0, -2.0, 0.0],
    "tokenizer.ggml.token_type": [1, 1, 1, 2],
}
BERT = {"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": ["[UNK]", "[CLS]", "[SEP]", "▁a"]}
BERT |= {"tokenizer.ggml.token_type": [3, 3, 3, 1]}


def test_small_ggufs_work():
    assert text.from_gguf(GGUF).encode("aab<e>") == [0, 2, 3]
    assert text.from_gguf(LLAMA).decode([2, 0]) == "aba"
    assert text.from_gguf(BERT).encode("A b") == [1, 3, 0, 2]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": "rwkv"}, "'rwkv'"),
        ({"model": None}, "None"),
        ({"pre": "tekken9"}, "Unknown pre-tokenizer 'tekken9'"),
        ({"tokens": []}, "0 tokens"),
        ({"tokens": ["a", "b", "ab", 3]}, "must be text"),
        ({"tokens": ["a", "b", "b", "c"]}, "'b' twice"),
        ({"token_type": [1]}, "1 token types"),
        ({"token_type": [1, 1, 1, 9]}, "token types 1 to 6"),
        ({"merges": ["a c"]}, "merge 0"),
        ({"merges": [3]}, "merge 0"),
        ({"eos_token_id": 4}, "eos_token_id is 4"),
        ({"eos_token_id": "x"}, "eos_token_id is 'x'"),
    ],
)
def test_broken_gguf_fields(change, match):
    with pytest.raises(TokenizerError, match=match):
        text.from_gguf(GGUF | {f"tokenizer.ggml.{name}": value for name, value in change.items()})


@pytest.mark.parametrize("base", [GGUF, LLAMA, BERT])
def test_any_wrong_gguf_field(base):
    for key in [*base, "tokenizer.ggml.add_bos_token", "tokenizer.chat_template", "tokenizer.ggml.bos_token_id"]:
        for wrong in (
            None,
            -1,
            2**40,
            "x",
            [],
            {},
            [1] * 4,
            [""] * 4,
            True,
            0.5,
            ["x", None, 1, 2.0],
            [float("nan")] * 4,
        ):
            told = "tokenizer"
            try:
                use(text.from_gguf(base | {key: wrong}))
            except TokenizerError as problem:
                told = str(problem).lower()
            assert "tokenizer" in told

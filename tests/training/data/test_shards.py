"""Tokens on the disk: the same as in memory; written once, by one of several; whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cutaway.training.data import examples, learn, shards, tokenise
from cutaway.training.errors import DataError

WRITER = """
import resource, signal, sys
from pathlib import Path
from cutaway.errors import CutawayError
from cutaway.training.data import examples, octets, shards, tokenise
source, folder, kind = sys.argv[1:]
if kind == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
if kind == "killed":
    put = shards._put
    def last(path, array):
        put(path, array)
        signal.raise_signal(signal.SIGKILL)
    shards._put = last
if kind == "together":
    print("ready", flush=True)
    sys.stdin.readline()
read = 0
def seen(characters, tokens):
    global read
    read += characters
try:
    tokens = tokenise(examples(source), octets(), folder=Path(folder), seen=seen)
    print(read, tokens.fingerprint)
except CutawayError as error:
    print(error)
"""


def write(source, folder, kind, **pipes):
    line = [sys.executable, "-c", WRITER, str(source), str(folder), kind]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True, **pipes)


@pytest.fixture
def texts(data):
    """Some thousand lines, long enough for several shards."""
    return examples(data / "help-en-fr" / "valid.tsv", names=("en", "fr"))


@pytest.mark.parametrize("kind", ["byte", "bpe", "wordpiece", "unigram"])
@pytest.mark.parametrize("around", ["end", "special", "nothing"])
def test_on_the_disk_is_what_is_in_memory(texts, tmp_path, monkeypatch, kind, around):
    monkeypatch.setattr(shards, "SHARD", 20_000)
    tokenizer = learn(kind, (text for (text,), _ in texts.texts("fr")), 500)
    held = tokenise(texts, tokenizer, "fr", around=around)
    mapped = tokenise(texts, tokenizer, "fr", around=around, folder=tmp_path)
    one = np.concatenate([
        tokenizer.encode(text, special=around == "special", parse_special=False)
        + ([tokenizer.eos_id] if around == "end" and tokenizer.eos_id is not None else [])
        for (text,), _ in texts.texts("fr")
    ])  # fmt: skip
    assert all(isinstance(part, np.memmap) for part in mapped.parts)
    assert len(mapped.parts) > 1
    assert np.array_equal(mapped.read(0, len(mapped)), one)
    assert np.array_equal(held.read(0, len(held)), one)
    assert np.array_equal(mapped.ends, held.ends)
    assert mapped.fingerprint == held.fingerprint


def test_it_is_written_once_and_anew_when_something_changed(data, tmp_path):
    file = tmp_path / "some.txt"
    file.write_text((data / "tinyshakespeare.txt").read_text()[:50_000])
    read = []

    def made(kind="byte", **options):
        tokenizer = learn(kind, ["abc"], 300)
        read.clear()
        tokenise(examples(file, **options), tokenizer, folder=tmp_path / "t", seen=lambda n, _: read.append(n))
        return sum(read)

    assert [made(), made()] == [50_000, 0]
    assert made("char") == 50_000
    assert made(document="line") > 40_000
    assert [made(), made("char"), made(document="line")] == [0, 0, 0]
    file.write_text(file.read_text() + "more")
    assert made() == 50_004
    assert not list((tmp_path / "t").glob(".*.partial"))


def test_two_at_once_and_one_writes(data, tmp_path):
    both = [write(data / "tinyshakespeare.txt", tmp_path, "together", stdin=subprocess.PIPE) for _ in range(2)]
    for each in both:
        assert each.stdout.readline() == "ready\n"
    for each in both:
        each.stdin.write("\n")
        each.stdin.flush()
    said = sorted(each.communicate(timeout=100)[0].split() for each in both)
    size = str((data / "tinyshakespeare.txt").stat().st_size)
    assert [read for read, _ in said] == ["0", size]
    assert said[0][1] == said[1][1]
    assert len(list(tmp_path.glob("[0-9a-f]*"))) == 1


def test_on_a_full_disk_nothing_is_left(data, tmp_path):
    said, _ = write(data / "tinyshakespeare.txt", tmp_path, "full").communicate(timeout=100)
    assert "could not be written: the disk is full" in said
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    said, _ = write(data / "tinyshakespeare.txt", tmp_path, "").communicate(timeout=100)
    assert said.split()[0] == str((data / "tinyshakespeare.txt").stat().st_size)


def test_what_a_killed_writer_left_goes(data, tmp_path):
    killed = write(data / "tinyshakespeare.txt", tmp_path, "killed")
    assert killed.wait(100) == -9
    assert list(tmp_path.glob(".*.partial/*.npy"))
    write(data / "tinyshakespeare.txt", tmp_path, "").communicate(timeout=100)
    assert not list(tmp_path.glob(".*.partial"))
    assert len(list(tmp_path.glob("*/index.json"))) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [("index.json", b"{"), ("index.json", b"{}"), ("ends.npy", b"\x93NUMPY"), ("00000.npy", b""), ("00000.npy", None)],
)
def test_a_broken_folder_is_named(texts, tmp_path, name, content):
    tokenise(texts, learn("byte", []), "en", folder=tmp_path)
    (folder,) = tmp_path.glob("[0-9a-f]*")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{folder} is broken .* delete it"):
        tokenise(texts, learn("byte", []), "en", folder=tmp_path)


def test_shards_of_other_lengths_are_refused(texts, tmp_path):
    tokenise(texts, learn("byte", []), "en", folder=tmp_path)
    (folder,) = tmp_path.glob("[0-9a-f]*")
    np.save(folder / "00000.npy", np.zeros(9, np.uint16))
    with pytest.raises(DataError, match="another length"):
        shards.mapped(folder)


def test_data_that_are_broken_leave_no_folder(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' * 3 + '{"text": 3}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 4: column 'text' is no text but '3'"):
        tokenise(examples(tmp_path / "a.jsonl"), learn("byte", []), folder=tmp_path / "t")
    (tmp_path / "b.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(DataError, match="not one token"):
        tokenise(examples(tmp_path / "b.jsonl"), learn("byte", []), folder=tmp_path / "t")
    assert [path.suffix for path in (tmp_path / "t").iterdir()] == [".lock", ".lock"]


def test_many_ids_take_four_bytes(tmp_path):
    (tmp_path / "all.txt").write_text("".join(map(chr, range(0x10000, 0x10000 + 70_000))))
    tokenizer = learn("char", [(tmp_path / "all.txt").read_text()])
    tokens = tokenise(examples(tmp_path / "all.txt"), tokenizer, folder=tmp_path / "t")
    assert tokens.parts[0].dtype == np.uint32
    assert tokens.read(69_998, 70_000).tolist() == [69_998, 69_999]
    assert json.loads(next(Path(tmp_path / "t").glob("*/index.json")).read_text())["shards"] == {"00000.npy": 70_000}
    assert os.path.getsize(next((tmp_path / "t").glob("*/00000.npy"))) == 280_128

"""Each kind of data by a recipe: what is drawn, that a run goes on exactly, and what is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.training.data.test_sources import served
from tests.training.test_run import TINY, Stop, losses

from cutaway.training.errors import DataError, TrainingError
from cutaway.training.recipe import Recipe
from cutaway.training.runner import train
from cutaway.training.setup import prepare
from cutaway.training.toml import settings
from cutaway.training.watch import Watch

SMALL = {"data.tokenizer": "byte", "data.document": "line", "watch.curves": "false"}


@pytest.fixture
def lines(tmp_path):
    """`a.txt` has small letters, and `b.txt` large ones; lines of many lengths."""
    draw = np.random.default_rng(0)
    for name, first in (("a", "a"), ("b", "A")):
        texts = ("".join(map(chr, draw.integers(0, 26, n) + ord(first))) for n in draw.integers(2, 30, 200))
        (tmp_path / f"{name}.txt").write_text("\n".join(texts) + "\n")
    return tmp_path


@pytest.fixture
def recipe(lines):
    def made(**more):
        given = {**TINY, **SMALL, "data.path": str(lines / "a.txt")}
        return settings({**given, **{k.replace("__", "."): str(v) for k, v in more.items()}}, Recipe())

    return made


def test_mixed_by_weights(recipe, lines):
    both = f"{lines / 'a.txt'},{lines / 'b.txt'}"
    for weights, share in (("3,1", 0.75), ("1,9", 0.1)):
        prepared = prepare(recipe(data__path=both, data__weights=weights, loop__rows=64))
        small = [(prepared.trainer.data.batch(n).ids[:, 0] >= ord("a")).float().mean().item() for n in range(64)]
        assert np.mean(small) == pytest.approx(share, abs=0.5 / 4096)  # which are a round
        valid = [prepared.valid.batch(n).ids for n in range(len(prepared.valid))]
        assert {bool(row[0] >= ord("a")) for ids in valid for row in ids} == {True, False}


@pytest.mark.parametrize(
    "more",
    [
        {"data__rows": "packed"},
        {"data__rows": "texts", "loop__tokens": 60},
        {"data__rows": "packed", "data__weights": "2,1"},
        {"data__weights": "2,1", "loop__batch": 90},
    ],
    ids=str,
)
def test_a_run_goes_on_exactly(recipe, lines, tmp_path, more):
    if "data__weights" in more:
        more = {**more, "data__path": f"{lines / 'a.txt'},{lines / 'b.txt'}"}
    chosen = recipe(**more)
    train(chosen, tmp_path / "whole")
    for after in (3, 5):
        with pytest.raises(InterruptedError):
            train(chosen, tmp_path / "broken", watch=Stop(after))
    train(chosen, tmp_path / "broken")
    assert losses(tmp_path / "whole") == losses(tmp_path / "broken")


def test_shards_change_no_number_and_are_read_once(recipe, tmp_path):
    told = []

    class Reader(Watch):
        def reading(self, name, tokens, share):
            told.append((os.path.basename(name), tokens, share))

    train(recipe(data__rows="packed"), tmp_path / "memory")
    for folder in ("first", "second"):
        train(recipe(data__rows="packed", data__shards=str(tmp_path / "t")), tmp_path / folder, watch=Reader())
        assert losses(tmp_path / folder) == losses(tmp_path / "memory")
    size = len((tmp_path / "a.txt").read_bytes().replace(b"\n", b""))
    assert told == [("a.txt", size, pytest.approx(size / (size + 200), abs=0.05)), ("a.txt", size, 1.0)]
    train(recipe(data__rows="packed", loop__steps=6), tmp_path / "memory")  # the same run, wherever its tokens are


def test_parquet_folder_and_limit(recipe, lines, tmp_path):
    rows = [{"body": f"text number {n}", "n": n} for n in range(300)]
    (tmp_path / "d" / "e").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d" / "e" / "x.parquet")
    (tmp_path / "d" / "y.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = recipe(data__path=str(tmp_path / "d"), data__column="body", data__limit=7, data__split=0)
    prepared = prepare(chosen)
    train_items = prepared.trainer.data._items[0]
    said = bytes(train_items._tokens.read(0, len(train_items._tokens)).astype(np.uint8)).decode()
    assert said == "".join(f"text number {n}" for n in range(7)) * 2
    with pytest.raises(DataError, match="has no column 'text': it has 'body', 'n'"):
        prepare(recipe(data__path=str(tmp_path / "d")))


def test_what_cannot_be_is_refused(recipe, lines):
    both = f"{lines / 'a.txt'},{lines / 'b.txt'}"
    for more, message in [
        ({"data__path": both, "data__weights": "1,2,3"}, "3 numbers for the 2 of data.path"),
        ({"data__path": both, "data__weights": "1,0"}, "each above 0"),
        ({"data__path": both, "data__weights": "1,2", "data__rows": "texts"}, "say data.rows packed"),
        ({"data__rows": "documents"}, "data.rows cannot be 'documents'"),
        ({"task__name": "classification", "data__weights": "1"}, "data.weights is for running text"),
        ({"data__path": str(lines / "c.txt")}, "does not exist"),
    ]:
        with pytest.raises((DataError, TrainingError), match=message):
            prepare(recipe(**more))
    plain = {name: value for name, value in TINY.items() if name not in ("model.heads", "model.dropout")}
    for preset in ("mamba", "t5"):
        given = {**plain, **SMALL, "data.path": both, "data.rows": "packed", "model.preset": preset}
        with pytest.raises(TrainingError, match=f"{preset} cannot keep texts .* say --data.rows texts"):
            prepare(settings({**given, **({"model.heads": "2"} if preset == "t5" else {})}, Recipe()))


def test_a_data_set_of_a_hub_from_the_shell(tmp_path):
    """Streamed by its name from a server on this machine, tokens written to shards."""
    (tmp_path / "repo").mkdir()
    rows = [{"text": f"the film number {n} is good"} for n in range(400)]
    (tmp_path / "repo" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = served(tmp_path / "repo")
    given = {**TINY, **SMALL, "data.path": "hub:owner/movies", "data.limit": "300", "data.shards": str(tmp_path / "t")}
    line = [sys.executable, "-m", "cutaway.cli", "train", "--out", str(tmp_path / "run"), "--json"]
    line += [x for name, value in given.items() for x in (f"--{name}", value)]
    url = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=200, check=False)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 6
    assert f"{sum(len(row['text']) for row in rows[:300]):,} tokens of hub:owner/movies" in done.stderr

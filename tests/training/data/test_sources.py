"""Every format, read from real data; and hostile files, each of which is named."""

import csv
import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cutaway.training.data import examples
from cutaway.training.errors import DataError


@pytest.fixture
def movies(data):
    lines = (data / "movies" / "valid.tsv").read_text(encoding="utf-8").splitlines()
    return [dict(zip(("label", "text"), line.split("\t"), strict=True)) for line in lines]


def test_every_format_holds_the_same_rows(movies, data, tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in movies))
    (tmp_path / "b.json").write_text(json.dumps(movies, indent=1))
    with open(tmp_path / "c.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["label", "text"])
        writer.writeheader()
        writer.writerows(movies)
    pq.write_table(pa.Table.from_pylist(movies), tmp_path / "d.parquet", row_group_size=100)
    with gzip.open(tmp_path / "e.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n\n" for row in movies)
    for file in sorted(tmp_path.iterdir()):
        source = examples(file)
        assert source.columns == ("label", "text")
        assert list(source) == movies
        assert [text for (text,), _ in source.texts()] == [row["text"] for row in movies]
    assert list(examples(data / "movies" / "valid.tsv", names=("label", "text"))) == movies
    assert list(examples(tmp_path)) == movies * 5
    assert list(examples(f"{tmp_path}/[ab].*")) == movies * 2


def test_conll(data):
    source = examples(data / "wnut17" / "valid.conll")
    text = (data / "wnut17" / "valid.conll").read_text(encoding="utf-8")
    blocks = [[line.split("\t") for line in block.splitlines()] for block in text.split("\n\n") if block.strip()]
    assert [list(map(list, zip(row["tokens"], row["tags"], strict=True))) for row in source] == blocks


def test_pairs(data):
    (english, french), whole = next(
        iter(examples(data / "help-en-fr" / "test.tsv", names=("en", "fr")).texts("en", "fr"))
    )
    first = (data / "help-en-fr" / "test.tsv").read_text(encoding="utf-8").split("\n")[0]
    assert f"{english}\t{french}" == first
    assert whole


HOSTILE = {
    "a.jsonl": [
        ("", "a.jsonl is empty"),
        ('{"text": "fine"}\n{"text": "br', r"a.jsonl, line 2: broken JSON \(Unterminated string"),
        ('{"text": "fine"}\n\n["no names"]\n', "line 3: a line must be a JSON object"),
        ('{"text": "fine"}\n{"text": null}\n', "line 2: column 'text' is no text but 'None'"),
        ('{"text": "fine"}\n{"words": "x"}\n', "line 2: column 'text' is missing"),
        ('{"text": "fine"}\n{"text": ' + "[" * 100_000 + "\n", "line 2: broken JSON"),
        ('{"text": "fine"}\n{"text": ' + "1" * 5000 + "}\n", r"line 2: broken JSON \(a number too long"),
        ('{"one": "a", "two": "b"}\n', "has no column 'text': it has 'one', 'two'"),
        (b'{"text": "fine"}\n{"text": "\xff"}\n', "line 2: byte 11 of the line is not UTF-8"),
    ],
    "b.json": [
        ('{"text": "one"}\n{"text": "two"}\n', "line 2: broken JSON .*is kind 'jsonl'"),
        ("[1, 2]", "must be one JSON list of objects"),
        ("[]", "b.json is empty"),
        (b'[{"text": "\xff"}]', "line 1: byte 12 of the line is not UTF-8"),
    ],
    "c.csv": [
        ("", "c.csv is empty"),
        ("text,label\n", "c.csv is empty"),
        ("text,label\nfine,1\nno label\n", "c.csv, line 3: 1 columns where there should be 2"),
        ('text,label\nfine,1\n"two\nlines",2\n"open,3\n', "line 5: broken CSV"),
        ('text,label\n"one"two,1\n', "line 2: broken CSV"),
        ("text,text\na,b\n", "line 1: two columns have the same name"),
    ],
    "d.tsv": [("text\tlabel\na\tb\tc\n", "d.tsv, line 2: 3 columns where there should be 2")],
    "e.conll": [("word\tO\nbroken\n", "e.conll, line 2: token<TAB>tag was expected"), ("\n\n", "e.conll is empty")],
    "f.parquet": [(b"", "f.parquet is a broken Parquet file"), (b"PAR1nothingPAR1", "f.parquet is a broken Parquet file")],
    "g.jsonl.gz": [(b"no gzip", "g.jsonl.gz is a broken gzip file")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"), [(name, *case) for name, cases in HOSTILE.items() for case in cases]
)
def test_what_is_broken_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as raised:
        list(examples(tmp_path / name).texts())
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400 + len(str(tmp_path))


def test_an_empty_file_in_a_folder_is_not_passed_over(tmp_path):
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(DataError, match=r"b\.txt is empty"):
        examples(tmp_path)


def test_a_truncated_file_is_named(tmp_path, movies):
    whole = gzip.compress(json.dumps({"text": "x" * 1000}).encode() + b"\n")
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-12])
    pq.write_table(pa.Table.from_pylist(movies), tmp_path / "b.parquet")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "b.parquet").read_bytes()[:-100])
    for name in ("a.jsonl.gz", "b.parquet"):
        with pytest.raises(DataError, match=f"{name} is a broken"):
            examples(tmp_path / name)


def test_what_is_not_there_is_named(tmp_path):
    for source, message in [
        (tmp_path / "no.txt", "no.txt does not exist"),
        (tmp_path, "holds no file"),
        ([], "no data"),
        ("hub:", "is no data set"),
        ("hub:a:b:c:d", "is no data set"),
    ]:
        with pytest.raises(DataError, match=message):
            examples(source)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match="no kind of file is called 'xml'"):
        examples(tmp_path, kind="xml")


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"")
    for module in ("pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    for source in (tmp_path / "a.parquet", "hub:owner/name"):
        with pytest.raises(DataError, match=r"pip install 'cutaway\[train\]'"):
            examples(source)


def served(folder):
    """A hub with the one data set "owner/movies"."""
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    commit = "0123456789abcdef0123456789abcdef01234567"

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def send(self, code, body, **headers):
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": commit, **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self):
            self.do_GET()

        def do_POST(self):
            self.do_GET(self.rfile.read(int(self.headers["Content-Length"])))

        def do_GET(self, asked=b""):
            path = unquote(self.path.split("?")[0])
            tree = [{"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in files.items()]
            if "owner/movies" not in path:
                return self.send(404, b"{}", X_Error_Code="RepoNotFound")
            if path.startswith("/api/"):
                info = {
                    "_id": "0",
                    "id": "owner/movies",
                    "sha": commit,
                    "private": False,
                    "gated": False,
                    "disabled": False,
                }
                info |= {"tags": [], "downloads": 0, "likes": 0, "siblings": [{"rfilename": n} for n in files]}
                if "/paths-info/" in path:
                    wanted = json.loads(asked)["paths"] if asked[:1] == b"{" else []
                    return self.send(200, json.dumps([t for t in tree if t["path"] in wanted]).encode())
                return self.send(200, json.dumps(tree if "/tree/" in path else info).encode())
            name = path.rpartition("/")[2]
            if name not in files:
                return self.send(404, b"", X_Error_Code="EntryNotFound")
            body, span = files[name], self.headers["Range"]
            if span:
                begin, end = (int(n) if n else len(body) - 1 for n in span.removeprefix("bytes=").split("-"))
                body = body[begin : end + 1]
                return self.send(206, body, Content_Range=f"bytes {begin}-{begin + len(body) - 1}/{len(files[name])}")
            return self.send(200, body, ETag='"x"', Accept_Ranges="bytes")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


HUB = """
import json, sys
from cutaway.training.data import examples
from cutaway.training.errors import DataError
found = []
for name in sys.argv[1:]:
    try:
        found.append(list(examples(name)))
    except DataError as problem:
        found.append(str(problem))
print(json.dumps(found))
"""


def test_a_data_set_of_a_hub_by_name(movies, tmp_path):
    (tmp_path / "repo").mkdir()
    for split in ("train", "test"):
        rows = movies if split == "train" else movies[:7]
        (tmp_path / "repo" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = served(tmp_path / "repo")
    url = f"http://127.0.0.1:{server.server_port}"
    names = ["hub:owner/movies", "hub:owner/movies:test", "hub:owner/movies:nowhere", "hub:owner/other"]
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", HUB, *names], capture_output=True, text=True, env=environment, timeout=100, check=False
    )
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    train, test, nowhere, other = json.loads(done.stdout)
    assert train == movies
    assert test == movies[:7]
    assert nowhere.startswith("hub:owner/movies:nowhere cannot be read: ")
    assert "test" in nowhere
    assert other.startswith("hub:owner/other cannot be read: ")

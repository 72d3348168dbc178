"""The hub, played by a server on 127.0.0.1: download, cache, offline, refusals, interruption."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from tests.checkpoints.tiny import answer, our_answer, relative_error, saved

import cutaway
from cutaway.checkpoints import hub
from cutaway.errors import CheckpointError, SourceError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server serves, and what it was asked for."""

    url: str = ""
    repos: dict[str, Path] = field(default_factory=dict)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)  # files whose transfer breaks half-way, once
    asked: list[str] = field(default_factory=list)

    def repo_of(self, path: str) -> str | None:
        return next(
            (repo for repo in {*self.repos, *self.refuse} if path.startswith((f"/{repo}/", f"/api/models/{repo}"))),
            None,
        )


def handler(state: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def send(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(self.path.split("?")[0])
            state.asked.append(f"{self.command} {path}")
            repo = state.repo_of(path)
            if repo is None:
                return self.send(404, b"{}", X_Error_Code="RepoNotFound")
            if repo in state.refuse:
                code, reason = state.refuse[repo]
                return self.send(code, b"{}", X_Error_Code=reason, X_Error_Message=reason)
            folder = state.repos[repo]
            files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
            if path.startswith("/api/models/"):
                if "/revision/" in path and path.rpartition("/revision/")[2] not in ("main", "v2", COMMIT):
                    return self.send(404, b"{}", X_Error_Code="RevisionNotFound")
                if "/tree/" in path:
                    tree = [
                        {"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": "0" * 40} for f in files
                    ]
                    return self.send(200, json.dumps(tree).encode(), Content_Type="application/json")
                info = {"_id": "0", "id": repo, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0}
                info["siblings"] = [{"rfilename": f} for f in files]
                return self.send(200, json.dumps(info).encode(), Content_Type="application/json")
            name = path.removeprefix(f"/{repo}/resolve/").partition("/")[2]
            if name not in files:
                return self.send(404, b"", X_Error_Code="EntryNotFound")
            body = (folder / name).read_bytes()
            about = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
            if self.command == "GET" and name in state.cut:
                self.send_response(200)
                for key, value in {"Content-Length": str(len(body)), **about}.items():
                    self.send_header(key.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.close_connection = True
                return None
            begin = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]) if self.headers["Range"] else 0
            if begin:
                about["Content_Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
            return self.send(206 if begin else 200, body[begin:], **about)

    return Handler


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    from huggingface_hub import constants

    for name, value in {
        "HF_HUB_OFFLINE": False,
        "ENDPOINT": state.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": state.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    # the client's functions took these as defaults when they were imported
    from huggingface_hub import snapshot_download

    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda *a, **k: snapshot_download(*a, **k, cache_dir=tmp_path / "cache", endpoint=state.url, etag_timeout=5),
    )
    yield state
    server.shutdown()
    server.server_close()


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_downloaded_then_from_the_cache(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved("llama", tmp_path / "repo", max_shard_size="20KB")
    (tmp_path / "repo" / "onnx").mkdir()
    (tmp_path / "repo" / "onnx" / "model.safetensors").write_bytes(b"another format")
    (tmp_path / "repo" / "pytorch_model.bin").write_bytes(b"the same again")
    served.repos["owner/tiny"] = tmp_path / "repo"
    assert relative_error(our_answer(cutaway.load("owner/tiny")), answer(model)) < 1e-5
    assert relative_error(our_answer(cutaway.load("owner/tiny@v2")), answer(model)) < 1e-5
    assert not any("onnx" in path or ".bin" in path for path in served.asked if path.startswith("GET /owner"))
    asked = len(served.asked)
    offline(monkeypatch)
    assert relative_error(our_answer(cutaway.load("owner/tiny")), answer(model)) < 1e-5
    assert len(served.asked) == asked


def test_pickled_only(served: Hub, tmp_path: Path) -> None:
    import torch

    model = saved("gpt2", tmp_path / "repo")
    (tmp_path / "repo" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "repo" / "pytorch_model.bin")
    served.repos["owner/old"] = tmp_path / "repo"
    assert relative_error(our_answer(cutaway.load("owner/old")), answer(model)) < 1e-5


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((401, "RepoNotFound"), "no such repository, or it is private"),
        ((404, "RepoNotFound"), "no such repository, or it is private"),
        ((403, "GatedRepo"), "accept terms"),
        ((401, "GatedRepo"), "accept terms"),
    ],
)
def test_refused(refusal: tuple[int, str], message: str, served: Hub) -> None:
    served.refuse["owner/closed"] = refusal
    with pytest.raises(SourceError, match=message) as caught:
        cutaway.load("owner/closed")
    assert "owner/closed" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_revision(served: Hub, tmp_path: Path) -> None:
    saved("gpt2", tmp_path / "repo")
    served.repos["owner/tiny"] = tmp_path / "repo"
    with pytest.raises(SourceError, match="no revision 'v9'"):
        cutaway.load("owner/tiny@v9")


def test_no_network(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    with pytest.raises(SourceError, match="cannot be reached") as caught:
        cutaway.load("owner/never-seen")
    assert "Nor is there a folder owner/never-seen here" in str(caught.value)  # a path mistyped is a hub id as well


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants, snapshot_download

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda *a, **k: snapshot_download(*a, **k, cache_dir=tmp_path, endpoint="http://127.0.0.1:9"),
    )
    with pytest.raises(SourceError, match="owner/tiny"):
        hub.fetch("owner/tiny")


def test_interrupted_and_resumed(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved("llama", tmp_path / "repo")
    served.repos["owner/tiny"] = tmp_path / "repo"
    served.cut.add("model.safetensors")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits before it tries again
    with pytest.raises(SourceError, match="owner/tiny"):
        cutaway.load("owner/tiny")
    with monkeypatch.context() as without_network:
        offline(without_network)
        with pytest.raises((SourceError, CheckpointError)):
            cutaway.load("owner/tiny")
    served.cut.clear()
    assert relative_error(our_answer(cutaway.load("owner/tiny")), answer(model)) < 1e-5

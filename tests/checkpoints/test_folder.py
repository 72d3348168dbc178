"""Where a model may be written: never over somebody's files."""

import os
from pathlib import Path

import pytest
from tests.checkpoints.tiny import saved

import cutaway
from cutaway import api
from cutaway.checkpoints.folder import check_target, whole_folder
from cutaway.errors import CheckpointError

MODEL = {"vocab": 20, "width": 8, "layers": 1, "heads": 2, "hidden": 8}


def contents(folder: Path) -> dict[str, str | bytes | None]:
    """Everything in it: files with their bytes, links with where they lead, folders."""
    return {
        p.relative_to(folder).as_posix(): os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


@pytest.mark.parametrize(
    "foreign",
    [
        "diary.txt", "notes/todo.md", ".git/HEAD", "train.py", "results.json", "optimizer.bin", "empty/",
        "1_Pooling/diary.txt", "deep/er/model.safetensors", "model-00001-of-00002/x.safetensors",
    ],
)  # fmt: skip
def test_somebodys_file_stays(foreign: str, tmp_path: Path) -> None:
    model = cutaway.build("bert", **MODEL)
    cutaway.save(model, tmp_path / "used")
    path = tmp_path / "used" / foreign
    path.mkdir(parents=True) if foreign.endswith("/") else path.parent.mkdir(parents=True, exist_ok=True)
    if not foreign.endswith("/"):
        path.write_text("dear diary")
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=rf"holds {foreign.split('/')[0]}.*nothing was touched"):
        cutaway.save(model, tmp_path / "used", overwrite=True)
    assert contents(tmp_path) == before


def test_a_link_to_a_folder_is_somebodys(tmp_path: Path) -> None:
    model = cutaway.build("bert", **MODEL)
    cutaway.save(model, tmp_path / "used")
    (tmp_path / "mine").mkdir()
    (tmp_path / "used" / "1_Pooling").symlink_to(tmp_path / "mine")
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="holds 1_Pooling"):
        cutaway.save(model, tmp_path / "used", overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("inside", ["", "1_Pooling"])
@pytest.mark.parametrize("home", [False, True])
def test_nobody_stands_in_what_is_replaced(
    inside: str, home: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cutaway.build("bert", head="mean", **MODEL)
    cutaway.save(model, tmp_path / "used")
    stands = tmp_path / "used" / inside
    if home:
        monkeypatch.setenv("HOME", str(stands))
        monkeypatch.setenv("USERPROFILE", str(stands))
    else:
        monkeypatch.chdir(stands)
    before = contents(tmp_path)
    for target in (tmp_path / "used", tmp_path / "used" / ".." / "used", *([] if home or inside else ["."])):
        with pytest.raises(CheckpointError, match="is or holds"):
            cutaway.save(model, target, overwrite=True)
    assert contents(tmp_path) == before


def test_any_checkpoint_is_replaced(tmp_path: Path) -> None:
    """Whichever layout, in shards or not, pickled, with what else is published beside it."""
    model = cutaway.build("bert", head="mean", **MODEL)
    saved("llama", tmp_path / "used", max_shard_size="10KB")
    assert len(list((tmp_path / "used").glob("*.safetensors"))) > 1
    for layout in ("huggingface", "cutaway", "huggingface"):
        for name in ("README.md", ".gitattributes", "vocab.txt", "merges.txt", "spiece.model", "pytorch_model.bin"):
            (tmp_path / "used" / name).write_text("")
        cutaway.save(model, tmp_path / "used", layout=layout, overwrite=True)
        assert not (tmp_path / "used" / "README.md").exists()
        assert cutaway.load(tmp_path / "used").family == "bert"
    assert [p.name for p in tmp_path.iterdir()] == ["used"]


def test_a_file_that_comes_while_writing_stays(tmp_path: Path) -> None:
    cutaway.save(cutaway.build("bert", **MODEL), tmp_path / "used")

    def write() -> None:
        with whole_folder(tmp_path / "used", True) as made:
            (made / "config.json").write_text("{}")
            (tmp_path / "used" / "diary.txt").write_text("dear diary")

    with pytest.raises(CheckpointError, match=r"holds diary\.txt"):
        write()
    assert (tmp_path / "used" / "diary.txt").read_text() == "dear diary"
    assert [p.name for p in tmp_path.iterdir()] == ["used"]


def test_convert_refuses_before_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("bert", tmp_path / "theirs")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "diary.txt").write_text("dear diary")
    monkeypatch.setattr(api, "load", lambda *args: pytest.fail("loaded first"))
    for overwrite, message in [(False, "overwrite=True"), (True, "diary.txt")]:
        with pytest.raises(CheckpointError, match=message):
            cutaway.convert(tmp_path / "theirs", tmp_path / "used", overwrite=overwrite)


def test_a_folder_without_a_checkpoint_is_somebodys(tmp_path: Path) -> None:
    """A README alone has a checkpoint's file name, and is none."""
    (tmp_path / "README.md").write_text("my notes")
    with pytest.raises(CheckpointError, match="holds files but no checkpoint"):
        check_target(tmp_path, overwrite=True)
    assert (tmp_path / "README.md").read_text() == "my notes"

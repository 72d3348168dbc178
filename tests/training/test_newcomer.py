"""What a newcomer gets wrong with `cutaway train`: one line each, which says what to do; before any data are read."""

import pytest

from cutaway.cli import main

TINY = ["--model.preset", "gpt2", "--model.width", "16", "--model.layers", "1", "--model.heads", "2", "--data.length", "8",
        "--loop.steps", "1", "--watch.curves", "false"]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("all that there is to read is read again\n" * 20)
    (tmp_path / "a.jsonl").write_text('{"body": "some text", "n": 1}\n' * 20)
    (tmp_path / "typo.toml").write_text("[loop]\nstpes = 3\n")
    (tmp_path / "broken.toml").write_text("[loop\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("somebody's")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--out r", "there is nothing to learn from: give --data.path FILE"),
        ("--data.path b.txt --out r", "b.txt does not exist"),
        ("--data.path owner/name --out r", "a data set of a hub is written hub:owner/name"),
        ("--data.path a.jsonl --out r", "no column 'text': it has 'body', 'n'. Choose one of these (--data.column)"),
        ("--data.path a.jsonl --data.column n --out r", "a.jsonl, line 1: column 'n' is no text but '1'"),
        (
            "--data.path a.txt --data.tokenizer bp:300 --out r",
            "data.tokenizer is char, byte, bpe, wordpiece, unigram or",
        ),
        ("--data.path a.txt --data.tokenizer bpe:many --out r", "bpe:N takes how many tokens it may have, not 'many'"),
        ("--data.path a.txt --data.length 9999 --out r", "or shorter rows (--data.length)"),
        ("--data.path a.txt --model.preset gpt9 --out r", "no preset 'gpt9'; did you mean gpt2?"),
        ("--data.path a.txt --model.widht 9 --out r", "no size 'widht' (did you mean width?)"),
        ("--data.path a.txt --objective.rte 9 --out r", "the objective causal has no option 'rte': it has none"),
        ("--data.path a.txt --lop.steps 9 --out r", "a recipe has no section 'lop' (did you mean loop?)"),
        ("--data.path a.txt --loop.stpes 9 --out r", "loop has no key 'stpes' (did you mean steps?)"),
        ("--data.path a.txt --steps 9 --out r", "did you mean --loop.steps?"),
        ("--data.path a.txt --rows=9 --out r", "did you mean --data.rows or --loop.rows or --evaluate.rows?"),
        ("--data.path a.txt --loop.steps many --out r", "loop.steps cannot be 'many'; a whole number is needed"),
        ("--data.path a.txt", "Give --out RUN, the folder of the run"),
        ("--data.path a.txt --out other", "other holds files but no run; choose another folder"),
        ("--data.path a.txt --out a.txt", "a.txt is a file; a run is a folder: choose another --out"),
        ("typo.toml --out r", "typo.toml: loop has no key 'stpes' (did you mean steps?)"),
        ("broken.toml --out r", "broken.toml is no recipe, which is TOML: Expected ']'"),
        ("a.txt --out r", "a.txt is no recipe, which is TOML"),
        ("none.toml --out r", "the recipe none.toml cannot be read: No such file or directory"),
    ],
)
def test_one_line_says_what_to_do(here, capsys, line, message):
    given = line.split()
    own = [] if "--model.preset" in given or ".toml" in line else TINY
    assert (
        main(["train", *given[:1], *own, *given[1:]] if not given[0].startswith("--") else ["train", *own, *given]) == 2
    )
    told = capsys.readouterr()
    assert told.out == ""
    assert message in told.err
    assert told.err.splitlines()[-1].startswith("cutaway: error: ")
    assert not (here / "r").exists()


def test_another_recipe_is_refused_before_the_data_are_read(here, capsys):
    assert main(["train", *TINY, "--data.path", "a.txt", "--out", "r"]) == 0
    capsys.readouterr()
    (here / "a.txt").unlink()
    assert main(["train", *TINY, "--data.path", "a.txt", "--optimizer.rate", "1", "--out", "r"]) == 2
    assert "optimizer.rate was 0.0003 and is 1.0" in capsys.readouterr().err


def test_help_names_the_sections(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for section in ("data, model, objective", "optimizer, schedule, loop", "[RECIPE.toml]", "--show"):
        assert section in said

"""The shell's manners: help, errors, exit codes, and what it imports."""

import json
import os
import signal
import subprocess
import sys

import pytest

from cutaway.cli import COMMANDS, main


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)


@pytest.mark.parametrize("args", [["--help"], ["card", "--help"], ["generate", "--help"], ["no-such-command"]])
def test_help_imports_nothing_heavy(args):
    heavy = {"torch", "numpy", "matplotlib", "plotly", "tokenizers", "gguf", "jinja2", "transformers"}
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr))\n"
        f"from cutaway.cli import main; main({args!r})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert f"    cutaway {command}" in said
    assert "Example" in said


def test_an_unknown_command_gets_a_suggestion(capsys):
    assert main(["genrate"]) == 2
    assert capsys.readouterr().err == "cutaway: error: no command 'genrate'; did you mean generate?\n"


def test_an_error_is_one_line_without_a_traceback(capsys):
    assert main(["card", "bert-bas"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("cutaway: error: ")
    assert "bert-base" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["card"], "missing from cutaway card: PRESET_OR_SOURCE"),
        (["card", "gpt2", "--context", "many"], "--context: a whole number is needed, not 'many'"),
        (["card", "gpt2", "--batch", "1.5"], "--batch: a whole number is needed, not '1.5'"),
        (["card", "gpt2", "--batch"], "missing value for argument '--batch'"),
        (["card", "gpt2", "--contxt", "3"], "unrecognized options: --contxt, 3; Perhaps you meant: --context INT"),
        (["card", "gpt2", "bert-base"], "unrecognized options: bert-base"),
        (["generate", "here", "hello", "--top-p", "x"], "--top-p: a number is needed, not 'x'"),
        (["generate", "here", "hello", "--chat", "--raw"], "--chat and --raw exclude each other; leave one out"),
        (["generate", "here", "hello", "--dtype", "int8"], "no dtype 'int8' for a model; there are float32"),
        (["inspect", "a", "b", "--theme", "blue"], "invalid choice 'blue' for argument '--theme'"),
        (["verify", "minilm", "--dtypes", "int8"], "invalid choice 'int8' for argument '--dtypes'"),
    ],
)
def test_wrong_use_is_one_line_and_exits_with_2(args, said, talker, capsys):
    args = [str(talker) if arg == "here" else arg for arg in args]
    assert main(args) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.lower().startswith(f"cutaway: error: {said}".lower())
    assert told.err.count("\n") == 1


def test_what_json_gives_is_in_the_help(capsys):
    for command in ("card", "generate", "embed", "inspect", "convert", "verify"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "With --json: " in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cutaway 0.")


def test_models_as_json(capsys):
    assert main(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["families"]
    assert found["bert"]["presets"]["bert-base"] == 109_482_240
    assert found["bert"]["identity"].startswith("BERT")


def test_models_for_people(capsys):
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert "llama-65b" in said
    assert "65,285,660,672" in said


def test_card_as_json(capsys):
    assert main(["card", "gpt3-175b", "--context", "2048", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["family"] == "gpt2"
    assert card["parameters"] == 174_604_259_328
    assert card["kv_cache"]["float16"] == 2 * 96 * 12288 * 2048 * 2


def test_card_for_people(capsys):
    assert main(["card", "bert-base"]) == 0
    said = capsys.readouterr().out
    assert "109,482,240  = published" in said
    assert "417.6 MiB" in said


@pytest.mark.skipif(os.name == "nt", reason="signals and pipes are POSIX here")
def test_a_reader_that_leaves_is_no_error():
    command = f"'{sys.executable}' -m cutaway.cli models | head -1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert ran.stderr == ""
    assert ran.stdout.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="signals and pipes are POSIX here")
def test_ctrl_c_is_quiet():
    code = (
        "import sys, time, cutaway.cli as cli\n"
        "def wait(*_):\n    print('waiting', flush=True)\n    time.sleep(60)\n"
        "cli._run = wait\nsys.exit(cli.main(['models']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == ""

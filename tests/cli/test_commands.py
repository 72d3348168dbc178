"""Each command on a small model: what people read, and what programs read."""

import io
import json
import math
import os
import subprocess
import sys

import pexpect
import pytest
import torch
import transformers

import cutaway
from cutaway.cli import main


def run(capsys, *args: object) -> str:
    assert main([str(a) for a in args]) == 0
    return capsys.readouterr().out


def refused(capsys, *args: object) -> str:
    assert main([str(a) for a in args]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("cutaway: error: ")
    return said.err


def test_generate_streams_what_generate_gives(talker, capsys):
    shown = run(capsys, "generate", talker, "the cat", "--max-new-tokens", 12)
    found = json.loads(run(capsys, "generate", talker, "the cat", "--max-new-tokens", 12, "--json"))
    assert shown == found["text"] + "\n"
    assert set(found) == {"text", "tokens", "tokens_per_second"}
    assert 0 < len(found["tokens"]) <= 12
    assert found["tokens_per_second"] > 0


def test_generate_goes_through_the_template_unless_raw(talker, capsys):
    loaded = cutaway.load(talker)
    assert loaded.tokenizer is not None
    raw = json.loads(run(capsys, "generate", talker, "the cat", "--raw", "--max-new-tokens", 8, "--json"))
    chat = json.loads(run(capsys, "generate", talker, "the cat", "--max-new-tokens", 8, "--json"))
    told = json.loads(run(capsys, "generate", talker, "the cat", "--system", "sat", "--max-new-tokens", 8, "--json"))
    said = [{"role": "user", "content": "the cat"}]
    prompts = {
        "raw": loaded.tokenizer.encode("the cat"),
        "chat": loaded.tokenizer.encode_chat(said),
        "told": loaded.tokenizer.encode_chat([{"role": "system", "content": "sat"}, *said]),
    }
    for found, prompt in zip((raw, chat, told), prompts.values(), strict=True):
        expected = cutaway.generate(loaded.model, [prompt], max_new_tokens=8, tokenizer=loaded.tokenizer)
        assert found["tokens"] == expected.ids[0]


def test_generate_reads_standard_input(talker, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the cat")))
    assert run(capsys, "generate", talker, "-", "--max-new-tokens", 5) == run(
        capsys, "generate", talker, "the cat", "--max-new-tokens", 5
    )


@pytest.mark.parametrize("command", ["generate", "embed"])
def test_standard_input_that_is_no_text(command, talker, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff")))
    assert "UTF-8" in refused(capsys, command, talker, "-")


def test_chat_hears_bytes_that_are_no_text(talker, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff\n"), encoding="utf-8"))
    shown = run(capsys, "chat", talker, "--temperature", 0, "--max-new-tokens", 5)
    monkeypatch.setattr(sys, "stdin", io.StringIO("ab\ufffd\n"))
    assert run(capsys, "chat", talker, "--temperature", 0, "--max-new-tokens", 5) == shown


@pytest.mark.parametrize("command", ["embed", "generate"])
def test_where_only_ascii_can_be_printed(command, talker, reader):
    """Text gets question marks; JSON loses nothing."""
    source = {"embed": reader, "generate": talker}[command]
    args = [sys.executable, "-m", "cutaway.cli", command, str(source), "é"]
    text, found = (
        subprocess.run(
            [*args, *more], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
        ).stdout.decode("ascii")
        for more in ([], ["--json"])
    )
    assert "?" in text
    found = json.loads(found)
    assert found["texts"] == ["é"] if command == "embed" else not found["text"].isascii()


def test_seeds_repeat(talker, capsys):
    args = ["generate", talker, "the", "--temperature", 1, "--seed", 3, "--max-new-tokens", 10]
    assert run(capsys, *args) == run(capsys, *args)


def test_beams(talker, capsys):
    found = json.loads(run(capsys, "generate", talker, "the", "--beams", 3, "--max-new-tokens", 6, "--json"))
    assert len(found["tokens"]) <= 6


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--max-new-tokens", "0"], "max_new_tokens"),
        (["--beams", "0"], "beams"),
        (["--system", "be kind", "--raw"], "--system"),
    ],
)
def test_wrong_settings_are_one_line(talker, capsys, args, said):
    assert said in refused(capsys, "generate", talker, "hello", *args)


def test_an_encoder_does_not_write(reader, capsys):
    assert "embed" in refused(capsys, "generate", reader, "hello")
    assert "embed" in refused(capsys, "chat", reader)


def test_a_source_that_is_none(capsys):
    assert "no-such-model" in refused(capsys, "generate", "no-such-model", "hello")


def test_embed(reader, capsys):
    found = json.loads(run(capsys, "embed", reader, "the cat", "the cat", "a dog on the log", "--json"))
    assert len(found["embeddings"]) == 3
    assert all(math.isclose(sum(x * x for x in row), 1, rel_tol=1e-5) for row in found["embeddings"])
    assert found["similarities"][0][1] == pytest.approx(1, abs=1e-5)
    shown = run(capsys, "embed", reader, "the cat", "a dog on the log")
    assert f"{found['similarities'][0][2]:.3f}" in shown


def test_embed_equals_sentence_transformers(minilm, capsys):
    from sentence_transformers import SentenceTransformer

    texts = ["A cat sits.", "A kitten is sitting on the mat, which is not its own.", "Stocks fell."]
    found = json.loads(run(capsys, "embed", "minilm", *texts, "--json"))
    expected = SentenceTransformer(str(minilm), device="cpu").encode(texts, convert_to_tensor=True)
    assert (torch.tensor(found["embeddings"]) - expected).abs().max() < 1e-6


def test_a_language_model_embeds_nothing(talker, capsys):
    assert "writes text; embed takes an encoder of sentences, such as minilm" in refused(capsys, "embed", talker, "hi")


def test_embed_without_a_tokenizer(capsys, tmp_path):
    cutaway.save(cutaway.build("bert-tiny", vocab=20), tmp_path / "bare")
    assert "no tokenizer" in refused(capsys, "embed", tmp_path / "bare", "hello")


def test_inspect_of_no_text(talker, capsys):
    assert "give some text" in refused(capsys, "inspect", talker, "")


@pytest.mark.parametrize("suffix", ["html", "png", "svg"])
def test_inspect(talker, capsys, tmp_path, suffix):
    out = tmp_path / f"picture.{suffix}"
    found = json.loads(run(capsys, "inspect", talker, "the cat sat", "--out", out, "--json"))
    assert out.stat().st_size > 1000
    assert found["attention"] == {"self": {"layers": 2, "heads": 4}}
    assert found["out"] == str(out)


def test_convert_gives_a_folder_that_transformers_loads(talker, capsys, tmp_path):
    found = json.loads(run(capsys, "convert", talker, tmp_path / "out", "--json"))
    assert "model.safetensors" in found["files"]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    capsys.readouterr()  # its progress bar
    ours = cutaway.load(talker).model
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert (theirs(ids).logits - ours(ids)).abs().max() < 1e-5
    assert "exists" in refused(capsys, "convert", talker, tmp_path / "out")
    run(capsys, "convert", talker, tmp_path / "out", "--overwrite")


def test_card_of_a_folder_reads_no_weights(talker, capsys, tmp_path):
    for file in talker.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    found = json.loads(run(capsys, "card", tmp_path, "--json"))
    assert found["family"] == "llama"
    assert found["parameters"] == sum(p.numel() for p in cutaway.load(talker).model.parameters())


@pytest.mark.parametrize("which", ["talker", "reader"])
def test_verify(which, request, capsys):
    source = request.getfixturevalue(which)
    found = json.loads(run(capsys, "verify", source, "--text", "the cat sat on the mat", "--new-tokens", 8, "--json"))
    assert found["max_rel_error"] < 1e-5
    assert found["max_abs_error"] < 1e-4
    assert found["greedy_tokens_equal"] is (True if which == "talker" else None)
    assert set(found["dtypes"]) == {"float32", "bfloat16"}
    shown = run(capsys, "verify", source, "--text", "the cat sat", "--new-tokens", 4)
    assert "yardstick" in shown
    assert "block 2" in shown


@pytest.mark.parametrize("package", ["transformers", "accelerate"])
def test_verify_without_its_extra_says_what_to_type(smollm2, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    said = refused(capsys, "verify", smollm2)
    assert f"needs {package}, which" in said
    assert "pip install -e '.[verify]'" in said


def test_verify_of_a_family_that_transformers_lacks(capsys, tmp_path):
    cutaway.save(cutaway.build("transformer", vocab=20, width=16, layers=1, heads=2, hidden=16), tmp_path / "model")
    assert "nothing to compare" in refused(capsys, "verify", tmp_path / "model")


def chatting(talker, *more: str) -> pexpect.spawn:
    args = ["-m", "cutaway.cli", "chat", str(talker), "--temperature", "0", *more]
    return pexpect.spawn(sys.executable, args, encoding="utf-8", timeout=60)


def test_chat_in_a_terminal(talker):
    shell = chatting(talker, "--max-new-tokens", "6")
    shell.expect("Ctrl-D leaves")
    shell.sendline("/help")
    shell.expect("/reset")
    shell.sendline("/nonsense")
    shell.expect("no command /nonsense")
    shell.sendline("the cat sat")
    shell.expect("\r\n> ")
    shell.sendline("/reset")
    shell.expect("forgotten")
    shell.sendintr()  # at the prompt: it stays
    shell.expect("Ctrl-D or /exit leaves")
    shell.sendeof()
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 0


def test_ctrl_c_stops_an_answer_and_not_the_chat(talker):
    shell = chatting(talker, "--max-new-tokens", "100000")
    shell.expect("Ctrl-D leaves")
    for _ in range(3):
        shell.sendline("the dog sat on the log and the cat on the mat")
        shell.expect("mat\r\n.")  # the first of the answer
        shell.sendintr()
        shell.expect("\n> ")
    shell.sendline("/exit")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 0


def test_chat_remembers(talker, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\nthe dog\n"))
    shown = run(capsys, "chat", talker, "--temperature", 0, "--max-new-tokens", 5)
    loaded = cutaway.load(talker)
    assert loaded.tokenizer is not None
    said, answers = [], []
    for line in ("the cat", "the dog"):
        said.append({"role": "user", "content": line})
        out = cutaway.generate(
            loaded.model, [loaded.tokenizer.encode_chat(said)], max_new_tokens=5, tokenizer=loaded.tokenizer
        )
        assert out.texts is not None
        answers.append(out.texts[0])
        said.append({"role": "assistant", "content": out.texts[0]})
    assert shown == "".join(answer + "\n" for answer in answers)


def test_a_conversation_that_grows_too_long_goes_on(reader, talker, capsys, monkeypatch, tmp_path):
    model = cutaway.build("gpt2", vocab=300, width=16, layers=1, heads=2, head_width=8, hidden=16, context=32, seed=1)
    cutaway.save(model, tmp_path / "short")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "short" / name).write_bytes((talker / name).read_bytes())
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 100 + "\nhi\n"))
    assert main(["chat", str(tmp_path / "short"), "--max-new-tokens", "2", "--temperature", "0"]) == 0
    said = capsys.readouterr()
    assert "/reset" in said.err
    assert said.out.count("\n") == 1

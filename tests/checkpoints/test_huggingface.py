"""Folders of the reference library, read and written: same answers, same bits, and one clear error when broken."""

import json
import os
import re
import shutil
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers as hf
from tests.checkpoints.tiny import BERT, MODELS, answer, our_answer, relative_error, saved

import cutaway
from cutaway.errors import CheckpointError, ConfigError, SourceError


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= safetensors.torch.load_file(file)
    return found


def without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A bare model's names may carry the prefix that a model with a head gives them; the reference reads both."""
    return {re.sub(r"^(model|transformer|gpt_neox)\.", "", name): t for name, t in tensors.items()}


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    """Theirs → ours → theirs: the same answers on the way, and the same bits and names at the end.

    Equal weights at other addresses may take another kernel, so answers are compared to a few roundings.
    """
    model = saved(name, tmp_path / "theirs")
    loaded = cutaway.load(tmp_path / "theirs")
    assert not loaded.model.training
    assert relative_error(our_answer(loaded), answer(model)) < 1e-5
    cutaway.save(loaded, tmp_path / "ours")
    assert same_bits(without_prefix(weights(tmp_path / "theirs")), without_prefix(weights(tmp_path / "ours")))
    again, info = getattr(hf, MODELS[name][0]).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert relative_error(answer(again.eval()), answer(model)) < 1e-6
    once_more = cutaway.load(tmp_path / "ours").model.state_dict()
    assert same_bits(once_more, loaded.model.state_dict())


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "bert-masked", "t5"])
def test_tied_weights_are_written_once(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path / "theirs")
    cutaway.convert(tmp_path / "theirs", tmp_path / "ours")
    found = list(weights(tmp_path / "ours").values())
    assert not any(
        torch.equal(a, b) for i, a in enumerate(found) for b in found[:i] if a.shape == b.shape and a.ndim > 1
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_the_checkpoints_or_the_callers(dtype: torch.dtype, tmp_path: Path) -> None:
    model = saved("llama", tmp_path / "f32")
    model.to(dtype).save_pretrained(tmp_path / "theirs")
    loaded = cutaway.load(tmp_path / "theirs")
    assert {p.dtype for p in loaded.model.parameters()} == {dtype}
    cutaway.save(loaded, tmp_path / "ours")
    assert same_bits(weights(tmp_path / "theirs"), weights(tmp_path / "ours"))
    for name, kind in {"bf16": torch.bfloat16, "float32": torch.float32, "torch.float16": torch.float16}.items():
        narrow = cutaway.load(tmp_path / "theirs", dtype=name).model.head.tokens.weight
        assert torch.equal(narrow, weights(tmp_path / "theirs")["lm_head.weight"].to(kind))


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_sharded(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path / "theirs", max_shard_size="10KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    loaded = cutaway.load(tmp_path / "theirs")
    assert relative_error(our_answer(loaded), answer(model)) < 1e-5


def test_shards_are_written_where_a_file_would_be_large(tmp_path: Path) -> None:
    from cutaway.checkpoints.save import save_huggingface

    model = saved("gpt2", tmp_path / "theirs")
    loaded = cutaway.load(tmp_path / "theirs")
    save_huggingface(loaded.model, loaded.family, loaded.sizes, tmp_path / "ours", shard=10_000)
    files = sorted((tmp_path / "ours").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert same_bits(weights(tmp_path / "theirs"), weights(tmp_path / "ours"))
    assert torch.equal(answer(hf.GPT2LMHeadModel.from_pretrained(tmp_path / "ours").eval()), answer(model))


def test_a_prefix_may_be_absent(tmp_path: Path) -> None:
    """A base model's checkpoint, as GPT-2's own: no `transformer.` before the names."""
    model = saved("gpt2", tmp_path / "theirs")
    bare = {name.removeprefix("transformer."): t for name, t in weights(tmp_path / "theirs").items()}
    safetensors.torch.save_file(bare, tmp_path / "theirs" / "model.safetensors", {"format": "pt"})
    assert relative_error(our_answer(cutaway.load(tmp_path / "theirs")), answer(model)) < 1e-5


def test_old_names_of_norms(tmp_path: Path) -> None:
    model = saved("bert-masked", tmp_path / "theirs")
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for n, t in weights(tmp_path / "theirs").items()
    }
    safetensors.torch.save_file(old, tmp_path / "theirs" / "model.safetensors")
    assert relative_error(our_answer(cutaway.load(tmp_path / "theirs")), answer(model)) < 1e-5


def test_a_second_name_of_a_tied_weight_must_agree(tmp_path: Path) -> None:
    model = saved("llama-tied", tmp_path)
    found = weights(tmp_path)
    found["lm_head.weight"] = found["model.embed_tokens.weight"].clone()
    safetensors.torch.save_file(found, tmp_path / "model.safetensors")
    assert relative_error(our_answer(cutaway.load(tmp_path)), answer(model)) < 1e-5
    found["lm_head.weight"][0, 0] += 1
    safetensors.torch.save_file(found, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight should equal"):
        cutaway.load(tmp_path)


def test_another_head_starts_afresh(tmp_path: Path) -> None:
    saved("bert-masked", tmp_path)
    with pytest.warns(UserWarning, match=r"head\.out\.weight"):
        loaded = cutaway.load(tmp_path, head="sequence", labels=4)
    assert our_answer(loaded).shape == (2, 4)
    assert our_answer(cutaway.load(tmp_path, dtype="f32", head="mean")).shape == (2, 32)
    with pytest.raises(ConfigError, match='labels=7 goes with head="sequence" or head="token"'):
        cutaway.load(tmp_path, labels=7)


def test_a_body_without_a_pooler(tmp_path: Path) -> None:
    """No key of the config tells of it: the names of the tensors do, theirs or ours."""
    theirs = hf.BertModel(hf.BertConfig(**BERT), add_pooling_layer=False).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    with warnings.catch_warnings(action="error", category=UserWarning):
        loaded = cutaway.load(tmp_path / "theirs")
        assert loaded.sizes.pooler is False
        assert relative_error(our_answer(loaded), answer(theirs)) < 1e-5
        built = cutaway.build("bert", pooler=False, vocab=96, width=32, layers=1, heads=4)
        for model, folder in ((loaded, "a"), (built, "b")):
            cutaway.save(model, tmp_path / folder)
            again = cutaway.load(tmp_path / folder)
            assert again.sizes == model.sizes
            assert not any("pooler" in name for name in [*weights(tmp_path / folder), *again.model.state_dict()])


# ---- broken folders: one error, naming the culprit ----


def change(folder: Path, edit) -> None:
    found = weights(folder)
    edit(found)
    safetensors.torch.save_file(found, folder / "model.safetensors")


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop(NORM), rf"lacks {NORM}"),
        (lambda w: w.update(surprise=torch.ones(2)), "holds surprise"),
        (lambda w: w.update({NORM: torch.ones(31)}), rf"{NORM} has shape \[31\].*\[32\]"),
        (lambda w: w.update({NORM: torch.full((32,), float("nan"))}), rf"{NORM}.*not finite"),
        (lambda w: w.update({NORM: torch.tensor([1.0] * 31 + [float("-inf")])}), rf"{NORM}.*not finite"),
        (lambda w: w.update({NORM: torch.ones(32, dtype=torch.int8)}), rf"{NORM} holds torch.int8"),
        (lambda w: w.update({NORM: torch.ones(32).to(torch.float8_e4m3fn)}), rf"{NORM} holds torch.float8"),
    ],
)
def test_broken_weights(edit, message: str, tmp_path: Path) -> None:
    saved("llama", tmp_path)
    change(tmp_path, edit)
    with pytest.raises(CheckpointError, match=message):
        cutaway.load(tmp_path)


def test_too_large_for_a_narrow_dtype(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    change(tmp_path, lambda w: w.update({NORM: torch.full((32,), 1e30)}))
    cutaway.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"too large for torch\.float16"):
        cutaway.load(tmp_path, dtype="float16")


def test_finite_numbers_whose_sum_overflows(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    change(tmp_path, lambda w: w.update({NORM: torch.full((32,), 3e38)}))
    cutaway.load(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope_scaling_trick": 2}, "rope_scaling_trick"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"model_type": "alien"}, "alien"),
        ({"model_type": None}, "model_type"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_parameters": {"rope_type": "magic"}}, "magic"),
        ({"rope_parameters": [1]}, "rope_parameters"),
        ({"architectures": ["LlamaForDreams"]}, "LlamaForDreams"),
        ({"architectures": "LlamaForCausalLM"}, "architectures: 'LlamaForCausalLM'; a value of type list"),
        ({"architectures": [1]}, r"architectures: \[1\]; a list of names"),
        ({"id2label": ["a", "b"]}, "id2label: .*; a value of type dict"),
        ({"attention_dropout": 1.5}, r"config\.json: dropout cannot be 1\.5"),
        ({"rms_norm_eps": -1.0}, r"config\.json: eps cannot be -1"),
        ({"rope_theta": -1.0, "rope_parameters": None}, "rotary_base cannot be -1"),
        ({"rope_parameters": {"rope_theta": 0}}, r"config\.json: rotary_base cannot be 0"),
        ({"rope_parameters": {"rope_theta": "1e4"}}, r"config\.json: .* rope_theta: '1e4'; a number"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0.0}}, r"rotary_scaling\['factor'\] cannot be 0"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"num_labels": 0}, "num_labels"),
        ({"hidden_size": 33, "head_dim": None}, "width 33 does not divide into 4 heads"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"hidden_act": "sine"}, "sine"),
        ({"num_hidden_layers": 10**8}, "at most 10000"),
        ({"num_hidden_layers": 9999}, "layers is described as"),
        ({"head_dim": 2**30}, "head_width is described as"),
        ({"vocab_size": 2**31 - 1, "hidden_size": 2**31 - 1}, "described as"),
    ],
)
def test_broken_config(config: dict, message: str, tmp_path: Path) -> None:
    saved("llama", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    with pytest.raises((ConfigError, CheckpointError), match=message) as caught:
        cutaway.load(tmp_path)
    assert str(tmp_path) in str(caught.value)  # which of the sources at hand is broken


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": 1, "a": 2}', "\xff\xfe", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}"]
)
def test_config_that_is_no_object(text: str, tmp_path: Path) -> None:
    saved("llama", tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises((CheckpointError, ConfigError), match=r"config\.json"):
        cutaway.load(tmp_path)


def sharded(folder: Path) -> tuple[Path, dict]:
    saved("llama", folder, max_shard_size="10KB")
    index = folder / "model.safetensors.index.json"
    return index, json.loads(index.read_text())


@pytest.mark.parametrize(
    "place", ["../escape.safetensors", "/etc/passwd", "..", "", "a/b.safetensors", "a\0b", "C:\\x"]
)
def test_index_pointing_outside(place: str, tmp_path: Path) -> None:
    index, value = sharded(tmp_path / "in")
    shutil.copy(next((tmp_path / "in").glob("*.safetensors")), tmp_path / "escape.safetensors")
    value["weight_map"][NORM] = place
    index.write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match="outside its folder"):
        cutaway.load(tmp_path / "in")


def test_index_through_a_link(tmp_path: Path) -> None:
    _, value = sharded(tmp_path / "in")
    shard = tmp_path / "in" / value["weight_map"][NORM]
    shutil.move(shard, tmp_path / "elsewhere.safetensors")
    os.symlink(tmp_path / "elsewhere.safetensors", shard)
    with pytest.raises(CheckpointError, match="outside its folder"):
        cutaway.load(tmp_path / "in")


def test_index_and_shards_disagree(tmp_path: Path) -> None:
    index, value = sharded(tmp_path)
    places = value["weight_map"]
    shard = places[NORM]
    other = next(place for place in places.values() if place != shard)
    for change_map, message in [
        ({NORM: other}, f"holds {NORM}|lacks {NORM}"),
        ({"surprise": shard}, "lacks surprise"),
        ({"surprise": "model-99.safetensors"}, "is missing"),
        ({NORM: 7}, "weight_map"),
    ]:
        index.write_text(json.dumps({**value, "weight_map": {**places, **change_map}}))
        with pytest.raises(CheckpointError, match=message):
            cutaway.load(tmp_path)
    index.write_text(json.dumps(value))
    (tmp_path / shard).unlink()
    with pytest.raises(CheckpointError, match=f"{shard} is missing"):
        cutaway.load(tmp_path)


def test_no_weights_no_config(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        cutaway.load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(SourceError, match=r"no config\.json"):
        cutaway.load(tmp_path)


THEIRS = ["config.json", "generation_config.json", "model.safetensors"]


def test_saving_refuses_a_folder_in_use(tmp_path: Path) -> None:
    saved("llama", tmp_path / "theirs")
    loaded = cutaway.load(tmp_path / "theirs")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "diary.txt").write_text("dear diary")
    for overwrite, message in [(False, r"exists already.*overwrite=True \(--overwrite\)"), (True, r"holds diary\.txt")]:
        with pytest.raises(CheckpointError, match=message):
            cutaway.save(loaded, tmp_path / "used", overwrite=overwrite)
        assert (tmp_path / "used" / "diary.txt").read_text() == "dear diary"
        assert sorted(p.name for p in tmp_path.rglob("*")) == sorted([*THEIRS, "theirs", "used", "diary.txt"])

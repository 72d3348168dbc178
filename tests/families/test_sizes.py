"""Sizes: which are refused, which follow from others, and that a published configuration says all of them or none."""

import dataclasses
import json
import typing
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import cutaway
from cutaway import families
from cutaway.errors import ConfigError
from cutaway.families.sizes import hints
from cutaway.layout import expand

PUBLISHED = [f for f in families.FAMILIES if families.get(f).MODEL_TYPES]
WIDE = {"vocab": 40, "width": 16, "layers": 1, "heads": 2, "hidden": 8}
TINY: dict[str, dict[str, Any]] = dict.fromkeys(families.FAMILIES, WIDE) | {
    **{family: {**WIDE, "kv_heads": 1, "head_width": 8} for family in ("llama", "qwen", "gemma2")},
    "transformerxl": {**WIDE, "head_width": 8, "table_width": 16, "cutoffs": (10, 20), "div": 2},
    "mamba": {"vocab": 40, "width": 16, "layers": 1},
    "recurrent": {"vocab": 40, "width": 16, "layers": 1},
    "seq2seq": {"vocab": 40, "width": 16, "layers": 1, "hidden": 8},
    "mamba2": {"vocab": 40, "width": 16, "layers": 1, "head_width": 8},
    "reformer": {**WIDE, "head_width": 8, "grid": (4, 4), "grid_widths": (4, 12)},
}
PRESET = {"llama": "smollm2-135m", "qwen": "qwen2-0.5b", "gemma2": "gemma-2-2b"}  # of sizes without defaults
COUNTS, SOME = st.integers(1, 3), st.sampled_from
SCALINGS: list[dict[str, Any] | None] = [
    None,
    {"rope_type": "default"},
    {"type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 2},
    {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 2, "mscale": 0, "truncate": False},
    {"rope_type": "factors", "factors": [1.0] * 4},
]
CHOICES: dict[str, Any] = {
    **dict.fromkeys(("vocab", "layers", "context", "segments", "labels", "offset", "groups", "blocks", "every"), COUNTS),
    **dict.fromkeys(("kv_heads", "heads"), SOME([1, 2])),
    "width": SOME([8, 16]), "head_width": SOME([4, 8]), "hidden": SOME([8, 32, 64]), "start": st.integers(0, 2),
    "table_width": SOME([4, 16]), **dict.fromkeys(("head_act", "kernel_act"), SOME(["relu", "gelu"])), "distance": COUNTS,
    **dict.fromkeys(("memory", "clamp"), st.none() | COUNTS), "cutoffs": SOME([(), (10, 20)]), "div": SOME([1, 2]),
    "buckets": SOME([4, 32]), "windows": SOME([(2,), (4,), (4, 6), (4, 4, 2)]), **dict.fromkeys(("block", "random"), COUNTS),
    **dict.fromkeys(("decoder_layers", "decoder_hidden", "window"), st.none() | COUNTS),
    "decoder_heads": SOME([None, 1, 2]),
    **dict.fromkeys(("expand", "state", "kernel"), COUNTS), "rank": st.none() | COUNTS,
    **dict.fromkeys(("least_step", "most_step"), st.none() | SOME([0.1, 2.0])),
    "max_distance": SOME([20, 128]), "eps": SOME([1e-5, 1e-6, 1e-12, 1]),
    **dict.fromkeys(("dropout", "attention_dropout", "hidden_dropout"), SOME([0.0, 0.1, 0])),
    **dict.fromkeys(("rotary_base", "local_rotary_base"), SOME([1e4, 500_000, 0.5])), "rotary_scaling": SOME(SCALINGS),
    "rotary_share": SOME([0.25, 0.5, 1]), "steepest": SOME([8, 16]), "scale_from": COUNTS, "windowed": st.none() | COUNTS,
    **dict.fromkeys(("clip", "scale", "softcap", "last_softcap"), SOME([None, 0.5, 30])),
    "act": SOME(["relu", "gelu", "gelu_new", "gelu_tanh", "gelu_pytorch_tanh", "silu"]), "scaled": st.booleans(),
}  # fmt: skip
CHOICES |= {  # of Reformer
    "kinds": SOME([("local",), ("lsh",), ("local", "lsh")]), "grid": SOME([None, (4, 4)]), "grid_widths": SOME([(4, 12)]),
    **dict.fromkeys(("local_chunk", "lsh_chunk", "rounds"), COUNTS), "hash_buckets": SOME([None, (4,), (2, 4)]),
    **dict.fromkeys(("local_before", "local_after", "lsh_before", "lsh_after"), st.none() | COUNTS),
    **dict.fromkeys(("hash_seed", "feedforward_chunk"), st.none() | COUNTS),
}  # fmt: skip
HEADS = {
    "reformer": ["lm", "masked-lm", "sequence", "span", "none"],
    "transformerxl": ["lm", "sequence", "none"],
    "xlnet": ["lm", "sequence", "token", "span", "none"],
    "bart": ["lm", "sequence", "span", "none"],
    "electra": ["none", "masked-lm", "sequence", "token", "span", "discriminator"],
    **dict.fromkeys(("mamba", "mamba2"), ("lm", "sequence", "token", "none")),
    **dict.fromkeys(
        ("gpt2", "llama", "gpt", "gptneox", "mpt", "bloom", "qwen", "gemma2"), ("lm", "sequence", "token", "none")
    ),
    **dict.fromkeys(
        ("bert", "roberta", "distilbert", "albert", "modernbert", "deberta", "deberta_v2", "longformer", "bigbird"),
        ("none", "masked-lm", "sequence", "token", "span"),
    ),
}


@st.composite
def sizes_of(draw: st.DrawFn, family: str) -> Any:
    """A model that composes, with any of its sizes away from its default."""
    kind = families.get(family).Sizes
    chosen = {}
    for field in dataclasses.fields(kind):
        choice = SOME(HEADS[family]) if field.name == "head" else CHOICES.get(field.name, st.booleans())
        if typing.get_origin(hints(kind)[field.name]) is typing.Literal:
            choice = SOME(typing.get_args(hints(kind)[field.name]))
        if field.default is dataclasses.MISSING or draw(st.booleans()):
            chosen[field.name] = draw(choice)
    try:
        sizes = kind(**{**TINY[family], **chosen})
        names(family, sizes)
    except ConfigError:
        assume(False)
    return sizes


def names(family: str, sizes: Any) -> list[str]:
    """Those of the tensors that a checkpoint of these sizes has."""
    module = families.get(family)
    with torch.device("meta"):
        parameters = dict(module.compose(sizes).named_parameters())
    return [entry.theirs for entry in expand(module.weights(sizes), parameters)]


@pytest.mark.parametrize("family", PUBLISHED)
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_written_reads_back_or_is_refused(family: str, data: st.DataObject) -> None:
    module = families.get(family)
    sizes = data.draw(sizes_of(family))
    try:
        config = module.write(sizes)
    except ConfigError as error:
        assert "layout='cutaway'" in str(error)  # noqa: PT017
        return
    back = module.read(json.loads(json.dumps(config)), names(family, sizes))
    if hasattr(sizes, "pooler") and sizes.head != "none":  # which have no pooler to tell of
        back = dataclasses.replace(back, pooler=sizes.pooler)
    assert back == sizes


@pytest.mark.parametrize(
    ("family", "sizes", "unsaid"),
    [
        ("llama", {"window": 3, "attention_bias": True}, "attention_bias=True"),
        ("llama", {"window": 3, "feedforward_bias": True}, "feedforward_bias=True"),
        ("llama", {"act": "gelu_tanh"}, "act='gelu_tanh'"),
        ("gpt2", {"head_width": 4}, "head_width=4"),
        ("gpt", {"head": "token"}, "head='token'"),
        ("gpt", {"act": "gelu", "hidden": 64}, "act='gelu'"),
        ("mpt", {"hidden": 24}, "hidden=24"),
        ("bloom", {"hidden": 32}, "hidden=32"),
        ("qwen", {"qkv_bias": False}, "qkv_bias=False"),
        ("qwen", {"qk_norm": True, "qkv_bias": True}, "out_bias=False"),
        ("t5", {"gated": True, "act": "gelu"}, "act='gelu'"),
        ("t5", {"model_type": "mt5"}, "scaled=None"),
        ("t5", {"tied": False, "scaled": True}, "scaled=True"),
    ],
)
def test_what_no_configuration_says(family: str, sizes: dict, unsaid: str, tmp_path) -> None:
    """Refused before anything is written; our own layout takes it."""
    model = cutaway.build(family, **{**TINY[family], **sizes})
    with pytest.raises(ConfigError, match=rf"cannot say .*{unsaid}.*; save with layout='cutaway'"):
        cutaway.save(model, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    cutaway.save(model, tmp_path / "x", layout="cutaway")
    assert cutaway.load(tmp_path / "x").sizes == model.sizes


@pytest.mark.parametrize("family", families.FAMILIES)
def test_bad_sizes(family: str) -> None:
    kind = families.get(family).Sizes
    bad = {"dropout": [1.5, 1.0, -0.1, float("nan")], "eps": [-1.0, 0.0, float("inf")], "rotary_base": [0.0, -1.0]}
    bad |= {name: [0, -1, 2**31, "3", 3.0, True, None] for name in ("vocab", "width", "layers", "heads", "hidden")}
    bad["layers"] += [10**9]
    bad |= {name: [0, -1] for name in ("labels", "context", "segments", "buckets", "window", "decoder_layers")}
    bad |= {"start": [-1], "tied": [1, None], "act": [None, 3], "model_type": ["t6"], "scaled": [0], "head": [None]}
    bad |= {"rotary_scaling": [{"rope_type": "linear", "factor": f} for f in (0, 0.0, -1.0)] + ["linear"]}
    for name in {f.name for f in dataclasses.fields(kind)} & bad.keys():
        for value in bad[name]:
            with pytest.raises(ConfigError, match=rf"^{name}(\['factor'\])? cannot be"):
                kind(**{**TINY[family], name: value})
    if "heads" in hints(kind):
        with pytest.raises(ConfigError, match="width 17 does not divide into 2 heads"):
            cutaway.build(PRESET.get(family, family), **{**WIDE, "width": 17})


@pytest.mark.parametrize(
    ("preset", "sizes", "follows"),
    [
        ("gpt2", {"width": 32, "heads": 4}, {"head_width": 8, "hidden": 128}),
        ("gpt2", {"heads": 6}, {"head_width": 128, "hidden": 3072}),
        ("gpt2", {"width": 32, "heads": 4, "head_width": 5, "hidden": 7}, {"head_width": 5, "hidden": 7}),
        ("gpt2", {"layers": 1}, {"head_width": 64, "hidden": 3072}),
        ("gpt2-medium", {"width": 64}, {"head_width": 4, "hidden": 256}),
        ("bert-base", {"width": 24}, {"hidden": 96}),
        ("llama-2-70b", {"width": 64, "heads": 16}, {"head_width": 4, "hidden": 224, "kv_heads": 2}),
        ("smollm2-135m", {"width": 36, "heads": 3}, {"head_width": 12, "hidden": 96, "kv_heads": 1}),
        ("t5-small", {"width": 32, "heads": 4}, {"head_width": 8, "hidden": 128}),
        ("t5-v1.1-small", {"width": 512, "heads": 6}, {"head_width": 64, "hidden": 1024}),
        ("t5-3b", {"layers": 1}, {"head_width": 128, "hidden": 16384}),
        ("transformer-base", {"width": 32}, {"hidden": 128}),
        ("pythia-70m", {"width": 64}, {"hidden": 256}),
        ("qwen3-0.6b", {"width": 64, "heads": 4}, {"head_width": 16, "hidden": 192, "kv_heads": 2}),
    ],
)
def test_what_follows_from_other_sizes(preset: str, sizes: dict, follows: dict) -> None:
    model = cutaway.build(preset, device="meta", **sizes)
    assert {name: getattr(model.sizes, name) for name in follows} == follows

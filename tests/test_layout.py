"""Rules read and write: every op's inverse, names that stand for several, and strictness both ways."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutaway.errors import CheckpointError, ConfigError
from cutaway.layout import (
    Entry,
    Keys,
    Op,
    Rule,
    expand,
    ignore,
    permute,
    same,
    split,
    split_heads,
    split_transposed,
    tied,
    transpose,
)

OPS = [
    (same, (6, 4)),
    (transpose, (6, 4)),
    (transpose, (6,)),
    (split(3), (6, 4)),
    (split(2, axis=1), (6, 4)),
    (split((1, 2, 3)), (6, 4)),
    (split(3), (6,)),
    (split_transposed(3), (4, 6)),
    (split_transposed(3), (6,)),
    (split_transposed((1, 2, 3)), (4, 6)),
    (split_heads(2), (12, 5)),
    (split_heads(3, 2), (12,)),
    (permute(2), (12, 5)),
    (permute(3), (12,)),
]


@pytest.mark.parametrize(("op", "shape"), OPS)
def test_ops_have_inverses(op: Op, shape: tuple[int, ...]) -> None:
    theirs = torch.randn(shape)
    ours = op.read(theirs)
    assert torch.equal(op.write(ours), theirs)
    assert op.theirs_shape([tuple(part.shape) for part in ours]) == shape
    assert all(torch.equal(a, b) for a, b in zip(op.read(op.write(ours)), ours, strict=True))


def test_what_ops_do() -> None:
    weight = torch.arange(24).reshape(4, 6)  # (in, out), GPT-2's c_attn
    q, k, v = split_transposed(3).read(weight)
    assert torch.equal(q, weight[:, :2].T)
    assert torch.equal(k, weight[:, 2:4].T)
    assert torch.equal(v, weight[:, 4:].T)
    assert permute(2).read(torch.arange(8))[0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert [x.tolist() for x in split_heads(2).read(torch.arange(12))] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]


def test_rotary_pairs_land_where_they_turn() -> None:
    """Neighbours turned by the paper's formula are halves turned by ours."""
    from cutaway.parts import Rotary
    from cutaway.parts.call import context  # noqa: F401 (the module must be importable on its own)

    x = torch.randn(1, 2, 5, 8, dtype=torch.float32)
    from cutaway.parts.context import Context

    ctx = Context(torch.arange(5)[None], "none", None, True)
    beside = Rotary(8, interleaved=True)(x, ctx)
    halves = Rotary(8)(permute(1).read(x.movedim(-1, 0))[0].movedim(0, -1), ctx)
    assert torch.allclose(permute(1).read(beside.movedim(-1, 0))[0].movedim(0, -1), halves, atol=1e-6)


RULES = [
    Rule("(t.|)wte", "embedding"),
    Rule("(t.|)h.{i}.attn.c_attn", ("blocks.{i}.q", "blocks.{i}.k", "blocks.{i}.v"), split_transposed(3)),
    Rule("(t.|)h.{i}.ln", "blocks.{i}.norm"),
    Rule("table", "relative.table"),
    tied("lm_head", "embedding"),
    ignore("(t.|)h.{i}.attn.(bias|masked_bias)", "*inv_freq"),
]
OURS = ["embedding.weight", "relative.table"]
OURS += [f"blocks.{i}.{n}" for i in (0, 10) for n in ("q.weight", "q.bias", "k.weight", "k.bias", "v.weight", "v.bias")]
OURS += [f"blocks.{i}.norm.{n}" for i in (0, 10) for n in ("weight", "bias")]
THEIRS = ["t.wte.weight", "table"]
THEIRS += [f"t.h.{i}.{n}.{s}" for i in (0, 10) for n in ("attn.c_attn", "ln") for s in ("weight", "bias")]


def test_writing_takes_the_first_spelling_and_no_second_name() -> None:
    entries = list(expand(RULES, OURS))
    assert sorted(entry.theirs for entry in entries) == sorted(THEIRS)
    assert sorted(name for entry in entries for name in entry.ours) == sorted(OURS)
    biases = next(entry for entry in entries if entry.theirs == "t.h.10.attn.c_attn.bias")
    assert biases == Entry(
        biases.theirs, ("blocks.10.q.bias", "blocks.10.k.bias", "blocks.10.v.bias"), split_transposed(3)
    )


@pytest.mark.parametrize(
    "names",
    [
        THEIRS,
        [name.removeprefix("t.") for name in THEIRS],
        [name.replace("ln.weight", "ln.gamma").replace("ln.bias", "ln.beta") for name in THEIRS],
        [*THEIRS, "lm_head.weight"],
        [name if name != "t.wte.weight" else "lm_head.weight" for name in THEIRS],
        [*THEIRS, "t.h.0.attn.bias", "h.3.attn.masked_bias", "deep.down.inv_freq"],
    ],
)
def test_reading_takes_any_spelling(names: list[str]) -> None:
    filled = {name for entry in expand(RULES, OURS, names) for name in entry.ours}
    assert filled == set(OURS)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (THEIRS[1:], r"lacks t\.wte\.weight"),
        ([n for n in THEIRS if n != "t.h.10.attn.c_attn.bias"], r"lacks t\.h\.10\.attn\.c_attn\.bias: "),
        ([*THEIRS, "t.h.1.ln.weight"], r"holds t\.h\.1\.ln\.weight, which"),
        ([*THEIRS, "t.h.0.attn.bias.extra"], r"holds t\.h\.0\.attn\.bias\.extra"),
        ([*THEIRS, "xinv_freqx"], "holds xinv_freqx"),
        ([*THEIRS, *(f"e{i}" for i in range(9))], r"holds e0, e1, e2, e3, e4 and 4 more"),
        ([n.replace(".0.", ".00.") for n in THEIRS], "lacks"),
        ([n.replace("t.wte", "t_wte") for n in THEIRS], "lacks"),
    ],
)
def test_strict_both_ways(names: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        list(expand(RULES, OURS, names))


def test_a_parameter_without_a_rule() -> None:
    with pytest.raises(CheckpointError, match=r"lacks anything for stray\.weight"):
        list(expand(RULES, [*OURS, "stray.weight"], THEIRS))


def test_optional_rules_may_go_unfilled() -> None:
    rules = [Rule("a", "a"), Rule("head", "head", optional=True)]
    assert [entry.theirs for entry in expand(rules, ["a.weight", "head.weight"], ["a.weight"])] == ["a.weight"]
    with pytest.raises(CheckpointError):
        list(expand(rules, ["a.weight", "head.weight"], ["head.weight"]))


@given(st.lists(st.text(max_size=30), max_size=12))
def test_any_names_give_entries_or_one_error(names: list[str]) -> None:
    try:
        entries = list(expand(RULES, OURS, names))
    except CheckpointError:
        return
    assert {name for entry in entries for name in entry.ours} == set(OURS)


# ---- configs ----


def test_keys_are_used_ignored_or_refused() -> None:
    keys = Keys({"a": 1, "b": None, "model_type": "x", "c": 3, "rate": 2, "is_decoder": False}, "test")
    assert keys.take("a") == 1
    assert keys.take("missing", 7) == 7
    assert keys.take("rate", 0.5) == 2.0
    with pytest.raises(ConfigError, match="c: 3"):
        keys.finish()
    keys.ignore("c")
    keys.finish()


@pytest.mark.parametrize(
    "ask",
    [
        lambda k: k.take("absent"),
        lambda k: k.take("text", 3),
        lambda k: k.take("flag", 3),
        lambda k: k.take("nan", 0.1),
        lambda k: k.size("negative"),
        lambda k: k.size("huge"),
        lambda k: k.size("text"),
        lambda k: k.expect("text", "other", "another"),
        lambda k: k.expect("one", True),
    ],
)
def test_values_of_a_wrong_kind(ask) -> None:
    config = {"text": "x", "flag": True, "nan": float("nan"), "negative": -1, "huge": 2**40, "one": 1}
    with pytest.raises(ConfigError, match="test config"):
        ask(Keys(config, "test"))


@given(st.dictionaries(st.sampled_from(["is_decoder", "add_cross_attention", "tie_encoder_decoder"]), st.booleans()))
def test_harmless_only_at_their_defaults(config: dict[str, bool]) -> None:
    if any(config.values()):
        with pytest.raises(ConfigError):
            Keys(config, "test").finish()
    else:
        Keys(config, "test").finish()

"""LoRA as a part. What it computes is held against `peft` in tests/checkpoints/test_adapters.py."""

import copy

import pytest
import torch
from tests.test_docs import script

import cutaway
from cutaway import families
from cutaway.errors import ConfigError
from cutaway.parts import EncoderDecoder, lora

TABLE = script("objective_table")
SIZES = {"vocab": 60, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "hidden": 48, "head_width": 8, "seed": 0}


def llama(**more):
    return cutaway.build("llama", **SIZES, **more)


def stir(model):
    """What no fresh adapter has: a B that is not zero."""
    with torch.no_grad():
        for _, linear in lora.adapted(model):
            for detour in linear.detours.values():
                detour.b.normal_(std=0.3)


@pytest.mark.parametrize("family", [family for family in families.FAMILIES if family != "recurrent"])
def test_no_detour_of_any_family_is_passed_by(family):
    model, _ = TABLE.built(family, 100)
    before = [n for n, p in model.named_parameters() if p.requires_grad]
    ids = torch.randint(1, 100, (2, 32))
    arguments = (ids, ids) if isinstance(model, EncoderDecoder) else (ids,)
    more = {"global_mask": ids < 9} if family == "longformer" else {}

    @torch.no_grad()
    def said(model):
        return model.eval()(*arguments, **more)

    expected = said(model)
    paths = lora.attach(model, 2, dropout=0.5)
    assert len(paths) >= 3
    # B is zero; torch computes LSTMs otherwise where their weights are frozen
    torch.testing.assert_close(said(model), expected, rtol=0, atol=1e-6 if family == "seq2seq" else 0)
    stir(model)
    model(*arguments, **more).square().sum().backward()
    for path in paths:
        detour = model.get_submodule(path).detours["default"]
        assert detour.a.grad is not None, path
        assert detour.a.grad.any(), path
        assert detour.b.grad.any(), path
    assert all(p.grad is None for n, p in model.named_parameters() if ".detours." not in n)
    merged = copy.deepcopy(model)
    lora.merge(merged)
    if family != "reformer":  # whose hashes take sides by tiny differences
        assert (said(merged) - said(model)).abs().max() < 1e-4 * said(model).abs().max()
    assert [n for n, p in merged.named_parameters() if p.requires_grad] == before
    lora.detach(model)
    assert torch.equal(said(model), expected)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == before


def test_the_equation():
    linear = torch.nn.Linear(5, 3)
    adapted = lora.LoRALinear(linear)
    adapted.detours["x"] = lora.Detour(linear, 2, 6.0)
    adapted.used = "x"
    detour = adapted.detours["x"]
    torch.nn.init.normal_(detour.b)
    x = torch.randn(4, 5)
    by_hand = x @ linear.weight.T + linear.bias + 6 / 2 * (x @ detour.a.T @ detour.b.T)
    torch.testing.assert_close(adapted(x), by_hand)


def test_dropout_is_of_the_detour_alone_and_only_in_training():
    model = llama()
    ids = torch.arange(20)[None]
    plain = model(ids)
    lora.attach(model, 4, dropout=0.5)
    assert torch.equal(model.train()(ids), plain)  # B is zero, and nothing else drops
    stir(model)
    assert not torch.equal(model(ids), model(ids))
    assert torch.equal(model.eval()(ids), model(ids))


def test_which_matrices():
    model = llama()
    assert len(lora.attach(model, targets=["q", "v"])) == 4
    assert lora.attach(model, targets="stack.blocks.1.feedforward.inner.up", name="second") == [
        "stack.blocks.1.feedforward.inner.up"
    ]
    assert len(lora.attach(model, name="third")) == 14
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 28
    assert all(".detours.third." in n for n in trained)
    lora.use(model, "second")
    assert sum(p.requires_grad for p in model.parameters()) == 2


def test_wrong_use_is_said_clearly():
    with pytest.raises(ConfigError, match="there are none"):
        lora.attach(TABLE.built("recurrent", 60)[0])
    model = llama()
    for options, said in [
        ({"rank": 0}, "rank"),
        ({"dropout": 1.0}, "dropout"),
        ({"targets": ["q", "query"]}, "no matrix here is called query; there are .*down, gate, k, out, q, up, v"),
        ({"targets": "tokens"}, "tokens"),
        ({"targets": []}, "no matrix"),
        ({"name": ""}, "name"),
        ({"name": "a.b"}, "name"),
    ]:
        with pytest.raises(ConfigError, match=said):
            lora.attach(model, **options)
        assert not lora.names(model)
        assert all(p.requires_grad for p in model.parameters())
    lora.attach(model)
    with pytest.raises(ConfigError, match="already"):
        lora.attach(model)
    for call in (lora.use, lora.detach):
        with pytest.raises(ConfigError, match="there are default"):
            call(model, "other")


def test_heads_trained_whole_take_turns_too():
    model = cutaway.build("bert-tiny", vocab=60, head="sequence", seed=0)
    ids = torch.arange(20)[None]
    said = {"": model(ids).detach()}
    for name in ("first", "second"):
        lora.attach(model, 2, name=name, also=["head"])
        stir(model)
        rates = [p for p in model.parameters() if p.requires_grad]
        assert any(p is model.head.out.weight for p in rates)
        optimizer = torch.optim.SGD(rates, lr=0.1)
        model(ids)[0, 0].backward()
        optimizer.step()
        said[name] = model(ids).detach()
    model = copy.deepcopy(model)
    for name in ("first", "second", "first", "", "second"):
        lora.use(model, name or None)
        if name != "first":  # whose detours `stir` has stirred again
            assert torch.equal(model(ids), said[name])
    lora.detach(model, "second")
    assert lora.used(model) is None
    lora.detach(model)
    assert torch.equal(model(ids), said[""])


def test_lower_precision():
    model = llama().bfloat16()
    lora.attach(model, 4)
    stir(model)
    ids = torch.arange(20)[None]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    adapted = model(ids)
    lora.merge(model)
    assert (model(ids) - adapted).abs().max() < 0.1 * adapted.abs().max()

"""Every family learns by its own objective; and none that is asked for what comes next can see it."""

import pytest
import torch
from tests.test_docs import script

from cutaway import families
from cutaway.parts import EncoderDecoder

TABLE = script("objective_table")


@pytest.fixture(scope="module")
def texts(data):
    return TABLE.Texts(data)


def falls(family, texts):
    line = TABLE.learn(family, texts)
    # a model that only learns that there are 101 characters and which are rare gets this far; most get further
    assert line.losses[50] < line.losses[0] * 0.8, line


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5", "electra", "xlnet", "seq2seq"])
def test_the_loss_falls(family, texts):
    falls(family, texts)


@pytest.mark.slow
@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_loss_of_every_family_falls(family, texts):
    falls(family, texts)


def test_the_page_tells_of_every_family():
    shown = TABLE.PAGE.read_text(encoding="utf-8").split(TABLE.BEGIN)[1].split(TABLE.END)[0].strip().splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown]
    assert head[4:6] == ["loss before", "after 50"]
    assert [row[0] for row in rows] == list(families.FAMILIES)
    for family, preset, objective, _, before, after, *_ in rows:
        presets = families.get(family).PRESETS
        assert preset in presets
        assert objective == TABLE.own(family, presets[preset])
        assert float(after) < float(before) * 0.8


def writes(family):
    sizes = next(iter(families.get(family).PRESETS.values()))
    return TABLE.own(family, sizes) in ("causal", "spans", "denoising", "translation")


@pytest.mark.parametrize("family", [family for family in families.FAMILIES if writes(family)])
def test_the_future_does_not_leak(family):
    """What the model says at a token has no gradient in any later one, and has one in it and in those before."""
    model, _ = TABLE.built(family, 100)
    stack = model.decoder if isinstance(model, EncoderDecoder) else model.stack
    ids = torch.randint(100, (1, 20))
    read = stack.embedding.tokens(ids).detach().requires_grad_()
    arguments = {"target_ids": ids} if isinstance(model, EncoderDecoder) else {}
    source = ids[:, :5] if isinstance(model, EncoderDecoder) else ids  # told apart by its length
    stack.embedding.tokens.register_forward_hook(lambda part, given, out: read if out.shape[1] == 20 else out)
    said = model(source, **arguments, head=False)
    assert said.shape[1] == 20
    said[0, 11].square().sum().backward()
    assert read.grad[0, :12].any(-1).sum() > 6  # windows and hashes may miss some
    assert read.grad[0, 11].any()
    rounding = 1e-6 if family == "s4" else 0  # it convolves by Fourier transform, which rounds everywhere
    assert read.grad[0, 12:].abs().max() <= rounding * read.grad.abs().max()

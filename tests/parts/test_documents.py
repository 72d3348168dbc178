"""Several documents in a row: each gets the numbers, and sends back the gradients, that it would alone; or a refusal."""

import pytest
import torch
from tests.families.proof import tiny
from tests.families.test_sizes import TINY

import cutaway
from cutaway import swaps
from cutaway.attention import backend
from cutaway.errors import ConfigError
from cutaway.parts import EncoderDecoder, State

# scans, sums and whatever else has no place to forbid a pair, or asks for columns where it needs positions
REFUSED = {
    "linear_transformer", "linformer", "mamba", "mamba2", "performer", "recurrent", "s4",
}  # fmt: skip
KEEPING = {"attention", "window", "strided", "block-sparse", "synthesizer", "random-synthesizer"}  # of mixers by name
SIZES = {"vocab": 50, "width": 32, "layers": 2, "heads": 4, "dropout": 0.0}


def packed(vocab: int):
    """Two rows of documents, the second with padding behind and one document in two pieces around another."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, vocab, (2, 12), generator=draw)
    documents = torch.tensor([[0] * 4 + [1] * 7 + [2], [7, 7, 7, 3, 3, 3, 7, 7, 0, 0, 0, 0]])
    padding = torch.ones(2, 12, dtype=torch.bool)
    padding[1, 8:] = False
    return ids, documents, padding


def compared(model):
    """The largest difference of logits, and of gradients, between packed and alone; relative to the largest number."""
    ids, documents, padding = packed(model.vocab)
    together = model(ids, padding, documents=documents)
    draw = torch.Generator().manual_seed(2)
    pull = torch.randn(together.shape, generator=draw)
    parameters = [p for p in model.parameters() if p.requires_grad]
    asked = (together * pull * padding.view(2, 12, *[1] * (together.ndim - 2))).sum()
    ours = torch.autograd.grad(asked, parameters, allow_unused=True)
    loss, error = torch.zeros(()), 0.0
    for row, document in ((0, 0), (0, 1), (0, 2), (1, 7), (1, 3)):
        where = (documents[row] == document) & padding[row]
        alone = model(ids[row, where][None])[0]
        error = max(error, float(((alone - together[row, where]).abs().max() / alone.abs().max()).detach()))
        loss = loss + (alone * pull[row, where]).sum()
    theirs = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert [g is None for g in ours] == [g is None for g in theirs]
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    most = max(float(b.abs().max()) for _, b in pairs)
    return error, max(float((a - b).abs().max()) for a, b in pairs) / most


def lively(model):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4 if p.ndim == 2 else 1)
    return model


@pytest.mark.parametrize("family", sorted(TINY))
def test_every_family_keeps_documents_apart_or_says_that_it_cannot(family):
    model = tiny(family)
    if isinstance(model, EncoderDecoder) or not hasattr(model, "stack"):
        pytest.skip("texts in pairs are not packed")
    if family in REFUSED:
        ids, documents, padding = packed(model.vocab)
        with pytest.raises(ConfigError, match="cannot keep several documents in a row apart"):
            model(ids, padding, documents=documents)
        return
    logits, gradients = compared(lively(model))
    assert logits < 1e-5
    assert gradients < 1e-5


@pytest.mark.parametrize("preset", ["gpt2", "bert-base"])
@pytest.mark.parametrize("mixer", swaps.MIXERS)
def test_every_mixer(preset, mixer):
    kind = swaps.MIXERS[mixer]
    if not (kind.causal if preset == "gpt2" else kind.both_ways):
        pytest.skip("not of this direction")
    sizes = {**SIZES, "context": 64}
    model = lively(cutaway.build(preset, mixer=mixer, seed=0, **sizes).eval())
    if mixer in KEEPING:
        assert max(compared(model)) < 1e-5
        return
    with pytest.raises(ConfigError, match="cannot keep several documents in a row apart"):
        compared(model)


@pytest.mark.parametrize("position", swaps.POSITIONS)
@pytest.mark.parametrize("preset", ["gpt2", "bert-base"])
def test_every_position(preset, position):
    model = lively(cutaway.build(preset, position=position, seed=0, **SIZES, context=64).eval())
    assert max(compared(model)) < 1e-5


@pytest.mark.parametrize("name", ["eager", "sdpa", "sparse", "tiled"])
@pytest.mark.parametrize("mixer", ["attention", "window:3"])
def test_every_backend(name, mixer):
    model = lively(cutaway.build("gpt2", mixer=mixer, seed=0, **SIZES, context=64).eval())
    with backend(name):
        assert max(compared(model)) < 1e-5


@torch.no_grad()
def test_long_rows_do_not_take_a_path_that_knows_no_documents():
    """Long enough that windows would be computed by blocks, and without any padding."""
    model = lively(cutaway.build("gpt2", mixer="window:16", seed=0, **SIZES, context=512).eval())
    ids = torch.randint(0, 50, (1, 600))
    documents = torch.arange(600)[None] // 300
    together = model(ids, documents=documents)
    apart = torch.cat([model(piece) for piece in ids.split(300, 1)], 1)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    assert (model(ids, positions=torch.arange(600)[None] % 300) - apart).abs().max() > 0.01  # without, they are seen


@torch.no_grad()
def test_nothing_of_another_document_is_seen():
    """The other document's tokens may be anything."""
    model = lively(tiny("llama"))
    ids, documents, _ = packed(model.vocab)
    other = torch.where(documents == 1, (ids + 1) % model.vocab, ids)
    same = documents != 1
    torch.testing.assert_close(model(ids, documents=documents)[same], model(other, documents=documents)[same])


def test_what_makes_no_sense_is_refused():
    model = tiny("gpt2")
    ids, documents, _ = packed(model.vocab)
    with pytest.raises(ConfigError, match="one text a row"):
        model(ids, documents=documents, state=State(2, 20))
    with pytest.raises(ConfigError, match="documents run from"):
        model(ids, documents=documents - 1)
    classifier = cutaway.build("gpt2", head="sequence", seed=0, **SIZES)
    with pytest.raises(ConfigError, match="SequenceHead cannot keep"):
        classifier(ids % 50, documents=documents)

"""`inspect` on whole models: the attention is the reference's, and looking changes nothing."""

import base64
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.families.oracles import CASES, Case, counterpart, reference

import cutaway
from cutaway.attention import Causal, recording
from cutaway.inspection import PictureError, inspect
from cutaway.inspection.codec import pack_patterns
from cutaway.parts import Attention
from cutaway.parts.recurrence import Recurrence

IDS = torch.randint(3, 90, (13,), generator=torch.Generator().manual_seed(1))
TARGET = torch.randint(3, 90, (9,), generator=torch.Generator().manual_seed(2))
ONE_EACH = {
    name: next(case for case in CASES if case.name == name)
    for name in ("llama-grouped-keys", "gpt2-as-published", "bert-masked-language", "t5-1.0")
}


class Words:
    """A tokenizer of numbers, enough for what `inspect` asks of one."""

    eos_ids = frozenset({1})

    def encode(self, text: str, special: bool = True) -> list[int]:
        return [int(word) for word in text.split()] + ([1] if special else [])

    def tokens(self, ids: list[int]) -> list[str]:
        return [f" {index}" for index in ids]


@pytest.mark.parametrize("case", ONE_EACH.values(), ids=lambda case: case.name)
@torch.no_grad()
def test_attention_is_the_references_and_logits_keep_every_bit(case: Case) -> None:
    theirs = reference(case)
    theirs.set_attn_implementation("eager")
    ours = counterpart(theirs)
    if case.family == "t5":
        found = inspect(ours, ids=IDS, target_ids=TARGET)
        plain = ours(IDS[None], TARGET[None])
        output = theirs(input_ids=IDS[None], decoder_input_ids=TARGET[None], output_attentions=True)
        expected = {
            "encoder": output.encoder_attentions,
            "self": output.decoder_attentions,
            "cross": output.cross_attentions,
        }
    else:
        found = inspect(ours, ids=IDS)
        plain = ours(IDS[None])
        expected = {"self": theirs(input_ids=IDS[None], output_attentions=True).attentions}
    assert torch.equal(found.output, plain)
    assert list(found.patterns) == list(expected)
    for kind, layers in expected.items():
        for layer, weights in enumerate(layers):
            for head in range(weights.shape[1]):
                np.testing.assert_allclose(found.attention(layer, head, kind), weights[0, head].numpy(), atol=2e-5)


@pytest.mark.parametrize("case", ONE_EACH.values(), ids=lambda case: case.name)
def test_every_picture_of_every_family(case: Case, tmp_path) -> None:
    found = inspect(SimpleNamespace(model=counterpart(reference(case)), tokenizer=Words()), "5 6 7 \n 8")
    assert found.tokens == ("·5", "·6", "·7", "·8", "·1")
    kind = next(iter(found.patterns))
    for picture in (
        found,
        found.heatmap(kind=kind),
        found.heatmap(1, 2, kind=kind),
        found.heads(layer=1, kind=kind),
        found.next_tokens(3),
        found.positions(),
    ):
        for suffix in ("png", "html"):
            assert picture.save(tmp_path / f"x.{suffix}").stat().st_size > 5_000
    assert "<script>" in found._repr_html_()


def test_predictions_are_the_softmax_of_the_logits() -> None:
    ours = counterpart(reference(ONE_EACH["llama-grouped-keys"]))
    found = inspect(ours, ids=IDS)
    content = found.next_tokens(4).content()
    assert len(content["next"]) == len(IDS)
    assert content["panel"] == len(IDS) - 1
    with torch.no_grad():
        expected = ours(IDS[None])[0].softmax(-1).topk(4)
    for panel, values, indices in zip(content["next"], *expected, strict=True):
        assert [item["id"] for item in panel["items"]] == indices.tolist()
        assert [item["p"] for item in panel["items"]] == pytest.approx(values.tolist(), abs=2e-6)


def test_masks_are_what_a_masked_model_predicts() -> None:
    ours = counterpart(reference(ONE_EACH["bert-masked-language"]))
    tokens = ["[CLS]", "a", "[MASK]", "c", "[MASK]", "[SEP]"]
    content = inspect(ours, ids=IDS[:6], tokens=tokens).next_tokens(2).content()
    assert [panel["label"] for panel in content["next"]] == ["at “[MASK]” (2)", "at “[MASK]” (4)"]
    with torch.no_grad():
        best = ours(IDS[None, :6])[0, [2, 4]].argmax(-1)
    assert [panel["items"][0]["id"] for panel in content["next"]] == best.tolist()
    assert content["nextName"] == "Tokens predicted"


def test_without_a_target_the_decoder_reads_its_own_greedy_text() -> None:
    theirs = reference(ONE_EACH["t5-1.0"])
    ours = counterpart(theirs)
    found = inspect(SimpleNamespace(model=ours, tokenizer=Words()), ids=IDS)
    written = theirs.generate(
        input_ids=IDS[None], max_new_tokens=31, do_sample=False, num_beams=1, eos_token_id=1, pad_token_id=0
    )[0].tolist()
    written = written[: written.index(1)] if 1 in written else written
    assert found.target_tokens == tuple(f"·{index}" for index in written)


def test_a_target_text_starts_with_the_start_token() -> None:
    ours = counterpart(reference(ONE_EACH["t5-1.0"]))
    found = inspect(SimpleNamespace(model=ours, tokenizer=Words()), "5 6", "7 8 9")
    assert found.target_tokens == ("·0", "·7", "·8", "·9")
    assert found.attention(0, 0, "cross").shape == (4, 3)


def test_dropout_rests_and_comes_back() -> None:
    ours = counterpart(reference(ONE_EACH["gpt2-as-published"])).train()
    first, second = (inspect(ours, ids=IDS).output for _ in range(2))
    assert torch.equal(first, second)
    assert all(module.training for module in ours.modules())


def test_what_cannot_be_looked_into_says_so() -> None:
    ours = counterpart(reference(ONE_EACH["gpt2-as-published"]))
    for arguments, message in [
        ({}, "give either the text or its ids"),
        ({"text": "hello"}, "reads no text: give ids="),
        ({"ids": torch.zeros(2, 3, dtype=torch.int64)}, r"\(2, 3\): look into one sequence"),
        ({"ids": []}, "T at least 1"),
        ({"ids": [0.5]}, "integers"),
        ({"ids": [1, 2], "tokens": ["a"]}, r"1 given tokens do not fit .*has 2"),
        ({"ids": [1, 2], "target": "x"}, "takes no target"),
    ]:
        with pytest.raises(PictureError, match=message):
            inspect(ours, **arguments)
    with pytest.raises(PictureError, match="cannot look into a dict"):
        inspect({}, "text")
    found = inspect(ours, ids=IDS)
    with pytest.raises(PictureError, match="no attention of kind 'cross'; it has self"):
        found.attention(0, 0, "cross")
    with pytest.raises(PictureError, match="no head 9"):
        found.heatmap(0, 9)
    body = counterpart(reference(next(case for case in CASES if case.name == "gpt2-body-alone")))
    with pytest.raises(PictureError, match="no language head"):
        inspect(body, ids=IDS).next_tokens()


MIXED = {"vocab": 60, "width": 32, "layers": 4, "heads": 4, "seed": 0}


def mixers(preset: str, **sizes):
    return inspect(cutaway.build(preset, **sizes), ids=[5, 6, 7, 8, 9, 10])


def test_channels_are_shown_in_groups_that_are_their_means():
    seen = mixers("mamba-130m", vocab=60, width=32, layers=2, seed=0)
    shown = seen.pattern()
    assert len(shown.heads) == 16
    assert shown.each == "group"
    assert shown.note == "Each pattern is the mean over 4 of 64 channels."
    model = cutaway.build("mamba-130m", vocab=60, width=32, layers=2, seed=0)
    with torch.no_grad(), recording() as trace:
        model(torch.tensor([[5, 6, 7, 8, 9, 10]]))
    channels = trace["blocks.1.mixer"].weights()[0]  # (64, Q, K)
    np.testing.assert_allclose(seen.attention(1, 2), channels[8:12].mean(0).numpy(), atol=1e-6)
    with pytest.raises(PictureError, match="no group 16"):
        seen.attention(0, 16)


def test_negative_patterns_have_a_scale_to_both_sides(tmp_path):
    seen = mixers("s4-wikitext", vocab=60, width=32, layers=2, seed=0)
    (entry,) = pack_patterns(seen.patterns.values())
    assert entry["signed"]
    assert "Blue is negative" in entry["sentence"]
    codes = np.frombuffer(zlib.decompress(base64.b64decode(entry["bytes"])), np.uint8).astype(float) - 128
    found = (np.sign(codes) * (codes / 127) ** 2 * entry["high"]).reshape(2, 16, 6, 6)
    exact = np.stack(list(seen.pattern()))
    assert exact.min() < 0
    assert not found[exact == 0].any()
    np.testing.assert_allclose(found, exact, atol=entry["high"] / 100)
    norm = seen.heatmap(layer=0, head=1).figure.axes[0].images[0].norm
    assert norm(0.0) == 0.5
    for name in ("x.png", "x.svg", "x.html"):
        seen.save(tmp_path / name)
    seen.heads(layer=1).save(tmp_path / "heads.png")


def test_layers_of_different_kinds_make_one_picture(tmp_path):
    """Attention of four heads beside 64 channels, beside 32 channels."""
    seen = mixers("gpt2", mixer=["attention", "mamba"], **MIXED)
    shown = seen.pattern()
    assert (shown.layers, shown.heads, shown.each) == ((0, 1, 2, 3), (0, 1, 2, 3), "head")
    assert shown.note == "Each pattern in layers 1, 3 is the mean over 16 of 64 channels."
    np.testing.assert_allclose(seen.attention(2, 3).sum(-1), 1, atol=1e-5)
    seen.save(tmp_path / "x.png")
    some = mixers("gpt2", mixer=["attention", "lstm"], **MIXED)
    assert some.pattern().note == "Each pattern in layers 1, 3 is the mean over 8 of 32 channels."
    some.save(tmp_path / "x.html")


def test_a_layer_of_fewer_heads_leaves_the_others_empty():
    model = cutaway.build("gpt2", **MIXED)
    model.stack.blocks[1].attention.inner = Attention(32, 2, mask=Causal())
    seen = inspect(model, ids=[5, 6, 7])
    assert seen.pattern().heads == (0, 1, 2, 3)
    assert not seen.attention(1, 2).any()
    assert seen.attention(1, 1).any()
    assert "each row sums to 1" in pack_patterns(seen.patterns.values())[0]["sentence"]


def test_a_model_without_patterns_shows_what_it_predicts(tmp_path, monkeypatch):
    """As one with a part of somebody's own, which tells nothing."""
    monkeypatch.setattr(Recurrence, "_show", lambda *_: None)
    mixed = mixers("gpt2", mixer=["attention", "lstm"], **MIXED)
    assert mixed.pattern().layers == (0, 2)
    seen = mixers("lstm-small", vocab=60, width=16, seed=0)
    assert '"view":"next"' in seen.save(tmp_path / "x.html").read_text()
    seen.save(tmp_path / "x.png")

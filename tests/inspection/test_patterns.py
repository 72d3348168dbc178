"""Plain arrays: what is accepted, what is refused and how, what a page stores of them."""

import base64
import zlib

import numpy as np
import pytest
import torch

from cutaway.inspection import PictureError, heads, heatmap, next_tokens, positions
from cutaway.inspection.codec import BUDGET, pack_patterns, pool
from cutaway.inspection.patterns import pattern

RNG = np.random.default_rng(0)


def softmax(*shape: int) -> np.ndarray:
    return torch.randn(shape).mul(3).softmax(-1).numpy()


def unpack(entry: dict) -> np.ndarray:
    """What the page reads, by the definition of the code."""
    codes = np.frombuffer(zlib.decompress(base64.b64decode(entry["bytes"])), np.uint8)
    rows, columns = (-(-len(entry[side]) // entry["step"]) for side in "qk")
    shape = (len(entry["layers"]), len(entry["heads"]), rows, columns)
    return ((codes / 255.0) ** 2 * entry["high"]).reshape(shape)


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (2, 3, 5, 7)])
def test_arrays_of_all_ranks_and_kinds_give_the_same_pattern(shape: tuple[int, ...]) -> None:
    array = softmax(*shape)
    for given in (array, torch.tensor(array, requires_grad=True), array.tolist()):
        shown = pattern(given)
        whole = np.stack(list(shown))
        assert whole.shape == (1,) * (4 - len(shape)) + shape
        np.testing.assert_array_equal(whole.reshape(shape), array)
    assert pattern(torch.tensor(array).bfloat16()).layer(0).dtype == np.float32


def test_a_list_of_layers_with_a_batch_of_one() -> None:
    layers = [torch.rand(1, 3, 4, 4) for _ in range(2)]
    np.testing.assert_array_equal(np.stack(list(pattern(layers))), torch.cat(layers).numpy())
    np.testing.assert_array_equal(pattern(tuple(layers)).choose(1, -1).layer(0)[0], layers[1][0, 2].numpy())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros((0, 4)), r"nothing to draw: the weights have shape \(0, 4\)"),
        (np.zeros(4), r"shape \(4,\): give \(Q, K\)"),
        (np.zeros((1, 1, 1, 2, 2)), r"give \(Q, K\)"),
        (np.array([[1, np.nan]]), r"shape \(1, 2\) hold nan at index \(0, 1\)"),
        (np.array([[np.inf, 0]]), "hold inf"),
        (np.array([[-0.25, 1]]), r"negative \(-0.25\) at index \(0, 0\)"),
        ("text", "no array of numbers"),
        ([np.ones((1, 2, 3, 3)), np.ones((1, 2, 4, 4))], "all alike"),
    ],
)
def test_what_no_picture_can_be_drawn_from(weights: object, message: str) -> None:
    for draw in (heatmap, heads):
        with pytest.raises(PictureError, match=message):
            draw(weights)


def test_tokens_and_numbers_must_fit() -> None:
    weights = softmax(2, 3, 4, 5)
    with pytest.raises(PictureError, match=r"4 key tokens do not fit weights of shape \(2, 3, 4, 5\)"):
        heatmap(weights, ["a"] * 4)
    heatmap(weights, q_tokens=["a"] * 4, k_tokens=["b"] * 5)
    with pytest.raises(PictureError, match="no layer 2: this attention has layer 0 to 1"):
        heatmap(weights, layer=2)
    with pytest.raises(PictureError, match="no head -4"):
        heads(weights, head=-4)


def test_the_code_keeps_small_weights_and_exact_ends() -> None:
    weights = softmax(3, 2, 9, 9)
    weights[0, 0, 0] = 0
    weights[0, 0, 0, 0] = 1
    (entry,) = pack_patterns([pattern(weights)])
    found = unpack(entry)
    np.testing.assert_allclose(np.sqrt(found), np.sqrt(weights), atol=0.5 / 255 + 1e-6)
    assert found[0, 0, 0, 0] == 1
    assert found[0, 0, 0, 1] == 0
    assert "each row sums to 1" in entry["sentence"]


def test_weights_above_one_set_the_scale_for_all_layers() -> None:
    weights = np.full((2, 1, 2, 2), 0.5, np.float32)
    weights[1] = 4.0
    (entry,) = pack_patterns([pattern(weights)])
    assert entry["high"] == 4
    assert "do not all sum" in entry["sentence"]
    np.testing.assert_allclose(unpack(entry), weights, atol=0.02)


def test_a_large_model_makes_a_small_page() -> None:
    weights = torch.randn(30, 9, 40, 40).mul(3).masked_fill(torch.ones(40, 40).triu(1).bool(), -torch.inf)
    page = heatmap(weights.softmax(-1), [f" token{i}" for i in range(40)]).html()
    assert len(page) < 500_000


def test_very_much_attention_is_pooled_not_dropped() -> None:
    side = 1 + int((BUDGET / 2) ** 0.5)
    weights = np.zeros((2, 1, side, side), np.float32)
    weights[1, 0, side - 1, 0] = 1
    (entry,) = pack_patterns([pattern(weights)])
    assert entry["step"] == 2
    found = unpack(entry)
    assert found[1, 0, -1, 0] == 1
    assert found.sum() == 1


def test_pooling_against_torch() -> None:
    values = RNG.random((2, 7, 10)).astype(np.float32)
    expected = torch.nn.functional.max_pool2d(torch.tensor(values), 3, ceil_mode=True).numpy()
    np.testing.assert_array_equal(pool(values, 3), expected)


def test_next_tokens_against_torch() -> None:
    logits = torch.randn(50) * 3
    expected = logits.softmax(-1).topk(4)
    for scores in (logits, logits.softmax(-1)):
        (panel,) = next_tokens(scores, [f"t{i}" for i in range(50)], k=4).content()["next"]
        assert [item["id"] for item in panel["items"]] == expected.indices.tolist()
        assert [item["token"] for item in panel["items"]] == [f"t{i}" for i in expected.indices]
        assert [item["p"] for item in panel["items"]] == pytest.approx(expected.values.tolist(), abs=1e-5)
        assert panel["rest"] == pytest.approx(1 - expected.values.sum().item(), abs=1e-5)
    assert len(next_tokens(logits, lambda i: str(i), k=99).content()["next"][0]["items"]) == 50
    for wrong, message in [
        ({"scores": logits[None]}, r"\(1, 50\)"),
        ({"k": 0}, "k = 0"),
        ({"tokens": ["a"]}, "1 tokens"),
    ]:
        with pytest.raises(PictureError, match=message):
            next_tokens(**{"scores": logits, **wrong})


def test_positions_take_what_they_name() -> None:
    with pytest.raises(PictureError, match=r"shape \(3,\) is no table: give \(T, D\)"):
        positions(np.zeros(3))
    with pytest.raises(PictureError, match="no kind 'sine'"):
        positions(np.zeros((3, 2)), kind="sine")  # type: ignore[arg-type]
    assert len(positions(np.ones((3, 4, 4))).content()["positions"][0]["blocks"]) == 3

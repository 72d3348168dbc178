"""Pictures of compositions: what stands in them is what the model is made of, and nothing runs out of its box."""

from xml.etree import ElementTree

import pytest
import torch

from cutaway import families
from cutaway.lab.complexity import costs
from cutaway.lab.diagram import diagrams, spaced

SVG = "{http://www.w3.org/2000/svg}"


def model(preset: str):
    family = families.get(families.by_preset(preset))
    with torch.device("meta"):
        return family.compose(family.PRESETS[preset])


def drawn(preset: str) -> dict[str, ElementTree.Element]:
    return {title: ElementTree.fromstring(svg) for title, svg in diagrams(model(preset)).items()}


def words(svg: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in svg.iter(f"{SVG}text")]


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_is_drawn_within_the_picture_and_says_what_mixing_costs(family):
    made = model(next(iter(families.get(family).PRESETS)))
    for svg in diagrams(made).values():
        root = ElementTree.fromstring(svg)
        left, top, wide, tall = map(float, root.attrib["viewBox"].split())
        for rect in root.iter(f"{SVG}rect"):
            x, y, w, h = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
            assert left <= x < x + w <= left + wide
            assert top <= y < y + h <= top + tall
        assert all(len(each) < 52 and "object at" not in each for each in words(root))
    assert all("O(" in said for said in costs(made).values())


def test_gpt2():
    (svg,) = drawn("gpt2").values()
    assert {"× 12", "Attention", "Feed-forward", "causal", "+ 1,024 learned positions"} <= set(words(svg))
    assert words(svg).count("LayerNorm") == 3
    assert len(list(svg.iter(f"{SVG}circle"))) == 2  # a residual joins after each sublayer


def test_an_encoder_feeds_its_decoder():
    both = drawn("t5-small")
    assert list(both) == ["encoder", "decoder"]
    assert "Cross-attention" in words(both["decoder"])
    assert "from the" in words(both["decoder"])
    assert "from the" not in words(both["encoder"])
    assert [len(list(svg.iter(f"{SVG}circle"))) for svg in both.values()] == [2, 3]


def test_blocks_that_differ_are_drawn_apart():
    assert {"× 13: blocks 0, 2, 4, …", "× 13: blocks 1, 3, 5, …"} <= {*words(drawn("gemma-2-2b")["model"])}
    assert "× 12, one set of weights" in words(drawn("albert-base-v2")["model"])


def test_side_by_side_there_is_one_residual():
    (svg,) = drawn("pythia-70m").values()
    assert len(list(svg.iter(f"{SVG}circle"))) == 1
    assert words(svg).count("LayerNorm") == 3


def test_names():
    assert [spaced(n) for n in ("LSHAttention", "Mamba2", "BothWays", "S4", "Attention")] == [
        "LSH attention",
        "Mamba2",
        "Both ways",
        "S4",
        "Attention",
    ]


def test_costs_are_those_of_the_mask():
    assert "O(T²·D)" in costs(model("gpt2"))["attention, causal"]
    assert "w = 4,096" in costs(model("mistral-7b"))["attention, causal, the last 4,096 tokens"]
    assert "w = 129" in costs(model("modernbert-base"))["attention, fewer than 65 positions apart"]
    assert "does not grow" in costs(model("linear-transformer-mnist"))["LinearAttention"]

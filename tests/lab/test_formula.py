"""The formula of a family's parameters is the number of its parameters, also for sizes it was not read off."""

import dataclasses
from fractions import Fraction

import pytest
import torch

from cutaway import families
from cutaway.lab.formula import counted, formula, formulas
from cutaway.lab.polynomial import Polynomial, fitted
from cutaway.lab.probes import others

WITH_NUMBERS = (
    "reformer",
    "transformerxl",
)  # dimensions that no whole size explains (grids of positions, cuts of tables)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_preset_has_a_formula_that_counts_it(family):
    """And sizes that it was not read off."""
    module = families.get(family)
    found = formulas(family)
    assert sorted(preset for _, presets in found for preset in presets) == sorted(module.PRESETS)
    for each, presets in found:
        for preset in presets:
            assert each.at(module.PRESETS[preset]) == counted(family, preset)
            if preset in module.PARAMETERS:
                assert each.at(module.PRESETS[preset]) == module.PARAMETERS[preset]
    known, presets = found[0]
    for sizes in others(family, module.PRESETS[presets[0]], 2, seed=7) if family not in WITH_NUMBERS else ():
        with torch.device("meta"):
            assert known.at(sizes) == sum(p.numel() for p in module.compose(sizes).parameters())


def test_formulas_that_everybody_knows():
    assert str(formulas("gpt")[0][0]) == "V·D + C·D + L·(4·D² + 2·D·F + 9·D + F)"
    assert str(formulas("bert")[0][0]) == "V·D + C·D + A·D + D² + 3·D + L·(4·D² + 2·D·F + 9·D + F)"
    assert str(formulas("albert")[0][0]).endswith("g·b·(4·D² + 2·D·F + 9·D + F)")  # groups, not layers
    assert "(L − 1)·D" in str(formulas("modernbert")[0][0])  # the first block's norm is not there


def test_parts_add_up():
    found = formula("gpt2", families.get("gpt2").PRESETS["gpt2"])
    parts = {term.part: str(term.count) for term in found.terms}
    assert parts == {
        "embedding": "V·D + C·D",
        "attention": "4·D·H·E + 3·H·E + 3·D",
        "feedforward": "2·D·F + 3·D + F",
        "last norm": "2·D",
    }
    assert found.names == {
        "V": "vocab", "C": "context", "D": "width", "L": "layers", "H": "heads", "E": "head_width", "F": "hidden",
    }  # fmt: skip


def test_a_formula_is_not_taken_for_another_that_counts_the_same_by_chance():
    module = families.get("gpt2")
    tied = module.PRESETS["gpt2"]
    untied = dataclasses.replace(tied, tied=False)
    assert str(formula("gpt2", untied)).startswith("2·V·D + C·D")


def test_fitting():
    a, b = [2, 3, 5, 7, 11], [4, 9, 6, 10, 8]
    both = {"D": a, "F": b}
    assert fitted([3] * 5, both) == Polynomial.number(3)
    for text, values in {
        "3·D": [3 * x for x in a],
        "D + 2": [x + 2 for x in a],
        "D·F/2": [Fraction(x * y, 2) for x, y in zip(a, b, strict=True)],
        "F/D": [Fraction(y, x) for x, y in zip(a, b, strict=True)],
        "F² − 3·D": [y * y - 3 * x for x, y in zip(a, b, strict=True)],
    }.items():
        assert str(fitted(values, both)) == text
    assert fitted([17, 4, 90, 1, 5], both) is None

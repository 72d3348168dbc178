"""The table of what is proven: whole, true to its sources, and able to say that something is wrong."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
from tests.families.oracles import FAMILIES
from tests.families.proof import PROOF, prove

from cutaway import families

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("parity_table", ROOT / "scripts" / "parity_table.py")
table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)


def test_every_family_is_held_against_something():
    """Against the reference or its equations, or by the test that PROOF names."""
    for family in families.FAMILIES:
        assert family in FAMILIES or family in PROOF, f"say in {__package__}.proof what is proven of {family}"


@pytest.mark.parametrize("family", PROOF)
def test_what_is_named_is_there(family):
    assert family in families.FAMILIES
    assert "def test" in (ROOT / PROOF[family][1]).read_text()


def test_a_row_and_what_it_complains_of():
    proof = prove("distilbert")
    assert table.complaints(proof) == []
    assert table._row(proof).startswith("| distilbert | `transformers` | 7 |")
    assert "7 of 7 | 7 of 7 | 3 of 3 | – |" in table._row(proof)
    wrong = dataclasses.replace(
        proof, errors={"body": float("nan")}, mutants={"scale": False}, own_layout=False, cached=2e-5
    )
    assert len(table.complaints(wrong)) == 4


def test_the_tables_can_be_written(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- proven:begin -->\nold\n<!-- proven:end -->\nb\n")
    table._write(page, "proven", ["new"])
    assert page.read_text() == "a\n<!-- proven:begin -->\nnew\n<!-- proven:end -->\nb\n"
    for name, at in {"proven": "README.md", "parity": "docs/correctness.md"}.items():
        assert f"<!-- {name}:begin -->" in (ROOT / at).read_text()

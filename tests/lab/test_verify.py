"""`verify` finds no difference where there is none, and finds the smallest one where somebody made it."""

import pytest
import torch
from tests.families.oracles import CASES, FAMILIES, counterpart_of, reference

from cutaway.errors import CutawayError
from cutaway.lab import verify
from cutaway.lab.states import compare

BY_NAME = {case.name: case for case in CASES}
# all that `transformers` has, and that gives its states as they are
COMPARED = [c for c in CASES if c.model != "equations" and getattr(FAMILIES[c.family], "BY_STATES", True)]
FIRST = [next(c for c in CASES if c.family == family) for family in ("gpt2", "llama", "bert", "t5", "bart")]


def both(case):
    theirs = reference(case).eval()
    return counterpart_of(case, theirs).eval(), theirs


def ids():
    return torch.randint(3, 99, (1, 11))


@pytest.mark.parametrize("case", COMPARED, ids=lambda case: case.name)
def test_every_variant_compares_state_by_state(case):
    ours, theirs = both(case)
    given = ids()
    if case.family == "bart":
        given[0, -1] = theirs.config.eos_token_id  # its classifiers ask where a text ends
    rows, _ = compare(ours, theirs, given)
    assert max(row.max_rel_error for row in rows) < 1e-5
    layers = (
        len(ours.encoder.blocks) + len(ours.decoder.blocks) + 2
        if hasattr(ours, "encoder")
        else len(ours.stack.blocks) + 1
    )
    assert len(rows) == layers + 1


@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.name)
def test_a_change_in_one_layer_shows_from_there_on(case):
    ours, theirs = both(case)
    blocks = ours.decoder.blocks if hasattr(ours, "decoder") else ours.stack.blocks
    with torch.no_grad():
        blocks[1].feedforward.inner.down.weight.mul_(1.001)
    rows, _ = compare(ours, theirs, ids())
    rows = [row for row in rows if not row.name.startswith("encoder")]
    wrong = [row.name.removeprefix("decoder ") for row in rows if row.max_rel_error > 1e-5]
    assert wrong[:2] == ["block 2", "block 3"]
    assert len(wrong) == 3


def test_half_precision_comes_with_a_yardstick():
    case = FIRST[1]
    ours, theirs = both(case)
    given = ids()
    _, exact = compare(ours, theirs, given)
    rows, _ = compare(ours.bfloat16(), theirs.bfloat16(), given, exact)
    assert all(row.yardstick is not None for row in rows)
    assert rows[-1].yardstick > 1e-4
    assert rows[-1].max_rel_error < 10 * rows[-1].yardstick


def test_where_the_peer_gives_other_states_the_output_is_compared():
    """Reformer's reference pads a text to whole chunks, and its states with it."""
    case = next(c for c in CASES if c.family == "reformer")
    ours, theirs = both(case)
    rows, _ = compare(ours, theirs, ids())
    assert [row.name for row in rows] == ["logits"]
    assert rows[0].max_rel_error < 1e-5
    report = verify.Report("float32", rows, None, None)
    assert "the output alone" in report.json()["note"]
    whole, _ = compare(ours, theirs, torch.randint(3, 99, (1, 12)))
    assert verify.Report("float32", whole, None, None).note is None


def test_different_models_are_refused():
    ours, _ = both(BY_NAME["gpt2-as-published"])
    _, theirs = both(BY_NAME["gpt2-body-alone"])
    with pytest.raises(CutawayError, match="not the same model"):
        compare(ours, theirs, ids())


@pytest.mark.parametrize("case", [c for c in FIRST if c.family != "bert"], ids=lambda case: case.name)
def test_greedy_continuations_agree(case):
    ours, theirs = both(case)
    given = ids()
    mine, peer = verify.continued(ours, theirs, given, 12)
    assert mine == peer
    assert len(mine) == 12


def test_what_the_reference_cannot_run(tmp_path):
    """XLNet: alike in float32, without segments on either side; its reference fails in half precision."""
    reference(BY_NAME["xlnet-as-published"]).save_pretrained(tmp_path)
    (report,) = verify.verify(str(tmp_path), ["float32"])
    assert report.max_rel_error < 1e-5
    with pytest.raises(CutawayError, match=r"transformers cannot run this model in bfloat16 .*--dtypes float32"):
        verify.verify(str(tmp_path), ["float32", "bfloat16"])

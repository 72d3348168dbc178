"""Looking inside changes nothing, and shows what happened."""

import subprocess
import sys

import pytest
import torch

from cutaway.attention import recording
from cutaway.families import gpt2, t5
from cutaway.parts import State


def tiny():
    return gpt2.compose(gpt2.Sizes(50, 32, 2, 4, 8, 64, 32, dropout=0.0)).eval()


def test_logits_are_bit_identical():
    model, ids = tiny(), torch.randint(0, 50, (2, 9))
    with torch.no_grad():
        before = model(ids)
        with recording() as trace:
            during = model(ids)
    assert torch.equal(before, during)
    assert trace.sites == ["blocks.0.attention", "blocks.1.attention"]


def test_weights_are_those_used():
    model, ids = tiny(), torch.randint(0, 50, (2, 9))
    with torch.no_grad(), recording() as trace:
        model(ids)
    record = trace["blocks.1.attention"]
    pattern = record.weights()
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 4, 9))
    assert (pattern.triu(1) == 0).all()
    # the pattern times the values is what the site passed on: the output projection undone
    attention = model.stack.blocks[1].attention.inner
    seen = []
    hook = attention.out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(ids)
    hook.remove()
    mixed = (pattern @ record.v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixed, seen[0], rtol=1e-4, atol=1e-6)


def test_a_cache_is_copied():
    """What was recorded at one step stays, though the buffers go on changing."""
    model, ids = tiny(), torch.randint(0, 50, (1, 9))
    state = State(1, 16)
    with torch.no_grad():
        model(ids, state=state)
        with recording() as trace:
            model(ids[:, :1], state=state)
        before = trace["blocks.0.attention"].weights()
        model(ids[:, 1:2], state=state)
    assert torch.equal(trace["blocks.0.attention"].weights(), before)
    assert before.shape == (1, 4, 1, 10)  # the slots filled so far


def test_kinds_and_sites_of_an_encoder_decoder():
    model = t5.compose(t5.Sizes(50, 32, 1, 4, 64, 8)).eval()
    with torch.no_grad(), recording() as trace:
        model(torch.randint(0, 50, (1, 5)), torch.randint(0, 50, (1, 3)))
    assert {(record.site, record.kind) for record in trace} == {
        ("encoder.blocks.0.attention", "self"),
        ("decoder.blocks.0.attention", "self"),
        ("decoder.blocks.0.cross", "cross"),
    }
    assert trace["decoder.blocks.0.cross"].weights().shape == (1, 4, 3, 5)


def test_nothing_is_recorded_outside():
    model = tiny()
    with recording() as trace:
        pass
    model(torch.zeros(1, 2, dtype=torch.int64))
    assert len(trace) == 0
    with pytest.raises(KeyError, match="nothing was recorded"):
        trace["blocks.0.attention"]


def test_checkpointed_blocks_record_once():
    from torch.utils.checkpoint import checkpoint

    model, ids = tiny(), torch.randint(0, 50, (1, 4))
    with recording() as trace:
        checkpoint(model, ids, use_reentrant=False).sum().backward()
    assert len(trace) == 2


COMPILED = """
import torch
from cutaway.attention import recording
from cutaway.families import gpt2
model = gpt2.compose(gpt2.Sizes(50, 32, 2, 4, 8, 64, 32, dropout=0.0)).eval()
ids, compiled = torch.randint(0, 50, (1, 4)), torch.compile(model)
with torch.no_grad():
    torch.testing.assert_close(compiled(ids), model(ids), rtol=1e-4, atol=1e-5)
    with recording() as trace:
        compiled(ids)
assert len(trace) == 2, trace.sites
"""


@pytest.mark.slow
def test_a_compiled_model_records_too():
    """In a process of its own: the compiler cannot trace the checks that pytest adds to every signature."""
    subprocess.run([sys.executable, "-c", COMPILED], check=True, timeout=280)

"""Whatever mixes tokens can be looked into: the pattern shown, times the values, is what the mixer puts out."""

import pytest
import torch
import torch.nn.functional as F
from tests.parts.mixers import padded, whole

from cutaway.attention import Causal, Full, recording
from cutaway.mixers import MIXERS
from cutaway.parts import Context, State
from cutaway.swaps import mixer

WIDTH, HEADS, TOKENS = 32, 4, 21
AFTER = {  # what comes between the mixing and the projection
    "mamba": lambda made, y, x: y * F.silu(made.gate(x)),
    "mamba2": lambda made, y, x: made.norm(y, made.gate(x)),
    "s4": lambda made, y, x: F.gelu(y),
    "s4d": lambda made, y, x: F.gelu(y),
}
WAYS = [
    pytest.param(name, mask, id=f"{name}-{mask.__class__.__name__}")
    for name, kind in MIXERS.items()
    for mask, can in ((Causal(), kind.causal), (Full(), kind.both_ways))
    if can
]


@pytest.mark.parametrize(("name", "mask"), WAYS)
def test_pattern_times_values_is_what_every_mixer_gives(name, mask):
    torch.manual_seed(0)
    made = mixer(name, context=TOKENS)(WIDTH, HEADS, mask=mask).eval()
    x = torch.randn(2, TOKENS, WIDTH)
    for ctx in (whole(TOKENS), padded([[1] * TOKENS, [0, 0, 0] + [1] * (TOKENS - 5) + [0, 0]])):
        expected = made(x, ctx)
        with recording() as trace:
            again = made(x, Context(ctx.pos, ctx.packing, site="mixer"))
        assert torch.equal(again, expected)  # looking changes nothing
        record = trace["mixer"]
        assert len(trace) == 1
        pattern = record.weights()
        v = record.v.repeat_interleave(pattern.shape[1] // record.v.shape[1], 1)
        y = (pattern @ v).transpose(1, 2).flatten(2)
        found = made.out(AFTER.get(name, lambda made, y, x: y)(made, y, x))
        real = ctx.pos.expand(2, -1) >= 0
        torch.testing.assert_close(found[real], expected[real], rtol=1e-4, atol=1e-5)
        if mask == Causal() and ctx.packing == "none":
            assert (pattern.triu(1) == 0).all()
        assert not pattern.requires_grad
        assert not record.v.requires_grad


CONSTANT = ("linear", "performer", "mamba", "mamba2", "s4", "s4d", "lstm", "gru")
BOUNDED = ("window:16",)  # "strided" keeps all: its second half of heads looks back to the beginning
GROWING = ("attention", "strided:4", "lsh", "synthesizer", "random-synthesizer")


@torch.no_grad()
@pytest.mark.parametrize("name", [*CONSTANT, *BOUNDED, *GROWING])
def test_what_is_remembered_of_a_long_text(name):
    """As much of 40 tokens as of 400, where the architecture promises it."""
    sizes = []
    for tokens in (40, 400):
        made, state = mixer(name, context=tokens)(WIDTH, HEADS, mask=Causal()).eval(), State(2, tokens)
        for piece in torch.randn(2, tokens, WIDTH).split(20, 1):
            pos = state.advance(20, None)
            made(piece, Context(pos, state=state, fresh=state.calls == 1, site="mixer"))
        sizes.append(sum(x.nbytes for held in state.sites.values() for x in held.tensors()))
    assert (sizes[0] == sizes[1]) == (name not in GROWING)


def test_no_mixer_is_left_out():
    named = {name.split(":")[0] for name in (*CONSTANT, *BOUNDED, *GROWING)}
    assert named == {name for name, kind in MIXERS.items() if kind.causal}

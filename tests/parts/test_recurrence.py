"""Recurrent layers against torch's own cells and layers; padding, states and the attention that came before attention."""

import pytest
import torch
from torch import nn

import cutaway
from cutaway.attention import Causal, recording
from cutaway.errors import ConfigError
from cutaway.parts import Context, State
from cutaway.parts.additive import AttentiveRecurrence
from cutaway.parts.recurrence import BothWays, Recurrence, RecurrentMixer

THEIRS = {"lstm": nn.LSTM, "gru": nn.GRU}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}


def context(length: int) -> Context:
    return Context(torch.arange(length)[None])


def ours_of(theirs: nn.Module, ours: Recurrence, suffix: str = "_l0") -> None:
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(ours, name).copy_(getattr(theirs, name + suffix))


@pytest.mark.parametrize("cell", THEIRS)
@pytest.mark.parametrize("length", [1, 2, 7])
def test_plain_and_fused_equal_torch(cell, length):
    theirs, ours = THEIRS[cell](5, 6, batch_first=True), Recurrence(5, 6, cell=cell)
    ours_of(theirs, ours)
    x = torch.randn(3, length, 5)
    expected, end = theirs(x)
    for run in (ours.plain, ours.fused):
        found, state = run(x, ours.beginning(x))
        assert torch.allclose(found, expected, atol=1e-6)
        assert torch.allclose(state["h"], (end[0] if cell == "lstm" else end)[0], atol=1e-6)
    assert torch.allclose(ours(x, context(length)), expected, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_one_step_is_torchs_cell(cell):
    theirs, ours = CELLS[cell](5, 6), Recurrence(5, 6, cell=cell)
    ours_of(theirs, ours, "")
    x, h, c = torch.randn(3, 5), torch.randn(3, 6), torch.randn(3, 6)
    state = {"h": h, "c": c} if cell == "lstm" else {"h": h}
    found = ours.step(x @ ours.weight_ih.mT + ours.bias_ih, state)
    expected = theirs(x, (h, c) if cell == "lstm" else h)
    for got, wanted in zip(found.values(), expected if cell == "lstm" else [expected], strict=True):
        assert torch.allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("cell", THEIRS)
def test_gradients_of_both_forms_agree(cell):
    layer = Recurrence(5, 6, cell=cell).double()
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    grads = []
    for run in (layer.plain, layer.fused):
        own = x.clone().requires_grad_()
        layer.zero_grad()
        run(own, layer.beginning(own))[0].square().sum().backward()
        grads.append([own.grad, *(p.grad.clone() for p in layer.parameters())])
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("cell", THEIRS)
def test_both_ways_equals_torch(cell):
    theirs = THEIRS[cell](5, 6, batch_first=True, bidirectional=True)
    ours = BothWays(5, 6, cell=cell)
    ours_of(theirs, ours.forwards)
    ours_of(theirs, ours.backwards, "_l0_reverse")
    x = torch.randn(2, 7, 5)
    assert torch.allclose(ours(x, context(7)), theirs(x)[0], atol=1e-6)


@pytest.mark.parametrize("preset", ["lstm-small", "gru-small"])
def test_padding_and_states(preset):
    """Left = right = alone, and token by token or in pieces = at once."""
    model = cutaway.build(preset, vocab=30, width=16, seed=0)
    ids = torch.randint(0, 30, (1, 8))
    alone = model(ids)
    for left in (True, False):
        pad = torch.zeros(1, 3, dtype=torch.int64)
        padded = torch.cat([pad, ids] if left else [ids, pad], 1)
        real = torch.cat(
            [pad.bool(), torch.ones_like(ids).bool()] if left else [torch.ones_like(ids).bool(), pad.bool()], 1
        )
        assert torch.allclose(model(padded, real)[real], alone[0], atol=1e-6)
        state = State(1, 16)
        model(padded, real, state=state)
        assert torch.allclose(model(ids[:, :2], state=state), model(torch.cat([ids, ids[:, :2]], 1))[:, 8:], atol=1e-5)
    state = State(1, 8)
    size = None
    for piece in (ids[:, :3], ids[:, 3:4], ids[:, 4:]):
        out = model(piece, state=state)
        size = size or state.bytes
        assert state.bytes == size  # it does not grow
    assert torch.allclose(out, alone[:, 4:], atol=1e-5)


def test_a_recurrence_in_attentions_place():
    causal, both = RecurrentMixer(8, 2, mask=Causal()), RecurrentMixer(8, 2)
    x, changed = torch.randn(1, 6, 8), torch.randn(1, 6, 8)
    changed[:, :5] = x[:, :5]
    assert torch.equal(causal(changed, context(6))[:, :5], causal(x, context(6))[:, :5])
    assert not torch.allclose(both(changed, context(6))[:, 0], both(x, context(6))[:, 0], atol=1e-7)
    with pytest.raises(ConfigError, match="from the end"):
        both(x, Context(torch.arange(6)[None], state=State(1, 6)))


@pytest.mark.parametrize("cell", CELLS)
def test_additive_attention_by_its_equations(cell):
    """Appendix A of the paper, with torch's own cell; and what is recorded is what was mixed."""
    torch.manual_seed(0)
    layer = AttentiveRecurrence(5, 6, 4, cell=cell)
    step = CELLS[cell](9, 6)
    ours_of(step, layer.recurrence, "")
    x, memory = torch.randn(2, 3, 5), torch.randn(2, 7, 4)
    source = torch.arange(7).expand(2, -1).clone()
    source[1, 4:] = -1  # padding
    with recording() as trace:
        found = layer(x, Context(torch.arange(3)[None], memory=memory, memory_pos=source, memory_packing="right"))
    a = layer.attention
    for row, length in ((0, 7), (1, 4)):
        h, c = torch.zeros(1, 6), torch.zeros(1, 6)
        states = memory[row, :length]
        for t in range(3):
            energy = torch.stack([a.score(torch.tanh(a.query(h)[0] + a.key(s))) for s in states])[:, 0]
            seen = (energy.softmax(0)[:, None] * states).sum(0)
            given = torch.cat([x[row, t], seen])[None]
            if cell == "lstm":
                h, c = step(given, (h, c))
            else:
                h = step(given, h)
            assert torch.allclose(found[row, t], torch.cat([h[0], seen]), atol=1e-6)
    (seen_site,) = trace
    assert torch.allclose((seen_site.weights() @ seen_site.v)[:, 0], found[..., 6:], atol=1e-6)
    assert seen_site.kind == "cross"


def test_the_encoder_decoder_with_states_equals_at_once():
    model = cutaway.build("rnnsearch", vocab=40, width=12, hidden=10, layers=2, seed=0)
    source, target = torch.randint(0, 40, (2, 6)), torch.randint(0, 40, (2, 5))
    padding = torch.ones_like(source, dtype=torch.bool)
    padding[1, 4:] = False
    whole = model(source, target, padding)
    assert torch.allclose(whole[1:], model(source[1:, :4], target[1:]), atol=1e-6)
    memory, state = model.encode(source, padding), State(2, 5)
    pieces = [model.decode(target[:, t : t + 1], memory, padding, state=state) for t in range(5)]
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)


def test_another_cell_is_refused():
    with pytest.raises(ConfigError, match="lstm and gru"):
        Recurrence(4, cell="rnn")


@pytest.mark.parametrize("cell", THEIRS)
@pytest.mark.parametrize("left", [False, True])
def test_both_ways_over_padding_equals_torch_packed(cell, left):
    theirs, ours = THEIRS[cell](5, 6, batch_first=True, bidirectional=True), BothWays(5, 6, cell=cell)
    ours_of(theirs, ours.forwards)
    ours_of(theirs, ours.backwards, "_l0_reverse")
    x, lengths = torch.randn(3, 7, 5), [4, 7, 1]
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    real = torch.arange(7) < torch.tensor(lengths)[:, None]
    if left:  # the same texts at the end of their rows
        x = torch.stack([row.roll(7 - n, 0) for row, n in zip(x, lengths, strict=True)])
    there = real.flip(1) if left else real
    pos = torch.where(there, there.cumsum(1) - 1, -1)
    found = ours(x, Context(pos, packing="any" if left else "right"))
    assert torch.allclose(found[there], expected[real], atol=1e-6)


def test_the_translator_over_padding_is_that_of_each_pair_alone():
    model = cutaway.build("lstm-attention", vocab=40, width=12, hidden=10, layers=2, tied=True, seed=0)
    assert model.head.tokens is model.encoder.embedding.tokens is model.decoder.embedding.tokens
    source, target = torch.randint(0, 40, (2, 6)), torch.randint(0, 40, (2, 5))
    there, asked = torch.ones_like(source, dtype=torch.bool), torch.ones_like(target, dtype=torch.bool)
    there[1, 4:], asked[0, 3:] = False, False
    both = model(source, target, there, asked)
    assert torch.allclose(both[0, :3], model(source[:1], target[:1, :3])[0], atol=1e-6)
    assert torch.allclose(both[1], model(source[1:, :4], target[1:])[0], atol=1e-6)
    flipped = model(source.flip(1), target.flip(1), there.flip(1), asked.flip(1))  # padding on the left
    assert torch.allclose(flipped[0, 2:], model(source[:1].flip(1), target[:1, :3].flip(1))[0], atol=1e-6)

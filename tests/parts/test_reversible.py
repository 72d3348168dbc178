"""Reversible layers: the gradients of plain ones, dropout and hashes included, and memory that does not grow with depth."""

import pytest
import torch
from torch import nn

from cutaway.attention import Causal, recording
from cutaway.parts import (
    Attention,
    Branch,
    Embedding,
    FeedForward,
    LanguageHead,
    LayerNorm,
    LSHAttention,
    Model,
    PerformerAttention,
    ReversibleBlock,
    ReversibleStack,
    State,
    T5Bias,
)


def attention(bias: nn.Module, dropout: float) -> nn.Module:
    return Attention(32, 4, mask=Causal(), dropout=dropout, score_bias=bias)


def hashed(bias: nn.Module, dropout: float) -> nn.Module:
    return LSHAttention(32, 4, mask=Causal(), chunk=4, dropout=dropout)


def favor(bias: nn.Module, dropout: float) -> nn.Module:
    return PerformerAttention(32, 4, mask=Causal(), dropout=dropout)


def made(layers: int, mixer=attention, dropout: float = 0.2, chunk: int | None = None) -> Model:
    torch.manual_seed(1)
    bias, feed = T5Bias(4, False), FeedForward(32, 64, "gelu", dropout=dropout)  # shared by all layers, both
    blocks = [
        ReversibleBlock(
            Branch(LayerNorm(32), mixer(bias, dropout), dropout), Branch(LayerNorm(32), feed, dropout, chunk)
        )
        for _ in range(layers)
    ]
    stack = ReversibleStack(Embedding(50, 32), blocks, LayerNorm(64), dropout)
    return Model(stack, LanguageHead(64, 50), causal=True).double()


def run(model: Model, plain: bool, padding: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    model.stack.plain = plain
    torch.manual_seed(2)
    ids = torch.randint(0, 50, (2, 23), generator=torch.Generator().manual_seed(3))
    found = {"output": model(ids, padding)}
    loss = found["output"].square().mean()
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(parameters.values()))
    return found | dict(zip(parameters, grads, strict=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mixer", [attention, hashed, favor])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_gradients_equal_the_plain_form(mixer, layers, training):
    model = made(layers, mixer).train(training)
    padding = torch.ones(2, 23, dtype=torch.bool)
    padding[1, :9] = False
    for given in (None, padding):
        expected, found = run(model, True, given), run(model, False, given)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], msg=name)


def held(model: Model, plain: bool) -> int:
    """Bytes that autograd keeps from forward to backward, the parameters' own not counted."""
    model.stack.plain = plain
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model(torch.randint(0, 50, (2, 23)))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("mixer", [attention, hashed])
def test_memory_does_not_grow_with_depth(mixer):
    shallow, deep = (made(layers, mixer) for layers in (2, 16))
    assert held(deep, False) == held(shallow, False)
    assert held(deep, True) > 6 * held(shallow, True) / 2  # the plain form's does
    assert held(deep, False) < held(deep, True) / 10


def test_no_trace_is_left_in_the_random_state():
    """What comes after a reversible stack is as random as after a plain one, backward included."""
    model, after = made(3).train(), []
    for plain in (True, False):
        run(model, plain)
        after.append(torch.rand(3))
    assert torch.equal(*after)


def test_a_chunked_feed_forward_is_the_same():
    """Also in evaluation, and where the text is no multiple of a chunk."""
    plain, chunked = made(2, dropout=0.0), made(2, dropout=0.0, chunk=5)
    for way in (True, False):
        expected, found = run(plain, way), run(chunked, way)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], msg=name)
    ids = torch.randint(0, 50, (1, 23))
    with torch.no_grad():
        torch.testing.assert_close(chunked.eval()(ids), plain.eval()(ids))


def test_a_chunk_holds_less():
    bound = held(made(1, dropout=0.0, chunk=4), True), held(made(1, dropout=0.0), True)
    assert bound[0] < bound[1] - 2 * 23 * 64 * 8  # at least the hidden numbers of all tokens less


def test_mixed_precision_is_the_same_in_the_second_forward():
    model, seen = made(2, dropout=0.0).float(), []
    model.stack.blocks[0].feedforward.inner.up.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randint(0, 50, (1, 7))).float().square().mean()
    loss.backward()
    assert len(seen) == 4  # both layers share it: twice forward, twice again
    assert set(seen) == {torch.bfloat16}


def test_recording_sees_each_site_once_and_changes_nothing():
    model, ids = made(3, hashed).eval(), torch.randint(0, 50, (2, 23))
    expected = model(ids)
    with recording() as trace:
        found = model(ids)
        found.sum().backward()
    assert torch.equal(found, expected)
    assert [record.site for record in trace] == [f"blocks.{i}.attention" for i in range(3)]


def test_a_state_works_with_gradients_on():
    model, ids = made(2).eval(), torch.randint(0, 50, (1, 9))
    state = State(1, 9)
    found = torch.cat([model(piece, state=state) for piece in ids.split((4, 1, 4), 1)], 1)
    torch.testing.assert_close(found, model(ids))

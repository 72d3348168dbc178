"""LSH attention: the reference's numbers on the same hashes, the definition's pattern, rows that do not know each other."""

import itertools

import pytest
import torch
import transformers as hf
from tests.parts.mixers import check_padding, check_pattern, check_pieces, gradients, mixed, whole
from transformers.models.reformer.modeling_reformer import LocalSelfAttention, LSHSelfAttention

from cutaway.attention import Causal, Full, Window, backend, recording
from cutaway.attention.chunks import Chunks, Ring
from cutaway.errors import ConfigError
from cutaway.parts import ALiBi, Attention, Context, LSHAttention, Rotary, State

hf.logging.set_verbosity_error()
CONFIG = {"hidden_size": 32, "num_attention_heads": 4, "attention_head_size": 8, "hash_seed": 5}


def pair(causal: bool, rounds: int, buckets, before: int, after: int, chunk: int = 8):
    config = hf.ReformerConfig(
        **CONFIG, lsh_attn_chunk_length=chunk, attn_layers=["lsh"], num_hashes=rounds, num_buckets=buckets,
        is_decoder=causal, lsh_num_chunks_before=before, lsh_num_chunks_after=after,
    )  # fmt: skip
    theirs = LSHSelfAttention(config, 0).eval().double()
    given = {"chunk": chunk, "before": before, "after": after, "rounds": rounds, "buckets": buckets, "seed": 5}
    ours = LSHAttention(32, 4, mask=Causal() if causal else Full(), **given).eval().double()
    with torch.no_grad():
        ours.qk.weight.copy_(theirs.query_key.weight.mul_(3))
        ours.v.weight.copy_(theirs.value.weight)
    return ours, theirs


SHAPES = list(itertools.product((True, False), (1, 3), (8, [4, 6]), ((1, 0), (2, 0), (1, 1), (0, 0))))


@pytest.mark.parametrize(("causal", "rounds", "buckets", "around"), SHAPES, ids=str)
def test_equals_the_reference_on_the_same_hashes(causal, rounds, buckets, around):
    """Outputs and gradients, for one chunk and less, and for several; in float64 (see tests/families/cases/reformer.py)."""
    ours, theirs = pair(causal, rounds, buckets, *around)
    for tokens in (3, 8, 16, 40):
        x = torch.randn(2, tokens, 32, dtype=torch.float64, requires_grad=True)
        expected = theirs(x).hidden_states
        found = mixed(ours, x, whole(tokens)).transpose(1, 2).flatten(2)
        torch.testing.assert_close(found, expected)
        weight = torch.randn_like(found)
        grads = [
            gradients((y * weight).sum(), [x, *weights])
            for y, weights in (
                (found, [ours.qk.weight, ours.v.weight]),
                (expected, [theirs.query_key.weight, theirs.value.weight]),
            )
        ]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 13, 31, 32, 33])
@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("causal", [True, False])
def test_any_length_and_its_implied_pattern(tokens, rounds, causal):
    ours, _ = pair(causal, rounds, 8, 1, 0)
    ours = ours.float()
    pattern = check_pattern(ours, 32, tokens)
    assert pattern.shape == (2, 4, tokens, tokens)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 4, tokens))
    assert not causal or (pattern.triu(1) == 0).all()
    itself = pattern.diagonal(dim1=2, dim2=3)
    if tokens > 1:
        assert ((itself < 1e-6) | (itself > 1 - 1e-6)).all()  # only where nobody else is seen


def test_tokens_of_one_bucket_see_each_other():
    """Two groups of equal vectors, in chunks of their own: nobody looks across."""
    mixer = LSHAttention(8, 1, chunk=4, before=0, rounds=1, buckets=2, seed=0)
    x = torch.randn(8).expand(8, 8) * torch.tensor([1.0, -1, 1, -1, -1, 1, 1, -1])[:, None]
    with recording() as trace:
        mixer(x[None], whole(8))
    pattern, signs = trace["mixer"].weights()[0, 0], x[:, 0] > 0
    assert (pattern[signs[:, None] != signs] == 0).all()
    torch.testing.assert_close(pattern[signs[:, None] == signs].max(), torch.tensor(1 / 3))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("around", [(1, 0), (1, 1), (0, 0)])
def test_padding_changes_nothing(causal, around):
    """Also not where padding fills chunks of its own, or one row is one chunk and another several."""
    for rounds in (1, 2):
        ours, _ = pair(causal, rounds, 8, *around, chunk=4)
        check_padding(ours.float(), 32, (5, 19, 3, 12, 1))


def test_decoding_equals_the_reference():
    """From a prompt, a token at a time, with the reference's own cache; four layers of them in tests/families."""
    from transformers.models.reformer.modeling_reformer import ReformerDynamicCache

    for rounds, prompt in itertools.product((1, 2), (3, 19)):
        ours, theirs = pair(True, rounds, 8, 1, 0, chunk=8)  # the reference needs chunks longer than its heads are many
        x = torch.randn(1, 40, 32, dtype=torch.float64)
        state, cache = State(1, 40), ReformerDynamicCache()
        first = Context(state.advance(prompt, None), state=state, site="m")
        ours(x[:, :prompt], first)
        padded = torch.cat([x[:, :prompt], x.new_zeros(1, -prompt % 8, 32)], 1)
        real = (torch.arange(padded.shape[1]) < prompt)[None]
        buckets = theirs(padded, attention_mask=real).buckets[..., :prompt] if prompt > 8 else None
        cache.update(buckets, x[:, :prompt], 0)
        for i in range(prompt, 40):
            ctx = Context(state.advance(1, None), state=state, fresh=False, site="m")
            found = mixed(ours, x[:, i : i + 1], ctx).transpose(1, 2).flatten(2)
            answer = theirs(x[:, i : i + 1], past_buckets_states=cache, use_cache=True)
            torch.testing.assert_close(found, answer.hidden_states)
            cache.update(answer.buckets, x[:, i : i + 1], 0)


def test_up_to_a_chunk_pieces_equal_the_whole():
    ours, _ = pair(True, 2, 8, 1, 0, chunk=20)
    for sizes in ((1,) * 20, (7, 1, 1, 5), (2, 9, 8), (19, 1)):
        check_pieces(ours.float(), 32, sizes)


def test_rows_of_unequal_length_decode_as_alone():
    ours, _ = pair(True, 2, 8, 1, 0, chunk=4)
    ours = ours.float()
    prompts, news = [torch.randn(1, n, 32) for n in (11, 2, 6)], torch.randn(3, 7, 32)
    x, real = torch.randn(3, 11, 32), torch.zeros(3, 11, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        n = prompt.shape[1]
        x[i, 11 - n :], real[i, 11 - n :] = prompt[0], True
    together = State(3, 20)
    ours(x, Context(together.advance(11, real), "any", together, True, "m"))
    single = [
        ours(news[:, j : j + 1], Context(together.advance(1, None), "any", together, False, "m")) for j in range(4)
    ]
    several = ours(news[:, 4:], Context(together.advance(3, None), "any", together, False, "m"))
    found = torch.cat([*single, several], 1)
    for i, prompt in enumerate(prompts):
        state = State(1, 20)
        ours(prompt, Context(state.advance(prompt.shape[1], None), state=state, site="m"))
        for j in range(7):
            ctx = Context(state.advance(1, None), state=state, fresh=False, site="m")
            torch.testing.assert_close(ours(news[i : i + 1, j : j + 1], ctx)[0, 0], found[i, j], rtol=1e-4, atol=1e-5)


def test_a_step_shows_what_it_looks_at():
    ours, _ = pair(True, 2, 8, 1, 0, chunk=4)
    state, x = State(2, 20), torch.randn(2, 14, 32, dtype=torch.float64)
    ours(x[:, :13], Context(state.advance(13, None), state=state, site="mixer"))
    ctx = Context(state.advance(1, None), state=state, fresh=False, site="mixer")
    with recording() as trace:
        expected = mixed(ours, x[:, 13:], ctx)
    record = trace["mixer"]
    torch.testing.assert_close(record.weights() @ record.v, expected)
    assert record.k_pos.shape[-1] == record.weights().shape[-1] == 14


def test_hashes_are_random_in_training_and_fixed_in_evaluation():
    mixer, x = LSHAttention(32, 4, chunk=4), torch.randn(1, 40, 32)
    draw = lambda: mixer.hash(x.unflatten(-1, (4, 8)).transpose(1, 2), whole(40))
    assert not torch.equal(draw(), draw())
    mixer.eval()
    assert torch.equal(draw(), draw())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tokens", [3, 8, 16, 24, 40])
def test_local_attention_is_attention_under_a_mask(causal, tokens):
    config = hf.ReformerConfig(**CONFIG, attn_layers=["local"], local_attn_chunk_length=8, is_decoder=causal)
    theirs = LocalSelfAttention(config, 0).eval().double()
    mask = Causal() & Chunks(8) if causal else Ring(8)
    ours = Attention(32, 4, mask=mask).double()
    with torch.no_grad():
        for a, b in ((ours.q, theirs.query), (ours.k, theirs.key), (ours.v, theirs.value)):
            a.weight.copy_(b.weight.mul_(3))
    x = torch.randn(2, tokens, 32, dtype=torch.float64)
    found = mixed(ours, x, whole(tokens)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, theirs(x).hidden_states)


def test_chunks_draw_themselves():
    assert str(Causal() & Chunks(2)) == "█···\n██··\n███·\n████"
    assert str(Ring(1)) == "█··█\n██··\n·██·\n··██"
    assert (Causal() & Chunks(64, 2)).window == 3 * 64


@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 100, 257])
@pytest.mark.parametrize("around", [(1, 0), (2, 1), (0, 0)])
def test_chunks_have_the_fast_way_of_a_window(tokens, around):
    """The same pattern by blocks as by a dense matrix, gradients too."""
    chunks = Chunks(8, *around)
    layer = Attention(16, 2, mask=chunks & Window(chunks.window)).double()
    x, found = torch.randn(2, tokens, 16, dtype=torch.float64, requires_grad=True), []
    for way, mask in (("sparse", layer.mask), ("eager", layer.mask), ("eager", chunks)):
        layer.mask = mask
        with backend(way):
            out = layer(x, whole(tokens))
        found.append([out, *gradients(out.square().sum(), [x])])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="even number"):
        LSHAttention(16, 4, buckets=3)
    with pytest.raises(ConfigError, match="ALiBi"):
        LSHAttention(16, 4, score_bias=ALiBi(4))
    with pytest.raises(ConfigError, match="queries are the keys"):
        LSHAttention(16, 4, 2)
    with pytest.raises(ConfigError, match="turn alike"):
        LSHAttention(16, 4, q_steps=[Rotary(4)])
    with pytest.raises(ConfigError, match="size >= 1"):
        Chunks(0)

"""Each part against its formula, or against what nobody here wrote."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cutaway.attention import Causal, Full
from cutaway.errors import ConfigError
from cutaway.parts import (
    ALiBi,
    Attention,
    Block,
    Context,
    FeedForward,
    First,
    Gated,
    LanguageHead,
    Last,
    LayerNorm,
    LearnedPositions,
    Mean,
    Parallel,
    PostNorm,
    PreNorm,
    RMSNorm,
    Rotary,
    Sandwich,
    SinusoidalPositions,
    StdNorm,
    T5Bias,
    activation,
)  # fmt: skip


def at(positions: list[list[int]]) -> Context:
    return Context(torch.tensor(positions), packing="any")


X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3)) * 3 + 1


def test_norms_are_their_formulas():
    mean, var = X.mean(-1, keepdim=True), X.var(-1, keepdim=True, unbiased=False)
    layer, rms, std = LayerNorm(16, 1e-3), RMSNorm(16, 1e-3), StdNorm(16, 1e-3)
    for norm in (layer, rms, std):
        nn.init.normal_(norm.weight)
    nn.init.normal_(layer.bias)
    torch.testing.assert_close(layer(X), (X - mean) / (var + 1e-3).sqrt() * layer.weight + layer.bias)
    torch.testing.assert_close(rms(X), X / (X.square().mean(-1, keepdim=True) + 1e-3).sqrt() * rms.weight)
    spread = X.var(-1, keepdim=True, unbiased=True).sqrt()
    torch.testing.assert_close(std(X), (X - mean) / (spread + 1e-3) * std.weight + std.bias)
    assert LayerNorm(16, bias=False).bias is None
    torch.testing.assert_close(rms(X), F.rms_norm(X, (16,), rms.weight, 1e-3))


def test_norms_keep_statistics_in_float32():
    """Squares of numbers near 300 overflow float16."""
    large = (X * 100).half()
    for norm in (RMSNorm(16).half(), StdNorm(16).half(), LayerNorm(16).half()):
        assert norm(large).isfinite().all()


def test_residuals():
    double, norm = nn.Identity(), LayerNorm(16)
    inner = FeedForward(16, 32, "relu")
    ctx = at([[0, 1, 2, 3, 4]])
    torch.testing.assert_close(PreNorm(norm, inner)(X, ctx), X + inner(norm(X)))
    torch.testing.assert_close(PostNorm(inner, norm)(X, ctx), norm(X + inner(X)))
    torch.testing.assert_close(Sandwich(norm, inner, norm)(X, ctx), X + norm(inner(norm(X))))
    assert double(X) is X


def test_a_parallel_block_adds_what_each_makes_of_its_input():
    ctx = at([[0, 1, 2, 3, 4]])
    norms, inner = [LayerNorm(16), LayerNorm(16)], [FeedForward(16, 32, "relu"), FeedForward(16, 32, "silu")]
    nn.init.normal_(norms[1].weight)
    sublayers = {name: PreNorm(norm, part) for name, norm, part in zip("ab", norms, inner, strict=True)}
    both = Parallel(**sublayers)
    torch.testing.assert_close(both(X, ctx), X + inner[0](norms[0](X)) + inner[1](norms[1](X)))
    in_turn = Block(**sublayers)
    assert [name for name, _ in both.named_parameters()] == [name for name, _ in in_turn.named_parameters()]
    assert not torch.allclose(both(X, ctx), in_turn(X, ctx), atol=1e-2)


def test_a_norm_that_learns_its_difference_from_one():
    """Gemma's: in bfloat16 as well the sum is taken in float32, as published."""
    from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm

    ours, theirs = RMSNorm(16, 1e-3, offset=1.0), Gemma2RMSNorm(16, 1e-3)
    assert torch.equal(ours.weight, torch.zeros(16))
    with torch.no_grad():
        theirs.weight.copy_(ours.weight.normal_(std=0.1))
    torch.testing.assert_close(ours(X), theirs(X))
    torch.testing.assert_close(ours(X), RMSNorm(16, 1e-3)(X) * (1 + ours.weight))
    narrow = X.bfloat16()
    assert torch.equal(ours.bfloat16()(narrow), theirs.bfloat16()(narrow))


def test_a_soft_cap_bounds_the_logits():
    table = nn.Embedding(9, 16)
    head, logits = LanguageHead(16, 9, tied=table, softcap=2.0), LanguageHead(16, 9, tied=table)(X * 9)
    assert logits.abs().max() > 4
    torch.testing.assert_close(head(X * 9), 2 * torch.tanh(logits / 2))


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))),
        ("gelu_new", lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        ("silu", lambda x: x / (1 + torch.exp(-x))),
    ],
)
def test_feed_forward(name, formula):
    plain, gated = FeedForward(16, 24, name), Gated(16, 24, name)
    torch.testing.assert_close(plain(X), plain.down(formula(plain.up(X))))
    torch.testing.assert_close(gated(X), gated.down(formula(gated.gate(X)) * gated.up(X)))
    with pytest.raises(ConfigError, match="silu"):
        activation("sillu")


def test_sinusoids():
    table = SinusoidalPositions(16).table(torch.tensor([[0, 1, 7]]))[0]
    for row, p in enumerate((0, 1, 7)):
        for i in range(8):
            angle = p / 10000 ** (2 * i / 16)
            assert table[row, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[row, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
    halves = SinusoidalPositions(16, halves=True).table(torch.tensor([[7]]))[0, 0]
    torch.testing.assert_close(halves, torch.cat([table[2, 0::2], table[2, 1::2]]))
    assert SinusoidalPositions(7).table(torch.tensor([[3]])).shape == (1, 1, 7)


def test_learned_positions_are_counted_over_real_tokens():
    part = LearnedPositions(8, 16, offset=2)
    x = torch.zeros(1, 3, 16)
    torch.testing.assert_close(part(x, at([[-1, 0, 1]]))[0, 1:], part.weight[2:4])


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("width", [8, 4])
def test_rotary_turns_pairs(interleaved, width):
    """By complex multiplication, at a late position (position 0 looks right with any pairing)."""
    rotary = Rotary(8, 100.0, width=width, interleaved=interleaved)
    x = torch.randn(1, 2, 1, 8)
    found = rotary(x, at([[11]]))
    for i in range(width // 2):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + width // 2)
        turned = torch.complex(x[..., a], x[..., b]) * torch.exp(torch.tensor(1j * 11 * 100.0 ** (-2 * i / width)))
        torch.testing.assert_close(found[..., a], turned.real, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[..., b], turned.imag, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[..., width:], x[..., width:])


def test_rotary_depends_on_distance_alone():
    rotary = Rotary(8)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    near = rotary(q, at([[5]])) @ rotary(k, at([[2]])).mT
    far = rotary(q, at([[1005]])) @ rotary(k, at([[1002]])).mT
    torch.testing.assert_close(near, far, rtol=1e-4, atol=1e-4)


def test_rotary_angles_are_float32_in_half_precision():
    """bfloat16 cannot tell position 1001 from 1000; the angle must."""
    rotary, x = Rotary(8), torch.ones(1, 1, 1, 8).bfloat16()
    exact = rotary(x.float(), at([[1001]]))
    torch.testing.assert_close(rotary(x, at([[1001]])).float(), exact, rtol=0.01, atol=0.01)


def test_rotary_refuses_what_it_does_not_know():
    with pytest.raises(ConfigError, match="unknown rotary scaling 'spiral'"):
        Rotary(8, scaling={"rope_type": "spiral"})
    with pytest.raises(ConfigError, match="needs factor"):
        Rotary(8, scaling={"type": "linear"})
    with pytest.raises(ConfigError, match="does not know twist"):
        Rotary(8, scaling={"rope_type": "linear", "factor": 2.0, "twist": 1})
    with pytest.raises(ConfigError, match="pairs"):
        Rotary(7)


@pytest.mark.parametrize("both", [True, False])
def test_t5_buckets_equal_the_reference(both):
    from transformers.models.t5.modeling_t5 import T5Attention

    for buckets, distance in ((32, 128), (8, 20), (16, 17)):
        relative = torch.arange(-300, 301)
        expected = T5Attention._relative_position_bucket(relative, both, buckets, distance)
        assert torch.equal(T5Bias(2, both, buckets, distance).bucket(relative), expected)


@pytest.mark.parametrize("heads", [1, 2, 8, 12, 16, 71])
def test_alibi_slopes_equal_the_reference(heads):
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    mask = torch.ones(1, 6)
    reference = build_alibi_tensor(mask, heads, torch.float32)  # slope · k: the same up to a constant a row
    pos = torch.arange(6)[None]
    ours = ALiBi(heads).pattern(pos, pos)[0]
    causal = torch.ones(6, 6).tril().bool()
    fill = lambda x: x.masked_fill(~causal, -torch.inf).softmax(-1)
    torch.testing.assert_close(fill(ours), fill(reference.expand(-1, 6, -1)))


@pytest.mark.parametrize("heads", [4, 6])
@pytest.mark.parametrize("packing", ["none", "left"])
def test_the_three_forms_of_alibi_are_one_after_softmax(heads, packing):
    """And only there: each has the logits its publisher gives it."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    real = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]][: 1 if packing == "none" else 2])
    pos = torch.where(real.bool(), real.cumsum(1) - 1, -1)
    made = {origin: ALiBi(heads, origin).pattern(pos, pos) for origin in ("query", "first", "last")}
    bloom = build_alibi_tensor(real, heads, torch.float32).unflatten(0, (-1, heads))
    mpt = build_mpt_alibi_tensor(heads, 7)
    allowed = (Causal().dense(pos, pos) & (pos >= 0)[:, None, None, :]).expand(-1, heads, -1, -1)
    seen = (pos >= 0)[:, None, None, :]
    torch.testing.assert_close(made["first"].where(seen, 0), bloom.where(seen, 0))
    torch.testing.assert_close(made["last"].where(seen, 0), mpt.expand(len(pos), -1, -1, -1).where(seen, 0))
    assert [x.shape[2] for x in made.values()] == [7, 1, 1]
    weights = [x.expand_as(allowed).masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num() for x in made.values()]
    torch.testing.assert_close(weights[1], weights[0])
    torch.testing.assert_close(weights[2], weights[0])
    assert not torch.allclose(made["first"], made["query"])


def test_alibi_of_other_slopes():
    slopes = ALiBi(4, steepest=16).slopes()
    torch.testing.assert_close(slopes, 2.0 ** -torch.tensor([4.0, 8.0, 12.0, 16.0]))
    with pytest.raises(ConfigError, match="'middle'"):
        ALiBi(4, "middle")


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1)])
def test_attention_equals_torch(heads, groups):
    """Multi-head, grouped and multi-query: against torch's layer with the shared heads written out."""
    ours = Attention(16, heads, groups, mask=Causal(), bias=True)
    theirs = nn.MultiheadAttention(16, heads, batch_first=True)
    spread = lambda w: w.unflatten(0, (groups, 4)).repeat_interleave(heads // groups, 0).flatten(0, 1)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, spread(ours.k.weight), spread(ours.v.weight)]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, spread(ours.k.bias), spread(ours.v.bias)]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    future = torch.ones(5, 5).triu(1).bool()
    expected, _ = theirs(X, X, X, attn_mask=future, need_weights=False)
    torch.testing.assert_close(ours(X, Context(torch.arange(5)[None])), expected, rtol=1e-4, atol=1e-5)


def test_attention_refuses_heads_that_do_not_divide():
    with pytest.raises(ConfigError, match="multiple"):
        Attention(16, 4, 3)
    with pytest.raises(ConfigError, match="does not divide"):
        Attention(18, 4)
    with pytest.raises(ConfigError, match="cross-attention"):
        Attention(16, 4, cross=True, mask=Full())(X, at([[0, 1, 2, 3, 4]]))


def test_pools_do_not_see_padding():
    left, right = at([[-1, -1, 0, 1, 2]]), at([[0, 1, 2, -1, -1]])
    for ctx, real in ((left, X[:, 2:]), (right, X[:, :3])):
        torch.testing.assert_close(First()(X, ctx), real[:, 0])
        torch.testing.assert_close(Last()(X, ctx), real[:, -1])
        torch.testing.assert_close(Mean()(X, ctx), real.mean(1))
    assert (Mean()(X, at([[-1] * 5])) == 0).all()


def test_dropout_rests_in_evaluation():
    part = Attention(16, 4, dropout=0.9).eval()
    ctx = Context(torch.arange(5)[None])
    assert torch.equal(part(X, ctx), part(X, ctx))
    part.train()
    assert not torch.equal(part(X, ctx), part(X, Context(torch.arange(5)[None])))

"""The 2017 Transformer against `torch.nn.Transformer`, and the decoder alone against a tutorial's code."""

import math

import pytest
import torch
from tests.families.oracles import error
from torch import nn

from cutaway.families import transformer
from cutaway.parts import StdNorm

SIZES = {"vocab": 50, "width": 32, "layers": 2, "heads": 4, "hidden": 64, "dropout": 0.0}


def randomise(model: nn.Module) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.4)


def copy(pairs: dict[nn.Module, nn.Module]) -> None:
    with torch.no_grad():
        for ours, theirs in pairs.items():
            ours.weight.copy_(theirs.weight)
            ours.bias.copy_(theirs.bias)


def copy_attention(ours: nn.Module, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        for name, weight, bias in zip("qkv", theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True):
            getattr(ours, name).weight.copy_(weight)
            getattr(ours, name).bias.copy_(bias)
    copy({ours.out: theirs.out_proj})


@pytest.mark.parametrize("order", ["post", "pre"])
def test_equals_torch(order):
    ours = transformer.compose(transformer.Sizes(**SIZES, order=order, final_norm=True)).eval()
    theirs = nn.Transformer(32, 4, 2, 2, 64, 0.0, batch_first=True, norm_first=order == "pre").eval()
    randomise(theirs)
    for a, b in zip(ours.encoder.blocks, theirs.encoder.layers, strict=True):
        copy_attention(a.attention.inner, b.self_attn)
        copy({a.attention.norm: b.norm1, a.feedforward.norm: b.norm2})
        copy({a.feedforward.inner.up: b.linear1, a.feedforward.inner.down: b.linear2})
    for a, b in zip(ours.decoder.blocks, theirs.decoder.layers, strict=True):
        copy_attention(a.attention.inner, b.self_attn)
        copy_attention(a.cross.inner, b.multihead_attn)
        copy({a.attention.norm: b.norm1, a.cross.norm: b.norm2, a.feedforward.norm: b.norm3})
        copy({a.feedforward.inner.up: b.linear1, a.feedforward.inner.down: b.linear2})
    copy({ours.encoder.norm: theirs.encoder.norm, ours.decoder.norm: theirs.decoder.norm})

    source, target = torch.randint(0, 50, (2, 9)), torch.randint(0, 50, (2, 6))
    padding = torch.ones_like(source, dtype=torch.bool)
    padding[1, 6:] = False
    table, positions = ours.encoder.embedding.tokens.weight, tutorial_positions(9, 32)
    with torch.no_grad():
        embed = lambda ids: table[ids] * math.sqrt(32) + positions[: ids.shape[1]]
        causal = nn.Transformer.generate_square_subsequent_mask(6)
        states = theirs(
            embed(source),
            embed(target),
            tgt_mask=causal,
            src_key_padding_mask=~padding,
            memory_key_padding_mask=~padding,
        )
        assert error(ours(source, target, padding), states @ table.T) <= 1e-5


def tutorial_positions(length: int, width: int) -> torch.Tensor:
    """The paper's formula, one number at a time."""
    rows = []
    for pos in range(length):
        angles = [pos / 10000 ** (2 * (i // 2) / width) for i in range(width)]
        rows.append([math.sin(a) if i % 2 == 0 else math.cos(a) for i, a in enumerate(angles)])
    return torch.tensor(rows)


class Tutorial(nn.Module):
    """A decoder as most tutorials build it, in its own words, dividing by the unbiased std plus epsilon."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        self.ours = ours

    @staticmethod
    def norm(x: torch.Tensor, n: nn.Module) -> torch.Tensor:
        return n.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + n.bias

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        table = self.ours.stack.embedding.tokens.weight
        x = table[ids] * math.sqrt(32) + tutorial_positions(ids.shape[1], 32)
        t = ids.shape[1]
        for block in self.ours.stack.blocks:
            a = block.attention.inner
            q, k, v = (p(x).view(len(x), t, 4, 8).transpose(1, 2) for p in (a.q, a.k, a.v))
            score = q @ k.transpose(-2, -1) / math.sqrt(8)
            score = score.masked_fill(torch.tril(torch.ones(t, t)) == 0, -1e9)
            mixed = (score.softmax(-1) @ v).transpose(1, 2).reshape(len(x), t, 32)
            x = self.norm(x + a.out(mixed), block.attention.norm)
            f = block.feedforward.inner
            x = self.norm(x + f.down(torch.relu(f.up(x))), block.feedforward.norm)
        return self.norm(x, self.ours.stack.norm) @ table.T


def test_decoder_alone_equals_a_tutorial():
    ours = transformer.compose(
        transformer.Sizes(**SIZES, encoder=False, final_norm=True), norm=lambda: StdNorm(32, 1e-6)
    ).eval()
    randomise(ours)
    ids = torch.randint(0, 50, (2, 11))
    with torch.no_grad():
        assert error(ours(ids), Tutorial(ours)(ids)) <= 1e-5


def test_std_norm_differs_from_layer_norm():
    """Which is why a model trained with one must not be run with the other."""
    x = torch.randn(3, 8)
    assert not torch.allclose(StdNorm(8)(x), nn.functional.layer_norm(x, (8,)), atol=1e-3)

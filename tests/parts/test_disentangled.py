"""Disentangled attention against its equation pair by pair; the convolution beside it; the enhanced mask decoder."""

import json
import math
import warnings
from dataclasses import replace

import pytest
import torch
import transformers as hf
from tests.families.oracles import counterpart, error, sharpen
from torch import nn

import cutaway
from cutaway.attention import recording
from cutaway.errors import ConfigError
from cutaway.families import deberta, deberta_v2
from cutaway.layout import expand
from cutaway.parts import Attention
from cutaway.parts.call import context
from cutaway.parts.disentangled import Disentangled, RelativeTable
from cutaway.parts.ngrams import NGrams

LENGTHS = [1, 2, 3, 4, 5, 13, 16, 17]


def called(length: int, rows: int = 2, padding: torch.Tensor | None = None):
    ids = torch.zeros(rows, length, dtype=torch.int64)
    return context(9, ids, padding, None, None, None)


def part(own: bool, far: int | None, c2p: bool = True, p2c: bool = True) -> Attention:
    table = RelativeTable(4, 24, max_distance=far, norm=nn.LayerNorm(24))
    bias = Disentangled(table, c2p, p2c, width=24 if own else None)
    made = Attention(24, 3, bias=True, score_bias=bias, scale=(8 * (1 + c2p + p2c)) ** -0.5)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * 0.4)
    return made


def definition(a: Attention, x: torch.Tensor) -> torch.Tensor:
    """Equation 4 of He et al. 2021, pair by pair."""
    bias, out = a.score_bias, []
    rows = bias.table.norm(bias.table.weight)

    def heads(project, y):
        return project(y).unflatten(-1, (a.heads, -1))

    k_rows, q_rows = heads(bias.k or a.k, rows), heads(bias.q or a.q, rows)
    for row in x:
        q, k, v, mixed = heads(a.q, row), heads(a.k, row), heads(a.v, row), []
        for h in range(a.heads):
            logits = [
                [
                    q[i, h] @ k[j, h]
                    + bias.c2p * q[i, h] @ k_rows[place(bias.table, i - j), h]
                    + bias.p2c * k[j, h] @ q_rows[place(bias.table, i - j), h]
                    for j in range(len(row))
                ]
                for i in range(len(row))
            ]
            scores = torch.stack([torch.stack(line) for line in logits])
            mixed.append((scores / math.sqrt(a.head_width * (1 + bias.c2p + bias.p2c))).softmax(-1) @ v[:, h])
        out.append(a.out(torch.cat(mixed, -1)))
    return torch.stack(out)


def place(table: RelativeTable, distance: int) -> int:
    """Equation 3, and with far distances sharing as in the published code."""
    if table.max_distance is not None and abs(distance) > table.span // 2:
        mid = table.span // 2
        steps = math.ceil(math.log(abs(distance) / mid) / math.log((table.max_distance - 1) / mid) * (mid - 1)) + mid
        distance = steps if distance > 0 else -steps
    return max(0, min(distance + table.span, 2 * table.span - 1))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("own", "far"), [(True, None), (False, 9), (False, None)])
def test_equals_its_definition(length, own, far):
    """Outputs and the gradients of every weight."""
    a, x = part(own, far), torch.randn(2, length, 24)
    parameters = list(a.parameters())
    weight = torch.randn(2, length, 24)
    found, expected = a(x, called(length)), definition(a, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad((y * weight).sum(), parameters, allow_unused=True) for y in (found, expected)]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("c2p", "p2c"), [(True, False), (False, True), (False, False)])
def test_each_term_alone(c2p, p2c):
    a, x = part(True, 9, c2p or True, p2c or True), torch.randn(1, 7, 24)
    a.score_bias.c2p, a.score_bias.p2c, a.scale = c2p, p2c, (8 * (1 + c2p + p2c)) ** -0.5
    torch.testing.assert_close(a(x, called(7, 1)), definition(a, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("far", [None, 9])
def test_padding_anywhere(far):
    """In the middle too: a row's tokens are as far apart as without padding."""
    a, x = part(False, far), torch.randn(3, 9, 24)
    padding = torch.tensor(
        [[1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0, 0, 0, 1]]
    ).bool()
    found = a(x, called(9, 3, padding))
    for i, real in enumerate(padding):
        torch.testing.assert_close(found[i, real], a(x[i, real][None], called(int(real.sum()), 1))[0])


def test_the_pattern_is_recorded():
    a, x, seen = part(True, 9), torch.randn(2, 6, 24), []
    a.out.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with recording() as trace, torch.no_grad():
        a(x, called(6))
    record = trace.records[0]
    mixed = record.weights() @ record.v
    torch.testing.assert_close(mixed.transpose(1, 2).flatten(2), seen[0])


@pytest.mark.parametrize(("span", "far"), [(256, 512), (32, 128), (8, 64), (6, 12), (5, 20), (4, 9)])
def test_buckets(span, far):
    """The published formula, in float64; near ones exact, each side the other's mirror, none beyond the table."""
    table, mid = RelativeTable(span, 2, max_distance=far), span // 2
    distance = torch.arange(-2 * far, 2 * far + 1)
    found = table.bucket(distance)
    expected = [place(table, d) for d in distance.tolist()]
    assert (found + span).clamp(0, 2 * span - 1).tolist() == expected
    assert torch.equal(found, -found.flip(0))
    assert torch.equal(found[distance.abs() <= mid], distance[distance.abs() <= mid])
    assert int(found[distance == mid + 1]) > mid  # the first that may share
    assert int(found[distance == far - 1]) == 2 * mid - 1  # the last distance told apart
    assert (found.diff() >= 0).all()


def test_too_few_buckets():
    with pytest.raises(ConfigError, match="too few"):
        RelativeTable(4, 2, max_distance=3)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("kernel", "groups"), [(1, 1), (3, 1), (5, 4)])
def test_neighbours(length, kernel, groups):
    """A convolution of each row's real tokens, wherever its padding is."""
    part = NGrams(8, kernel, "gelu", groups)
    x, padding = torch.randn(4, length, 8), torch.rand(4, length) > 0.4
    padding[0], padding[1, : length // 2] = True, False
    padding[1, length // 2 :] = True
    found = part(x, called(length, 4, padding))
    for i, real in enumerate(padding):
        if not real.any():
            continue
        row = nn.functional.pad(x[i, real], (0, 0, kernel // 2, kernel // 2))
        taps = [
            nn.functional.conv1d(row[t : t + kernel].T[None], part.conv.weight, part.conv.bias, groups=groups)[0, :, 0]
            for t in range(int(real.sum()))
        ]
        torch.testing.assert_close(found[i, real], nn.functional.gelu(torch.stack(taps)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel", "groups"), [(2, 1), (3, 3)])
def test_no_such_neighbours(kernel, groups):
    with pytest.raises(ConfigError, match="an odd number"):
        NGrams(8, kernel, "gelu", groups)


SHAPE = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "initializer_range": 0.3, "max_position_embeddings": 32, "relative_attention": True, "pos_att_type": "c2p|p2c",
    "position_biased_input": False, "legacy": False,
}  # fmt: skip
V2 = {"position_buckets": 6, "norm_rel_ebd": "layer_norm", "share_att_key": True, "conv_kernel_size": 3}
ENHANCED = [
    (deberta, hf.DebertaForMaskedLM, hf.DebertaConfig(**SHAPE)),
    (deberta_v2, hf.DebertaV2ForMaskedLM, hf.DebertaV2Config(**SHAPE, **V2)),
]


def enhanced(family, kind, config):
    """Ours with the published weights' absolute positions, and what the reference's own layers make of them."""
    theirs = kind(config).eval()
    sharpen(theirs, 1.2)
    plain = counterpart(theirs)
    positions = torch.randn(32, 32) * 0.5
    config = {**theirs.config.to_dict(), "architectures": [kind.__name__]}
    sizes = replace(family.read(config), head="enhanced-lm")
    ours = family.compose(sizes).eval()
    tensors = {**theirs.state_dict(), "deberta.embeddings.position_embeddings.weight": positions}
    parameters = dict(ours.named_parameters())
    with torch.no_grad():
        for entry in expand(family.weights(sizes), list(parameters), list(tensors)):
            for name, tensor in zip(entry.ours, entry.op.read(tensors[entry.theirs]), strict=True):
                parameters[name].copy_(tensor)
    return theirs, plain, ours, positions


@pytest.mark.parametrize(("family", "kind", "config"), ENHANCED, ids=["v1", "v2"])
def test_enhanced_mask_decoder(family, kind, config):
    """The last layer twice, from x + P: as the authors' code runs it, by the reference's layers."""
    theirs, plain, ours, positions = enhanced(family, kind, config)
    ids = torch.randint(3, 90, (2, 11))
    padding = torch.ones(2, 11, dtype=torch.bool)
    padding[1, 7:] = False
    with torch.no_grad():
        body = theirs.deberta
        states = body(ids, attention_mask=padding.long(), output_hidden_states=True).hidden_states
        encoder, tables = body.encoder, body.encoder.get_rel_embedding()
        mask, distances = encoder.get_attention_mask(padding.long()), encoder.get_rel_pos(states[-2])
        queries = states[-2] + positions[:11]
        for _ in range(2):
            if family is deberta_v2:
                queries = encoder.layer[-1](states[-2], mask, queries, distances, tables)[0]
            else:  # which cannot be given queries: a longer text, of which only the first half is looked at
                both, seen = torch.cat([states[-2], queries], 1), mask.repeat(1, 1, 2, 2)
                seen[..., 11:] = 0
                queries = encoder.layer[-1](both, seen, None, distances.repeat(1, 2, 2), tables)[0][:, 11:]
        expected = theirs.lm_predictions(queries, body.embeddings.word_embeddings)
        found = ours(ids, padding)
    assert error(found[padding], expected[padding]) < 1e-5
    assert error(plain(ids, padding)[padding], expected[padding]) > 0.1


def test_enhanced_is_no_published_configuration(tmp_path):
    model = cutaway.build("deberta", head="enhanced-lm", vocab=40, width=16, layers=2, heads=2, hidden=32)
    with pytest.raises(ConfigError, match="cannot say head='enhanced-lm'"):
        cutaway.save(model, tmp_path / "x")
    cutaway.save(model, tmp_path / "x", layout="cutaway")
    ids = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(cutaway.load(tmp_path / "x").model(ids), model(ids))
    with pytest.raises(ConfigError, match="absolute positions after the layers"):
        cutaway.build("deberta", head="enhanced-lm", absolute=True)
    with pytest.raises(ConfigError, match="swap neither"):
        cutaway.build("deberta", head="enhanced-lm", position="rotary")


def test_inside_the_enhanced_decoder():
    """What the queries look at: a row for each token, like every other layer's."""
    model = cutaway.build("deberta_v2", head="enhanced-lm", vocab=40, width=16, layers=2, heads=2, hidden=32)
    seen = []
    model.stack.blocks[1].attention.inner.out.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with recording() as trace, torch.no_grad():
        for length in (9, 5):
            model(torch.arange(length)[None])
    for record, mixed, length in zip([r for r in trace if "blocks.1" in r.site], seen, (9, 9, 5, 5), strict=True):
        assert record.weights().shape == (1, 2, length, length)
        expected = (record.weights() @ record.v).transpose(1, 2).flatten(2)
        torch.testing.assert_close(expected, mixed[:, length:])
    pattern = cutaway.inspect(model, ids=list(range(7))).patterns["self"]
    assert {pattern.layer(i).shape for i in pattern.layers} == {(2, 7, 7)}


@pytest.mark.parametrize(("family", "kind", "config"), ENHANCED, ids=["v1", "v2"])
def test_a_published_checkpoint_names_no_head(family, kind, config, tmp_path):
    """It holds the encoder, the masked-language head, absolute positions, a detector: each head finds what it needs."""
    theirs, plain, ours, positions = enhanced(family, kind, config)
    theirs.save_pretrained(tmp_path)
    made = json.loads((tmp_path / "config.json").read_text())
    del made["architectures"], made["legacy"]
    (tmp_path / "config.json").write_text(json.dumps(made))
    tensors = {name: x for name, x in theirs.state_dict().items() if "cls." not in name}
    tensors["deberta.embeddings.position_embeddings.weight"] = positions
    tensors["mask_predictions.dense.weight"] = torch.zeros(2, 2)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    ids = torch.randint(3, 90, (2, 11))
    with torch.no_grad(), warnings.catch_warnings(action="error", category=UserWarning):
        assert error(cutaway.load(tmp_path).model(ids), theirs.deberta(ids).last_hidden_state) < 1e-5
        assert error(cutaway.load(tmp_path, head="masked-lm").model(ids), plain(ids)) < 1e-5
        assert error(cutaway.load(tmp_path, head="enhanced-lm").model(ids), ours(ids)) < 1e-5

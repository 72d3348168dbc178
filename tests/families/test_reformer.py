"""Reformer besides its parity: published configs, checkpoints both ways, decoding as the reference's cache does it."""

import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from tests.families.cases.reformer import CASES, TINY, reference
from tests.families.oracles import counterpart, error

import cutaway
from cutaway.errors import CheckpointError, ConfigError
from cutaway.families import reformer
from cutaway.lab.states import compare
from cutaway.lab.verify import verify
from cutaway.parts import State

# the two published configs, as they stand on the hub
SHARED = {
    "architectures": ["ReformerModelWithLMHead"], "axial_norm_std": 1.0, "axial_pos_embds": True,
    "chunk_size_feed_forward": 0, "chunk_size_lm_head": 0, "eos_token_id": 2, "hash_seed": None, "hidden_act": "relu",
    "initializer_range": 0.02, "is_decoder": True, "layer_norm_eps": 1e-12, "local_num_chunks_after": 0,
    "local_num_chunks_before": 1, "lsh_num_chunks_after": 0, "lsh_num_chunks_before": 1, "model_type": "reformer",
    "num_chunks_after": 0, "num_chunks_before": 1, "output_past": True, "pad_token_id": 0,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 100}},
}  # fmt: skip
PUBLISHED = {
    "reformer-crime-and-punishment": {
        **SHARED, "attention_head_size": 64, "attention_probs_dropout_prob": 0.1,
        "attn_layers": ["local", "lsh", "local", "lsh", "local", "lsh"], "axial_pos_embds_dim": [64, 192],
        "axial_pos_shape": [512, 1024], "feed_forward_size": 512, "hidden_dropout_prob": 0.05, "hidden_size": 256,
        "intermediate_size": 3072, "local_attention_probs_dropout_prob": 0.05, "local_attn_chunk_length": 64,
        "lsh_attention_probs_dropout_prob": 0.0, "lsh_attn_chunk_length": 64, "max_position_embeddings": 524288,
        "num_attention_heads": 2, "num_buckets": [64, 128], "num_hashes": 1, "num_hidden_layers": 6, "vocab_size": 320,
    },
    "reformer-enwik8": {
        **SHARED, "attention_head_size": 128, "attn_layers": [
            "local", "local", "lsh", "local", "local", "local", "lsh", "local", "local", "local", "lsh", "local",
        ], "axial_pos_embds_dim": [256, 768], "axial_pos_shape": [128, 512], "feed_forward_size": 4096,
        "hidden_dropout_prob": 0.2, "hidden_size": 1024, "intermediate_size": 4096,
        "local_attention_probs_dropout_prob": 0.2, "local_attn_chunk_length": 128,
        "lsh_attention_probs_dropout_prob": 0.1, "lsh_attn_chunk_length": 256, "max_position_embeddings": 65536,
        "num_attention_heads": 8, "num_buckets": 512, "num_hashes": 4, "num_hidden_layers": 12, "vocab_size": 258,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_read(name):
    assert reformer.read(PUBLISHED[name]) == reformer.PRESETS[name]
    reference = hf.ReformerModelWithLMHead
    with torch.device("meta"):
        theirs = reference(hf.ReformerConfig(**PUBLISHED[name]))
    assert sum(p.numel() for p in theirs.parameters()) == reformer.PARAMETERS[name]


def test_open_buckets_follow_the_published_rule():
    for tokens, chunk in ((64, 64), (4096, 64), (16384, 64), (65536, 256), (524288, 64), (40, 4)):
        config = hf.ReformerConfig(lsh_attn_chunk_length=chunk, max_position_embeddings=tokens, attn_layers=["lsh"])
        attention = hf.models.reformer.modeling_reformer.LSHSelfAttention(config)
        attention._set_num_buckets(tokens)
        found = reformer.buckets(tokens, chunk, tokens)
        expected = attention.num_buckets
        assert list(found) == (expected if isinstance(expected, list) else [expected])


def test_an_odd_config_is_refused():
    for change, message in (
        ({"attn_layers": ["local", "global"]}, "global"),
        ({"attn_layers": "lsh"}, "list"),
        ({"axial_pos_embds_dim": [10, 10]}, "make up a width"),
        ({"num_buckets": [3, 4]}, "even number"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
    ):
        with pytest.raises(ConfigError, match=message):
            reformer.compose(reformer.read({**PUBLISHED["reformer-crime-and-punishment"], **change}))


@pytest.mark.parametrize(
    "variant", ["local and LSH", "learned positions", "encoder", "question answering", "body alone"]
)
def test_checkpoints_there_and_back(variant, tmp_path: Path):
    """Bit for bit, the head's bias included, which the reference keeps though it does not use it."""
    case = next(c for c in CASES if c.variant == variant)
    theirs = getattr(hf, case.model)(hf.ReformerConfig(**{**TINY, **case.config}))
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn_like(p))
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = cutaway.load(tmp_path / "theirs")
    assert not any(p.is_meta for p in loaded.model.parameters())
    cutaway.save(loaded, tmp_path / "ours")
    before, after = (load_file(tmp_path / way / "model.safetensors") for way in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again, info = getattr(hf, case.model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), theirs.parameters(), strict=True))
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert reformer.read(config) == loaded.sizes


def test_a_bias_of_two_names_must_agree(tmp_path: Path):
    """Published checkpoints keep the head's bias twice."""
    from safetensors.torch import save_file

    theirs = hf.ReformerModelWithLMHead(hf.ReformerConfig(**TINY))
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bias = tensors["lm_head.bias"] = torch.randn_like(tensors["lm_head.bias"])
    save_file({**tensors, "lm_head.decoder.bias": bias.clone()}, tmp_path / "model.safetensors", {"format": "pt"})
    assert torch.equal(cutaway.load(tmp_path).model.head.bias, bias)
    save_file({**tensors, "lm_head.decoder.bias": bias + 1}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="bias"):
        cutaway.load(tmp_path)


@pytest.mark.parametrize("prompt", [3, 7, 13])
def test_decoding_equals_the_reference(prompt):
    """Step by step with its cache: prompts of less than a chunk, of less than two, and of more."""
    torch.manual_seed(0)
    case = next(c for c in CASES if c.variant == "local and LSH")
    big = {"local_attn_chunk_length": 5, "lsh_attn_chunk_length": 5}  # the reference needs more than its four heads
    theirs = reference(type(case)(case.family, case.variant, case.model, big))
    ours, state = counterpart(theirs), State(1, 30)
    ids = torch.randint(3, 90, (1, 30))
    with torch.no_grad():
        answer = theirs(ids[:, :prompt], use_cache=True)
        assert error(ours(ids[:, :prompt], state=state), answer.logits) <= 1e-5
        for i in range(prompt, 30):
            step = ids[:, i : i + 1]
            answer = theirs(step, past_buckets_states=answer.past_buckets_states, use_cache=True)
            assert error(ours(step, state=state), answer.logits) <= 1e-5


def test_up_to_a_chunk_a_cache_equals_one_pass():
    sizes = reformer.Sizes(
        width=32, layers=4, heads=4, head_width=8, hidden=48, grid=(8, 8), grid_widths=(8, 24), causal=True, head="lm"
    )
    model, ids, state = reformer.compose(sizes).eval(), torch.randint(0, 90, (2, 20)), State(2, 20)
    with torch.no_grad():
        found = torch.cat([model(piece, state=state) for piece in ids.split((7, 1, 1, 8, 3), 1)], 1)
        torch.testing.assert_close(found, model(ids), rtol=1e-4, atol=1e-5)


def test_state_by_state():
    """What `cutaway verify` compares, for a text that the reference does not pad."""
    theirs = reference(next(c for c in CASES if c.variant == "local and LSH"))
    rows, _ = compare(counterpart(theirs), theirs, torch.randint(3, 90, (1, 12)))
    assert [row.name for row in rows] == ["embedding", *(f"block {i}" for i in range(1, 5)), "logits"]
    assert max(row.max_rel_error for row in rows) < 1e-5


def test_verify_finds_no_difference(tmp_path: Path):
    """From a saved checkpoint, in float32: up to a chunk, beyond which the reference's hashes are random."""
    sizes = {"local_attn_chunk_length": 64, "lsh_attn_chunk_length": 64, "hash_seed": None}
    hf.ReformerModelWithLMHead(hf.ReformerConfig(**{**TINY, **sizes})).save_pretrained(tmp_path)
    (report,) = verify(str(tmp_path), new_tokens=20)
    assert report.max_rel_error < 1e-5
    assert report.greedy_tokens_equal


def test_equal_models_have_equal_sizes():
    long, short = (reformer.Sizes(layers=4, kinds=kinds) for kinds in (("local", "lsh") * 2, ("local", "lsh")))
    assert long == short
    assert reformer.Sizes(layers=3, kinds=("local", "lsh")).kinds == ("local", "lsh")
    assert reformer.Sizes(kinds=["lsh"]).kinds == ("lsh",)
    with pytest.raises(ConfigError, match="sideways"):
        reformer.Sizes(kinds=("sideways",))

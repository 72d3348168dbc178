"""Decoders: what their published configurations say, and what is particular to each."""

from typing import Any

import pytest
import torch

import cutaway
from cutaway import families
from cutaway.errors import CapacityError, ConfigError

# as they stand beside the weights, with what changes nothing left out
PUBLISHED: dict[str, dict[str, Any]] = {
    "openai-gpt": {
        "model_type": "openai-gpt", "afn": "gelu", "architectures": ["OpenAIGPTLMHeadModel"], "attn_pdrop": 0.1,
        "embd_pdrop": 0.1, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "n_ctx": 512, "n_embd": 768,
        "n_head": 12, "n_layer": 12, "n_positions": 512, "n_special": 0, "predict_special_tokens": True,
        "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_type": "cls_index", "summary_use_proj": True, "vocab_size": 40478,
    },
    "gpt-neox-20b": {
        "model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "attention_probs_dropout_prob": 0,
        "hidden_act": "gelu_fast", "hidden_dropout_prob": 0, "hidden_size": 6144, "initializer_range": 0.02,
        "intermediate_size": 24576, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
        "num_attention_heads": 64, "num_hidden_layers": 44, "rotary_emb_base": 10000, "rotary_pct": 0.25,
        "tie_word_embeddings": False, "vocab_size": 50432,
    },
    "mpt-7b-storywriter": {
        "model_type": "mpt", "architectures": ["MPTForCausalLM"], "attn_config": {
            "alibi": True, "alibi_bias_max": 16, "attn_impl": "torch", "attn_pdrop": 0, "attn_type":
            "multihead_attention", "attn_uses_sequence_id": False, "clip_qkv": 6, "prefix_lm": False, "qk_ln": False,
            "softmax_scale": None,
        },
        "d_model": 4096, "emb_pdrop": 0, "embedding_fraction": 1.0, "expansion_ratio": 4, "init_config": {"name": "x"},
        "init_device": "cpu", "learned_pos_emb": True, "logit_scale": None, "max_seq_len": 65536, "n_heads": 32,
        "n_layers": 32, "no_bias": True, "norm_type": "low_precision_layernorm", "resid_pdrop": 0,
        "tokenizer_name": "EleutherAI/gpt-neox-20b", "verbose": 0, "vocab_size": 50432,
    },
    "bloom-560m": {
        "model_type": "bloom", "architectures": ["BloomForCausalLM"], "attention_dropout": 0.0,
        "apply_residual_connection_post_layernorm": False, "attention_softmax_in_fp32": True,
        "bias_dropout_fusion": True, "hidden_dropout": 0.0, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
        "masked_softmax_fusion": True, "n_embed": 1024, "n_inner": None, "n_layer": 24, "num_attention_heads": 16,
        "offset_alibi": 100, "pretraining_tp": 1, "seq_length": 2048, "skip_bias_add": True,
        "skip_bias_add_qkv": False, "vocab_size": 250880,
    },
    "qwen2.5-0.5b": {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu",
        "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864, "max_position_embeddings": 32768,
        "max_window_layers": 24, "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True,
        "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936,
    },
    "qwen3-8b": {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "attention_bias": False,
        "attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 12288, "max_position_embeddings": 40960,
        "max_window_layers": 36, "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
        "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936,
    },
    "gemma-2-2b": {
        "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "attention_bias": False,
        "attention_dropout": 0.0, "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "initializer_range": 0.02,
        "intermediate_size": 9216, "max_position_embeddings": 8192, "num_attention_heads": 8,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 256000,
    },
}  # fmt: skip


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_published_configuration_is_the_preset(preset: str) -> None:
    family = families.by_preset(preset)
    assert families.by_model_type(PUBLISHED[preset]["model_type"]) == family
    assert families.get(family).read(PUBLISHED[preset]) == families.get(family).PRESETS[preset]


@pytest.mark.parametrize(
    ("preset", "changed", "refused"),
    [
        ("openai-gpt", {"architectures": ["OpenAIGPTDoubleHeadsModel"]}, "multiple choice"),
        ("openai-gpt", {"afn": "gelu_fast"}, "afn: 'gelu_fast'"),
        ("mpt-7b-storywriter", {"attn_config": {"qk_ln": True}}, "attn_config config has qk_ln: True"),
        ("mpt-7b-storywriter", {"attn_config": {"alibi": False}}, "alibi: False"),
        ("mpt-7b-storywriter", {"attn_config": {"rope": True}}, "not understood: rope: True"),
        ("mpt-7b-storywriter", {"no_bias": False}, "no_bias: False"),
        ("mpt-7b-storywriter", {"logit_scale": 0.5}, "logit_scale: 0.5"),
        ("bloom-560m", {"apply_residual_connection_post_layernorm": True}, "post_layernorm: True"),
        ("bloom-560m", {"n_inner": 100}, "n_inner: 100"),
        ("qwen2.5-0.5b", {"use_mrope": True}, "use_mrope: True"),
        ("qwen2.5-0.5b", {"use_sliding_window": True, "sliding_window": None}, "lacks sliding_window"),
        ("qwen2.5-0.5b", {"layer_types": ["full_attention"] * 23 + ["sliding_attention"]}, "use_sliding_window"),
        ("qwen2.5-0.5b", {"layer_types": ["full_attention"] * 23}, "layer_types"),
        ("gemma-2-2b", {"layer_types": ["full_attention", "sliding_attention"] * 13}, "layer_types"),
        ("gemma-2-2b", {"use_bidirectional_attention": True}, "use_bidirectional_attention: True"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(preset: str, changed: dict[str, Any], refused: str) -> None:
    module = families.get(families.by_preset(preset))
    with pytest.raises(ConfigError, match=refused):
        module.read({**PUBLISHED[preset], **changed})


@torch.no_grad()
def test_alibi_reads_on_where_learned_positions_end() -> None:
    """Texts beyond the trained length, and every form of distance gives one model."""
    tiny: dict[str, Any] = {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 64, "context": 8}
    ids = torch.randint(0, 40, (1, 50))
    for family in ("mpt", "bloom"):
        assert cutaway.build(family, **tiny).eval()(ids).isfinite().all()
    with pytest.raises(CapacityError, match="8 positions"):
        cutaway.build("gpt", **tiny)(ids)


def test_windows_stand_where_the_configuration_puts_them() -> None:
    def windows(preset: str, **sizes: Any) -> list[int | None]:
        model = cutaway.build(preset, device="meta", **sizes)
        return [block.attention.inner.mask.window for block in model.stack.blocks]

    assert windows("gemma-2-2b", layers=5) == [4096, None, 4096, None, 4096]
    assert windows("qwen2-0.5b", layers=4) == [None] * 4
    assert windows("qwen2-0.5b", layers=4, window=7) == [7] * 4
    assert windows("qwen2-0.5b", layers=4, window=7, windowed=1) == [None, None, None, 7]

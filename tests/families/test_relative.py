"""DeBERTa's and XLNet's published configurations, in the words of their publishers; what they may not say."""

from typing import Any

import pytest

from cutaway import families
from cutaway.errors import ConfigError

DEBERTA: dict[str, Any] = {
    "model_type": "deberta", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 512,
    "relative_attention": True, "pos_att_type": "c2p|p2c", "layer_norm_eps": 1e-7, "max_relative_positions": -1,
    "position_biased_input": False, "num_attention_heads": 12, "num_hidden_layers": 12, "type_vocab_size": 0,
    "vocab_size": 50265, "padding_idx": 0, "pooler_dropout": 0, "pooler_hidden_act": "gelu",
}  # fmt: skip
V3 = {
    **DEBERTA, "model_type": "deberta-v2", "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": "p2c|c2p", "vocab_size": 128100,
}  # fmt: skip
V2 = {
    **V3, "hidden_size": 1536, "intermediate_size": 6144, "num_attention_heads": 24, "num_hidden_layers": 24,
    "conv_kernel_size": 3, "conv_act": "gelu", "attention_head_size": 64,
}  # fmt: skip
XLNET: dict[str, Any] = {
    "architectures": ["XLNetLMHeadModel"], "attn_type": "bi", "bi_data": False, "bos_token_id": 1, "clamp_len": -1,
    "d_head": 64, "d_inner": 3072, "d_model": 768, "dropout": 0.1, "end_n_top": 5, "eos_token_id": 2,
    "ff_activation": "gelu", "initializer_range": 0.02, "layer_norm_eps": 1e-12, "mem_len": None, "model_type": "xlnet",
    "n_head": 12, "n_layer": 12, "pad_token_id": 5, "reuse_len": None, "same_length": False, "start_n_top": 5,
    "summary_activation": "tanh", "summary_last_dropout": 0.1, "summary_type": "last", "summary_use_proj": True,
    "untie_r": True, "vocab_size": 32000,
}  # fmt: skip
PUBLISHED = {
    "deberta-base": DEBERTA, "deberta-v3-base": V3, "deberta-v2-xlarge": V2, "xlnet-base-cased": XLNET,
}  # fmt: skip


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_configurations(preset: str) -> None:
    module = families.get(families.by_preset(preset))
    assert module.read(PUBLISHED[preset]) == module.PRESETS[preset]


@pytest.mark.parametrize(
    ("preset", "key", "value"),
    [
        ("deberta-base", "relative_attention", False),
        ("deberta-base", "pos_att_type", "c2p|p2p"),
        ("deberta-base", "talking_head", True),
        ("deberta-base", "embedding_size", 128),
        ("deberta-base", "pooler_hidden_act", "tanh"),
        ("deberta-v3-base", "norm_rel_ebd", "batch_norm"),
        ("deberta-v3-base", "attention_head_size", 32),
        ("xlnet-base-cased", "bi_data", True),
        ("xlnet-base-cased", "reuse_len", 4),
        ("xlnet-base-cased", "same_length", True),
        ("xlnet-base-cased", "untie_r", False),
        ("xlnet-base-cased", "d_head", 32),
        ("xlnet-base-cased", "summary_type", "cls_index"),
        ("xlnet-base-cased", "summary_activation", "relu"),
        ("xlnet-base-cased", "architectures", ["XLNetForQuestionAnswering"]),
    ],
)
def test_what_is_not_supported_is_named(preset: str, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=str(value[0]) if key == "architectures" else key):
        families.get(families.by_preset(preset)).read({**PUBLISHED[preset], key: value})


def test_the_published_masked_language_head_is_known_by_its_names() -> None:
    module = families.get("deberta")
    names = ["deberta.embeddings.word_embeddings.weight", "lm_predictions.lm_head.dense.weight"]
    assert module.read(DEBERTA).legacy
    assert not module.read(DEBERTA, names).legacy

"""Qwen2 and Qwen3 against the reference."""

from typing import Any

import transformers as hf
from tests.families.case import Case
from tests.families.mutants import (
    BIAS,
    MASK,
    MASK_OFF_BY_ONE,
    RMS_EPSILON,
    ROTARY_BASE,
    ROTARY_PAIRING,
    SCALE,
    each,
    setting,
)

from cutaway.attention import Causal
from cutaway.parts import Attention

TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
SHARPEN = 3.1
WINDOWS = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
FULL, SLIDING = "full_attention", "sliding_attention"
CONFIGS = {"Qwen2": (hf.Qwen2Config, TINY), "Qwen3": (hf.Qwen3Config, {**TINY, "head_dim": 8})}


def _rope(kind: str, **numbers: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 100.0, "rope_type": kind, **numbers}}


CASES = [
    Case("qwen", "3, biases, windows", "Qwen3ForCausalLM", {**WINDOWS, "attention_bias": True}),
    Case("qwen", "3", "Qwen3ForCausalLM"),
    Case("qwen", "3, tied, wide heads", "Qwen3ForCausalLM", {"tie_word_embeddings": True, "head_dim": 14}),
    Case("qwen", "3, one key head", "Qwen3ForCausalLM", {"num_key_value_heads": 1}),
    Case("qwen", "3, body alone", "Qwen3Model"),
    Case("qwen", "3, token classes", "Qwen3ForTokenClassification", {"num_labels": 5}),
    Case("qwen", "2", "Qwen2ForCausalLM"),
    Case("qwen", "2, tied", "Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    Case("qwen", "2, windows", "Qwen2ForCausalLM", WINDOWS),
    Case("qwen", "2, windows everywhere", "Qwen2ForCausalLM", {**WINDOWS, "max_window_layers": 0}),
    Case("qwen", "2, windows nowhere", "Qwen2ForCausalLM", {**WINDOWS, "max_window_layers": 3}),
    Case("qwen", "2, layer types", "Qwen2ForCausalLM", {**WINDOWS, "layer_types": [FULL, FULL, SLIDING]}),
    Case("qwen", "2, rotary yarn", "Qwen2ForCausalLM", _rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    Case("qwen", "2, body alone", "Qwen2Model"),
    Case("qwen", "2, token classes", "Qwen2ForTokenClassification", {"num_labels": 5}),
    Case("qwen", "2, sequence classes", "Qwen2ForSequenceClassification", {"num_labels": 3, "pad_token_id": 95}),
    Case("qwen", "3, sequence classes", "Qwen3ForSequenceClassification", {"num_labels": 3, "pad_token_id": 95}),
]


def _norm_after(attention: Attention) -> None:
    for steps in (attention.q_steps, attention.k_steps):
        norm, rotary = steps
        steps[0], steps[1] = rotary, norm


MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "no windows": each(Attention, setting("mask", lambda _: Causal())),
    "bias": BIAS,
    "rotary base": ROTARY_BASE,
    "rotary pairing": ROTARY_PAIRING,
    "rms norm epsilon": RMS_EPSILON,
    "norms after turning": each(Attention, _norm_after),
    "no norm of keys": each(Attention, lambda attention: attention.k_steps.__delitem__(0)),
}

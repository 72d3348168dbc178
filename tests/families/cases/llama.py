"""LLaMA and Mistral against the reference."""

from typing import Any

import transformers as hf
from tests.families.case import Case
from tests.families.mutants import MASK, MASK_OFF_BY_ONE, RMS_EPSILON, ROTARY_BASE, ROTARY_PAIRING, SCALE

TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHARPEN = 3.0
CONFIGS = {"Llama": (hf.LlamaConfig, TINY), "Mistral": (hf.MistralConfig, TINY)}


def _rope(kind: str, **numbers: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 100.0, "rope_type": kind, **numbers}}


CASES = [
    Case("llama", "grouped keys", "LlamaForCausalLM"),
    Case("llama", "one key head", "LlamaForCausalLM", {"num_key_value_heads": 1}),
    Case("llama", "multi-head", "LlamaForCausalLM", {"num_key_value_heads": 4}),
    Case("llama", "biases", "LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    Case("llama", "tied", "LlamaForCausalLM", {"tie_word_embeddings": True}),
    Case("llama", "wide heads", "LlamaForCausalLM", {"head_dim": 14}),
    Case("llama", "gelu gate", "LlamaForCausalLM", {"hidden_act": "gelu"}),
    Case("llama", "rotary linear", "LlamaForCausalLM", _rope("linear", factor=2.0)),
    Case(
        "llama",
        "rotary dynamic",
        "LlamaForCausalLM",
        {**_rope("dynamic", factor=2.0), "max_position_embeddings": 8},
        False,
    ),
    Case("llama", "rotary yarn", "LlamaForCausalLM", _rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    Case(
        "llama",
        "rotary llama3",
        "LlamaForCausalLM",
        _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
    ),
    Case("llama", "window (Mistral)", "MistralForCausalLM", {"sliding_window": 4}),
    Case("llama", "no window (Mistral)", "MistralForCausalLM", {"sliding_window": None}),
    Case("llama", "token classes", "LlamaForTokenClassification"),
]
MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "rotary base": ROTARY_BASE,
    "rotary pairing": ROTARY_PAIRING,
    "rms norm epsilon": RMS_EPSILON,
}

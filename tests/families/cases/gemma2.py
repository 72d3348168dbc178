"""Gemma 2 against the reference."""

from typing import Any

import transformers as hf
from tests.families.case import Case
from tests.families.mutants import MASK, MASK_OFF_BY_ONE, RMS_EPSILON, ROTARY_BASE, ROTARY_PAIRING, SCALE, each, setting
from torch import nn

from cutaway.attention import Causal, Window
from cutaway.parts import Attention, Embedding, Gated, LanguageHead, RMSNorm, Sandwich, activation

TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 10,
    "sliding_window": 4,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "final_logit_softcapping": 5.0,
    "attn_logit_softcapping": 20.0,
}
SHARPEN = 2.9
BACKENDS = ("eager", "tiled")
CONFIGS = {"Gemma2": (hf.Gemma2Config, TINY)}
FULL, SLIDING = "full_attention", "sliding_attention"


def _rope(kind: str, **numbers: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 100.0, "rope_type": kind, **numbers}}


CASES = [
    Case("gemma2", "as published", "Gemma2ForCausalLM"),
    Case("gemma2", "no caps", "Gemma2ForCausalLM", {"final_logit_softcapping": None, "attn_logit_softcapping": None}),
    Case("gemma2", "untied, biases", "Gemma2ForCausalLM", {"tie_word_embeddings": False, "attention_bias": True}),
    Case("gemma2", "layer types", "Gemma2ForCausalLM", {"layer_types": [SLIDING, FULL] * 2}),
    Case("gemma2", "no windows", "Gemma2ForCausalLM", {"layer_types": [FULL] * 4}),
    Case("gemma2", "three layers, wide heads", "Gemma2ForCausalLM", {"num_hidden_layers": 3, "head_dim": 14}),
    Case("gemma2", "rotary linear", "Gemma2ForCausalLM", _rope("linear", factor=2.0)),
    Case("gemma2", "body alone", "Gemma2Model"),
    Case("gemma2", "token classes", "Gemma2ForTokenClassification", {"num_labels": 5}),
    Case("gemma2", "sequence classes", "Gemma2ForSequenceClassification", {"num_labels": 3, "pad_token_id": 95}),
]


def _other_layers(mask: Any) -> Any:
    return Causal() & Window(4) if mask == Causal() else Causal()


MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "windows in the other layers": each(Attention, setting("mask", _other_layers)),
    "rotary base": ROTARY_BASE,
    "rotary pairing": ROTARY_PAIRING,
    "rms norm epsilon": RMS_EPSILON,
    "norms that multiply by what they learned": each(RMSNorm, setting("offset", lambda _: 0.0)),
    "soft cap of attention": each(Attention, setting("softcap", lambda cap: cap * 1.01)),
    "soft cap of the logits": each(LanguageHead, setting("softcap", lambda cap: cap * 1.01)),
    "embeddings as they are": each(Embedding, setting("scale", lambda scale: scale * 1.01)),
    "gelu without the approximation": each(Gated, setting("act", lambda _: activation("gelu"))),
    "no norm after": each(Sandwich, setting("after", lambda _: nn.Identity())),
}

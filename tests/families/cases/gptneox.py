"""GPT-NeoX against the reference."""

from typing import Any

import torch
import transformers as hf
from tests.families.case import Case
from tests.families.mutants import (
    BIAS,
    IN_TURN,
    LAYER_EPSILON,
    MASK,
    MASK_OFF_BY_ONE,
    ROTARY_BASE,
    ROTARY_PAIRING,
    SCALE,
    each,
)

from cutaway.parts import Attention, Rotary

TINY = {
    "vocab_size": 99,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.25,
    "max_position_embeddings": 64,
}
SHARPEN = 2.6
CONFIGS = {"GPTNeoX": (hf.GPTNeoXConfig, TINY)}


def _rope(share: float, kind: str = "default", **numbers: float) -> dict[str, Any]:
    rope = {"rope_theta": 100.0, "partial_rotary_factor": share, "rope_type": kind, **numbers}
    return {"rope_parameters": rope}


CASES = [
    Case("gptneox", "side by side", "GPTNeoXForCausalLM"),
    Case("gptneox", "in turn", "GPTNeoXForCausalLM", {"use_parallel_residual": False}),
    Case("gptneox", "half turned", "GPTNeoXForCausalLM", _rope(0.5)),
    Case("gptneox", "all turned", "GPTNeoXForCausalLM", _rope(1.0)),
    Case("gptneox", "rotary linear", "GPTNeoXForCausalLM", _rope(0.25, "linear", factor=2.0)),
    Case(
        "gptneox",
        "rotary yarn",
        "GPTNeoXForCausalLM",
        _rope(0.5, "yarn", factor=4.0, original_max_position_embeddings=16),
    ),
    Case("gptneox", "tied, no biases", "GPTNeoXForCausalLM", {"tie_word_embeddings": True, "attention_bias": False}),
    Case("gptneox", "the activation of 20B", "GPTNeoXForCausalLM", {"hidden_act": "gelu_fast"}),
    Case("gptneox", "body alone", "GPTNeoXModel"),
    Case("gptneox", "token classes", "GPTNeoXForTokenClassification", {"num_labels": 5}),
    Case("gptneox", "sequence classes", "GPTNeoXForSequenceClassification", {"num_labels": 3, "pad_token_id": 95}),
]


def _turn_more(rotary: Rotary) -> None:
    rotary.width *= 2
    rotary.frequencies = rotary.frequencies.repeat(2)


def _not_by_head(attention: Attention) -> None:
    """The fused matrix read as three, where it is three a head."""
    fused = attention.q, attention.k, attention.v
    for name in ("weight", "bias"):
        tensors = [getattr(part, name).data for part in fused]
        whole = torch.stack([x.unflatten(0, (attention.heads, -1)) for x in tensors], 1).flatten(0, 2)
        for x, wrong in zip(tensors, whole.clone().chunk(3), strict=True):
            x.copy_(wrong)


MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "rotary base": ROTARY_BASE,
    "rotary pairing": ROTARY_PAIRING,
    "rotary width": each(Rotary, _turn_more),
    "one sublayer after the other": IN_TURN,
    "q, k and v not by head": each(Attention, _not_by_head),
}

"""MPT against the reference."""

import transformers as hf
from tests.families.case import Case
from tests.families.mutants import LAYER_EPSILON, MASK, MASK_OFF_BY_ONE, SCALE, SLOPES, each, setting

from cutaway.parts import Attention, Clip, FeedForward, activation

TINY = {
    "vocab_size": 99,
    "d_model": 32,
    "n_layers": 3,
    "n_heads": 4,
    "max_seq_len": 64,
    "initializer_range": 0.3,
    "attn_config": {"clip_qkv": 4.5},
}
SHARPEN = 1.5
CALM = 1.0  # or keys are so short that queries cannot be long enough: they are clipped
TOLD_POSITIONS = False
CONFIGS = {"Mpt": (hf.MptConfig, TINY)}
CASES = [
    Case("mpt", "clipped", "MptForCausalLM"),
    Case("mpt", "as published", "MptForCausalLM", {"attn_config": {}}),
    Case("mpt", "six heads", "MptForCausalLM", {"d_model": 48, "n_heads": 6}),
    Case("mpt", "scale", "MptForCausalLM", {"attn_config": {"softmax_scale": 0.3}}),
    Case("mpt", "untied, loose epsilon", "MptForCausalLM", {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-3}),
    Case("mpt", "body alone", "MptModel"),
    Case("mpt", "token classes", "MptForTokenClassification", {"num_labels": 5}),
    Case("mpt", "sequence classes", "MptForSequenceClassification", {"num_labels": 3, "pad_token_id": 95}),
]
MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "layer norm epsilon": LAYER_EPSILON,
    "slopes": SLOPES,
    "clip": each(Clip, setting("limit", lambda limit: limit * 1.01)),
    "values not clipped": each(Attention, lambda attention: attention.v_steps.__delitem__(0)),
    "gelu by tanh": each(FeedForward, setting("act", lambda _: activation("gelu_tanh"))),
}

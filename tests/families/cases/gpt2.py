"""GPT-2 against the reference."""

import transformers as hf
from tests.families.case import Case
from tests.families.mutants import BIAS, LAYER_EPSILON, MASK, MASK_OFF_BY_ONE, POSITION, SCALE

TINY = {
    "vocab_size": 99,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHARPEN = 4.1
CONFIGS = {"GPT2": (hf.GPT2Config, TINY)}
CASES = [
    Case("gpt2", "as published", "GPT2LMHeadModel"),
    Case("gpt2", "scale by layer", "GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}),
    Case("gpt2", "unscaled", "GPT2LMHeadModel", {"scale_attn_weights": False}),
    Case("gpt2", "untied", "GPT2LMHeadModel", {"tie_word_embeddings": False}),
    Case("gpt2", "relu, narrow", "GPT2LMHeadModel", {"activation_function": "relu", "n_inner": 20}),
    Case("gpt2", "body alone", "GPT2Model"),
    Case("gpt2", "token classes", "GPT2ForTokenClassification"),
]
MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "position off by one": POSITION,
}

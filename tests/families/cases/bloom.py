"""BLOOM against the reference."""

import transformers as hf
from tests.families.case import Case
from tests.families.mutants import BIAS, LAYER_EPSILON, MASK, MASK_OFF_BY_ONE, SCALE, SLOPES, each, setting

from cutaway.parts import Embedding, FeedForward, activation

TINY = {"vocab_size": 99, "hidden_size": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.3}
SHARPEN = 3.0
TOLD_POSITIONS = False
CONFIGS = {"Bloom": (hf.BloomConfig, TINY)}
CASES = [
    Case("bloom", "as published", "BloomForCausalLM"),
    Case("bloom", "six heads", "BloomForCausalLM", {"hidden_size": 48, "n_head": 6}),
    Case(
        "bloom", "untied, loose epsilon", "BloomForCausalLM", {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-3}
    ),
    Case("bloom", "body alone", "BloomModel"),
    Case("bloom", "token classes", "BloomForTokenClassification", {"num_labels": 5}),
    Case("bloom", "sequence classes", "BloomForSequenceClassification", {"num_labels": 3, "pad_token_id": 95}),
]
MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "slopes": SLOPES,
    "no norm over the embeddings": each(Embedding, lambda embedding: embedding.steps.__delitem__(0)),
    "gelu without the approximation": each(FeedForward, setting("act", lambda _: activation("gelu"))),
}

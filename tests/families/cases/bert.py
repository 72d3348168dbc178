"""BERT against the reference."""

from typing import Any

import transformers as hf
from tests.families.case import Batch, Case
from tests.families.mutants import BIAS, LAYER_EPSILON, MASK, MASK_OFF_BY_ONE, POSITION, SCALE

TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "num_labels": 2,
}
SHARPEN = 4.0
CONFIGS = {"Bert": (hf.BertConfig, TINY)}
CASES = [
    Case("bert", "body alone", "BertModel"),
    Case("bert", "masked language", "BertForMaskedLM"),
    Case("bert", "masked language, untied", "BertForMaskedLM", {"tie_word_embeddings": False}),
    Case("bert", "token classes", "BertForTokenClassification", {"num_labels": 5}),
    Case("bert", "question answering", "BertForQuestionAnswering"),
    Case("bert", "relu, loose epsilon", "BertModel", {"hidden_act": "relu", "layer_norm_eps": 1e-5}),
]
MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "position off by one": POSITION,
}


def extra(batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sentences in every row: what ours is given besides, and what theirs."""
    segments = (batch.ids > 45).long()
    return {"segments": segments}, {"token_type_ids": segments}

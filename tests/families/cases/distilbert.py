"""DistilBERT against the reference."""

import transformers as hf
from tests.families.case import Case
from tests.families.mutants import BIAS, LAYER_EPSILON, MASK, MASK_OFF_BY_ONE, POSITION, SCALE, each, setting

from cutaway.parts import LayerNorm

TINY = {
    "vocab_size": 99,
    "dim": 32,
    "hidden_dim": 48,
    "n_layers": 3,
    "n_heads": 4,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "num_labels": 2,
}
SHARPEN = 3.9
CONFIGS = {"DistilBert": (hf.DistilBertConfig, TINY)}
CASES = [
    Case("distilbert", "body alone", "DistilBertModel"),
    Case("distilbert", "masked language", "DistilBertForMaskedLM"),
    Case("distilbert", "masked language, untied", "DistilBertForMaskedLM", {"tie_word_embeddings": False}),
    Case("distilbert", "sequence classes", "DistilBertForSequenceClassification", {"num_labels": 3}),
    Case("distilbert", "token classes", "DistilBertForTokenClassification", {"num_labels": 5}),
    Case("distilbert", "question answering", "DistilBertForQuestionAnswering"),
    Case("distilbert", "relu, waves", "DistilBertForMaskedLM", {"activation": "relu", "sinusoidal_pos_embds": True}),
]
MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "the other families' epsilon": each(LayerNorm, setting("eps", lambda eps: 1e-5)),
    "position off by one": POSITION,
}

"""RoBERTa, XLM-R and CamemBERT against the reference, which counts positions by the padding token's id itself."""

import transformers as hf
from tests.families.case import Case
from tests.families.mutants import BIAS, LAYER_EPSILON, MASK, MASK_OFF_BY_ONE, POSITION, SCALE, each, setting

from cutaway.parts import LearnedPositions, Segments

TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "num_labels": 2,
}
PADDED, TOLD_POSITIONS = True, False
SHARPEN = 4.0
CONFIGS = {
    "Roberta": (hf.RobertaConfig, TINY),
    "XLMRoberta": (hf.XLMRobertaConfig, TINY),
    "Camembert": (hf.CamembertConfig, TINY),
}
CASES = [
    Case("roberta", "body alone", "RobertaModel"),
    Case("roberta", "masked language", "RobertaForMaskedLM"),
    Case("roberta", "masked language, untied", "RobertaForMaskedLM", {"tie_word_embeddings": False}),
    Case("roberta", "sequence classes", "RobertaForSequenceClassification", {"num_labels": 3}),
    Case("roberta", "token classes", "RobertaForTokenClassification", {"num_labels": 5}),
    Case("roberta", "question answering", "RobertaForQuestionAnswering"),
    Case("roberta", "relu, padded by 2", "RobertaForMaskedLM", {"hidden_act": "relu", "pad_token_id": 2}),
    Case("roberta", "XLM-R", "XLMRobertaForMaskedLM"),
    Case("roberta", "CamemBERT", "CamembertForMaskedLM"),
]
MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "position off by one": POSITION,
    "positions counted as BERT's": each(LearnedPositions, setting("offset", lambda offset: 0)),
    "the one segment left out": each(Segments, lambda part: part.weight.data.zero_()),
}

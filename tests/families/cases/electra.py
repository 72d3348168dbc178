"""ELECTRA against the reference: generator, discriminator and what is made of them."""

from typing import Any

import torch
import transformers as hf
from tests.families.case import Batch, Case
from tests.families.mutants import BIAS, LAYER_EPSILON, MASK, MASK_OFF_BY_ONE, POSITION, SCALE, each

from cutaway.parts import Embedding

TINY = {
    "vocab_size": 99,
    "embedding_size": 20,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "num_labels": 2,
}
SHARPEN = 3.7
CONFIGS = {"Electra": (hf.ElectraConfig, TINY)}
CASES = [
    Case("electra", "discriminator", "ElectraForPreTraining"),
    Case("electra", "discriminator, relu", "ElectraForPreTraining", {"hidden_act": "relu"}),
    Case("electra", "generator", "ElectraForMaskedLM"),
    Case("electra", "generator, relu", "ElectraForMaskedLM", {"hidden_act": "relu"}),
    Case("electra", "generator, untied", "ElectraForMaskedLM", {"tie_word_embeddings": False}),
    Case("electra", "tables as wide as layers", "ElectraModel", {"embedding_size": 32}),
    Case("electra", "body alone", "ElectraModel"),
    Case("electra", "sequence classes", "ElectraForSequenceClassification", {"num_labels": 3, "hidden_act": "relu"}),
    Case("electra", "token classes", "ElectraForTokenClassification", {"num_labels": 5}),
    Case("electra", "question answering", "ElectraForQuestionAnswering"),
]


def _turn(part: Embedding) -> None:
    """The projection's columns in another order: what it is handed, mistaken."""
    assert part.project is not None
    part.project.weight.data = part.project.weight.data.roll(1, 1)


def _before_norm(part: Embedding) -> None:
    """The norm left out before the projection."""
    del part.steps[2]


MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "position off by one": POSITION,
    "projection of the embedding": each(Embedding, _turn),
    "norm of the embedding": each(Embedding, _before_norm),
}


def extra(batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sentences in every row: what ours is given besides, and what theirs."""
    segments = torch.where(batch.ids > 45, 1, 0)
    return {"segments": segments}, {"token_type_ids": segments}

"""ALBERT against the reference: shared layers, groups, and groups of several blocks."""

from typing import Any

import torch
import transformers as hf
from tests.families.case import Batch, Case
from tests.families.mutants import BIAS, LAYER_EPSILON, MASK, MASK_OFF_BY_ONE, POSITION, SCALE, each
from torch import nn

from cutaway.parts import Embedding, Stack

TINY = {
    "vocab_size": 99,
    "embedding_size": 20,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_hidden_groups": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "num_labels": 2,
}
SHARPEN = 4.4
CONFIGS = {"Albert": (hf.AlbertConfig, TINY)}
CASES = [
    Case("albert", "masked language, two groups", "AlbertForMaskedLM"),
    Case("albert", "body alone", "AlbertModel"),
    Case("albert", "all layers alike, version 1", "AlbertModel", {"num_hidden_groups": 1, "hidden_act": "gelu"}),
    Case("albert", "two blocks a layer", "AlbertForMaskedLM", {"inner_group_num": 2}),
    Case("albert", "uneven groups", "AlbertForMaskedLM", {"num_hidden_layers": 5, "num_hidden_groups": 3}),
    Case("albert", "nothing shared", "AlbertModel", {"num_hidden_groups": 4}),
    Case("albert", "masked language, untied", "AlbertForMaskedLM", {"tie_word_embeddings": False}),
    Case("albert", "sequence classes", "AlbertForSequenceClassification", {"num_labels": 3}),
    Case("albert", "token classes", "AlbertForTokenClassification", {"num_labels": 5}),
    Case("albert", "question answering", "AlbertForQuestionAnswering"),
    Case("albert", "pretrained with the order of sentences", "AlbertForPreTraining"),
]


def _regroup(stack: Stack) -> None:
    """Groups in turn, instead of one after the other."""
    a, b = stack.blocks[0], stack.blocks[-1]
    stack.blocks = nn.ModuleList([a, b, a, b])


def _turn(part: Embedding) -> None:
    """The projection's columns in another order: what it is handed, mistaken."""
    assert part.project is not None
    part.project.weight.data = part.project.weight.data.roll(1, 1)


MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "position off by one": POSITION,
    "groups in turn": each(Stack, _regroup),
    "one layer too few": each(Stack, lambda stack: stack.blocks.pop(1)),
    "projection of the embedding": each(Embedding, _turn),
}


def extra(batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sentences in every row: what ours is given besides, and what theirs."""
    segments = torch.where(batch.ids > 45, 1, 0)
    return {"segments": segments}, {"token_type_ids": segments}

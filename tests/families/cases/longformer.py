"""Longformer against the reference, with global tokens in every row, or where its heads put them."""

from typing import Any

import transformers as hf
from tests.families.case import Batch, Case
from tests.families.mutants import BIAS, LAYER_EPSILON, MASK, POSITION, SCALE, each

from cutaway.attention import Window
from cutaway.parts import Attention, LocalGlobalAttention

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
    "attention_window": [4, 8, 4],
}
PADDED, TOLD_POSITIONS = True, False
SHARPEN = 3.3
BACKENDS = ("eager", "sdpa", "sparse", "tiled")
CONFIGS = {"Longformer": (hf.LongformerConfig, TINY)}
CASES = [
    Case("longformer", "body alone", "LongformerModel"),
    Case("longformer", "masked language", "LongformerForMaskedLM"),
    Case("longformer", "masked language, untied", "LongformerForMaskedLM", {"tie_word_embeddings": False}),
    Case("longformer", "sequence classes", "LongformerForSequenceClassification", {"num_labels": 3}),
    Case("longformer", "token classes", "LongformerForTokenClassification", {"num_labels": 5}),
    Case("longformer", "question answering", "LongformerForQuestionAnswering"),
    Case("longformer", "one window, two segments", "LongformerModel", {"attention_window": 8, "type_vocab_size": 2}),
]


def _narrower(attention: LocalGlobalAttention) -> None:
    assert isinstance(attention.mask, Window)
    attention.mask = Window(attention.mask.size - 1)


def _local_projections(attention: LocalGlobalAttention) -> None:
    for name in ("q", "k", "v"):
        getattr(attention, f"{name}_global").load_state_dict(getattr(attention, name).state_dict())


MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "position off by one": POSITION,
    "window off by one": each(LocalGlobalAttention, _narrower),
    "nobody looks at global tokens": each(LocalGlobalAttention, lambda a: setattr(a, "pattern", lambda ctx: a.mask)),
    "global tokens look no further": each(
        LocalGlobalAttention, lambda a: setattr(a, "mix", lambda *x: Attention.mix(a, *x))
    ),
    "global projections are the local ones": each(LocalGlobalAttention, _local_projections),
}


def extra(batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Global tokens: two to four in each row, not at the same places."""
    marks = (batch.ids % 4 == 0) & batch.real
    return {"global_mask": marks}, {"global_attention_mask": marks.long()}

"""ModernBERT against the reference: a window of 4 to each side, so that local layers differ from global ones."""

import transformers as hf
from tests.families.case import Case
from tests.families.mutants import LAYER_EPSILON, MASK_OFF_BY_ONE, ROTARY_BASE, ROTARY_PAIRING, SCALE, each
from torch import nn

from cutaway.attention import Full, Window
from cutaway.parts import Attention, Gated, Model

TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "local_attention": 8,
    "num_labels": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
BIASES = dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), True)
SHARPEN = 3.6
CONFIGS = {"ModernBert": (hf.ModernBertConfig, TINY)}
CASES = [
    Case("modernbert", "body alone", "ModernBertModel"),
    Case("modernbert", "masked language", "ModernBertForMaskedLM"),
    Case("modernbert", "biases", "ModernBertForMaskedLM", BIASES),
    Case(
        "modernbert",
        "no bias at all, untied",
        "ModernBertForMaskedLM",
        {"decoder_bias": False, "tie_word_embeddings": False},
    ),
    Case(
        "modernbert",
        "odd window, every second global",
        "ModernBertModel",
        {"local_attention": 7, "layer_types": ["full_attention", "sliding_attention"] * 2},
    ),
    Case(
        "modernbert",
        "silu, relu head, other bases",
        "ModernBertForMaskedLM",
        {
            "hidden_activation": "silu",
            "classifier_activation": "relu",
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 100.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
    ),
    Case("modernbert", "sequence classes", "ModernBertForSequenceClassification", {"num_labels": 3}),
    Case(
        "modernbert",
        "sequence classes by the mean",
        "ModernBertForSequenceClassification",
        {"num_labels": 3, "classifier_pooling": "mean", **BIASES},
    ),
    Case("modernbert", "token classes", "ModernBertForTokenClassification", {"num_labels": 5}),
    Case("modernbert", "question answering", "ModernBertForQuestionAnswering"),
]


def _halves(part: Gated) -> None:
    """The activation on the other half."""
    part.gate, part.up = part.up, part.gate


def _bases(model: Model) -> None:
    """One rotary base for all layers."""
    steps = [block.attention.inner.q_steps[0] for block in model.stack.blocks]
    for step in steps:
        step.frequencies = steps[0].frequencies


def _first_norm(model: Model) -> None:
    """A norm before the first attention too."""
    first, second = (block.attention for block in model.stack.blocks[:2])
    assert isinstance(first.norm, nn.Identity)
    first.norm = second.norm


def _local(change) -> object:
    def mutate(part: Attention) -> None:
        if isinstance(part.mask, Window):
            part.mask = change(part.mask)

    return each(Attention, mutate)


MUTANTS = {
    "scale": SCALE,
    "mask off by one": MASK_OFF_BY_ONE,
    "local window wider by one": _local(lambda mask: Window(mask.size + 1)),
    "local window narrower by one": _local(lambda mask: Window(mask.size - 1)),
    "local_attention as the number to each side": _local(lambda mask: Window(2 * mask.size - 1)),
    "no local layers": _local(lambda mask: Full()),
    "rotary base": ROTARY_BASE,
    "rotary pairing": ROTARY_PAIRING,
    "one rotary base": each(Model, _bases),
    "halves of the gate": each(Gated, _halves),
    "norm before the first attention": each(Model, _first_norm),
    "layer norm epsilon": LAYER_EPSILON,
}

"""DeBERTa against the reference: distances beyond the table's span, each term alone, absolute positions besides."""

import transformers as hf
from tests.families.case import Case
from tests.families.mutants import BIAS, LAYER_EPSILON, MASK, MASK_OFF_BY_ONE, SCALE, each, setting

from cutaway.parts import Attention
from cutaway.parts.disentangled import Disentangled, RelativeTable

TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "relative_attention": True,
    "pos_att_type": "c2p|p2c",
    "position_biased_input": False,
    "max_relative_positions": 8,
    "num_labels": 2,
}
SHARPEN = 4.8
CONFIGS = {"Deberta": (hf.DebertaConfig, TINY)}
CASES = [
    Case("deberta", "body alone", "DebertaModel"),
    Case("deberta", "as far as the table reaches", "DebertaModel", {"max_relative_positions": -1}),
    Case("deberta", "content to position alone", "DebertaModel", {"pos_att_type": "c2p"}),
    Case("deberta", "position to content alone", "DebertaModel", {"pos_att_type": ["p2c"]}),
    Case("deberta", "masked language", "DebertaForMaskedLM"),
    Case("deberta", "masked language, untied", "DebertaForMaskedLM", {"tie_word_embeddings": False}),
    Case("deberta", "masked language, names of its own", "DebertaForMaskedLM", {"legacy": False}),
    Case(
        "deberta", "absolute positions, segments", "DebertaModel", {"position_biased_input": True, "type_vocab_size": 2}
    ),
    Case("deberta", "sequence classes", "DebertaForSequenceClassification", {"num_labels": 3}),
    Case("deberta", "token classes", "DebertaForTokenClassification", {"num_labels": 5}),
    Case("deberta", "question answering", "DebertaForQuestionAnswering"),
]


def _transposed(table: RelativeTable) -> None:
    """δ(j, i), as the paper writes it for one term, in both."""
    place = table.place
    table.place = lambda q_pos, k_pos: place(k_pos, q_pos).transpose(1, 2)


def _shifted(table: RelativeTable) -> None:
    place = table.place
    table.place = lambda q_pos, k_pos: (place(q_pos, k_pos) + 1).clamp(max=2 * table.span - 1)


def _without(term: str):
    return each(Disentangled, setting(term, lambda _: False))


MUTANTS = {
    "scale": SCALE,
    "scale without the terms": each(Attention, setting("scale", lambda scale: scale * 3**0.5)),
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "no content to position": _without("c2p"),
    "no position to content": _without("p2c"),
    "distances the other way round": each(RelativeTable, _transposed),
    "distances off by one": each(RelativeTable, _shifted),
    "span": each(RelativeTable, setting("span", lambda span: span - 1)),
}

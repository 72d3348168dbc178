"""DeBERTa v2 and v3 against the reference: few buckets, so that far distances share; the convolution; own projections."""

import transformers as hf
from tests.families.case import Case
from tests.families.cases.deberta import MUTANTS as FIRST
from tests.families.mutants import each, setting

from cutaway.parts import Model
from cutaway.parts.disentangled import RelativeTable
from cutaway.parts.ngrams import Beside, NGrams

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
    "position_buckets": 6,
    "max_relative_positions": 12,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "num_labels": 2,
}
OWN = {"share_att_key": False, "norm_rel_ebd": "none"}
SHARPEN = 4.2
CONFIGS = {"DebertaV2": (hf.DebertaV2Config, TINY)}
CASES = [
    Case("deberta_v2", "convolution (v2)", "DebertaV2Model", {"conv_kernel_size": 3, "conv_act": "gelu"}),
    Case("deberta_v2", "no convolution (v3)", "DebertaV2Model"),
    Case("deberta_v2", "wide convolution in groups", "DebertaV2Model", {"conv_kernel_size": 5, "conv_groups": 4}),
    Case("deberta_v2", "projections of its own", "DebertaV2Model", OWN),
    Case("deberta_v2", "a bucket for each distance", "DebertaV2Model", {**OWN, "position_buckets": -1}),
    Case("deberta_v2", "content to position alone", "DebertaV2Model", {"pos_att_type": "c2p"}),
    Case("deberta_v2", "position to content alone", "DebertaV2Model", {**OWN, "pos_att_type": "p2c"}),
    Case("deberta_v2", "masked language", "DebertaV2ForMaskedLM"),
    Case("deberta_v2", "masked language, untied", "DebertaV2ForMaskedLM", {"tie_word_embeddings": False}),
    Case("deberta_v2", "masked language, names of its own", "DebertaV2ForMaskedLM", {"legacy": False}),
    Case(
        "deberta_v2",
        "absolute positions, segments",
        "DebertaV2Model",
        {"position_biased_input": True, "type_vocab_size": 2},
    ),
    Case("deberta_v2", "sequence classes", "DebertaV2ForSequenceClassification", {"num_labels": 3}),
    Case("deberta_v2", "token classes", "DebertaV2ForTokenClassification", {"num_labels": 5}),
    Case("deberta_v2", "question answering", "DebertaV2ForQuestionAnswering"),
]


def _later(model: Model) -> None:
    """The convolution reads what the first block gives, not what it is given."""
    block = model.stack.blocks[0]
    assert isinstance(block, Beside)
    block.forward = lambda x, ctx: block.beside(_plain(block, x, ctx), ctx)


def _plain(block: Beside, x, ctx):
    for name in block.names:
        x = block.get_submodule(name)(x, ctx.enter(name))
    return x


MUTANTS = {
    **FIRST,
    "bucket edge": each(RelativeTable, setting("max_distance", lambda distance: distance - 1)),
    "exact buckets only": each(RelativeTable, setting("max_distance", lambda _: None)),
    "table not normed": each(RelativeTable, setting("norm", lambda _: None)),
    "neighbours the other way round": each(
        NGrams, lambda part: part.conv.weight.data.copy_(part.conv.weight.data.flip(2))
    ),
    "convolution of the block's output": each(Model, _later),
}

"""Reformer against the reference on the same hashes, in float64 and a row at a time.

In float32 the reference's own sums lose 0.2% where a token sees nothing but itself (its logit is -100,000). Its first
chunk looks back to the last of the padded batch, so that rows depend on each other; ours do not, hence a row at a time.
"""

from typing import Any

import torch
import transformers as hf
from tests.families.case import Batch, Case
from tests.families.mutants import LAYER_EPSILON, each, setting
from torch import Tensor, nn

from cutaway.attention import Causal, Full
from cutaway.attention.chunks import Chunks
from cutaway.parts import Attention, AxialPositions, LanguageHead, LSHAttention

TINY: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "feed_forward_size": 48,
    "num_attention_heads": 4,
    "attention_head_size": 8,
    "attn_layers": ["local", "lsh", "local", "lsh"],
    "axial_pos_shape": [8, 8],
    "axial_pos_embds_dim": [8, 24],
    "max_position_embeddings": 64,
    "local_attn_chunk_length": 4,
    "lsh_attn_chunk_length": 4,
    "num_buckets": 4,
    "num_hashes": 2,
    "hash_seed": 3,
    "is_decoder": True,
    "initializer_range": 0.3,
}
SHARPEN = 2.5
BY_STATES = False  # the reference's are as long as its padded text: tests/families/test_reformer.py
CONFIGS = {"Reformer": (hf.ReformerConfig, TINY)}
LEARNED = {"axial_pos_embds": False}
BOTH_WAYS = {"is_decoder": False, "lsh_num_chunks_after": 1}
CASES = [
    Case("reformer", "local and LSH", "ReformerModelWithLMHead"),
    Case("reformer", "one round", "ReformerModelWithLMHead", {"num_hashes": 1}),
    Case("reformer", "factored buckets", "ReformerModelWithLMHead", {"num_buckets": [2, 4], "num_hashes": 4}),
    Case("reformer", "LSH alone", "ReformerModelWithLMHead", {"attn_layers": ["lsh"] * 3, "lsh_num_chunks_before": 2}),
    Case("reformer", "local alone", "ReformerModelWithLMHead", {"attn_layers": ["local"] * 2}),
    Case("reformer", "chunks of two sizes", "ReformerModelWithLMHead", {"lsh_attn_chunk_length": 8}),
    Case("reformer", "learned positions", "ReformerModelWithLMHead", LEARNED),
    Case("reformer", "chunked feed-forward", "ReformerModelWithLMHead", {"chunk_size_feed_forward": 1}),
    Case("reformer", "encoder", "ReformerForMaskedLM", {"is_decoder": False}),
    Case("reformer", "encoder that looks ahead", "ReformerForMaskedLM", BOTH_WAYS),
    # of a text of two chunks the reference sees the other one twice, before and after
    Case("reformer", "ring", "ReformerForMaskedLM", {"is_decoder": False, "local_num_chunks_after": 1}, padded=False),
    Case("reformer", "question answering", "ReformerForQuestionAnswering", {"is_decoder": False, "num_labels": 2}),
    Case("reformer", "sequence classes", "ReformerForSequenceClassification", {"is_decoder": False, "num_labels": 3}),
    Case("reformer", "body alone", "ReformerModel"),
]


def reference(case: Case) -> nn.Module:
    from tests.families.oracles import sharpen

    theirs = getattr(hf, case.model)(hf.ReformerConfig(**{**TINY, **case.config})).eval().double()
    sharpen(theirs, SHARPEN, calm=1.0)  # in float64 no rounding is to be feared
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if name.endswith("query_key.weight"):
                p.mul_(SHARPEN**2)
    if hasattr(theirs, "lm_head"):  # in transformers 5 the trained bias of the head is loaded and not used
        theirs.lm_head.decoder.bias = theirs.lm_head.bias
    return theirs


def outputs(case: Case, ours: nn.Module, theirs: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    found, expected = [], []
    whole = ours(batch.ids, batch.padding)
    for i, real in enumerate(batch.real):
        answer = theirs(input_ids=batch.ids[i : i + 1, real])
        answer = torch.stack([answer[0], answer[1]], -1) if "start_logits" in answer else answer[0]
        expected.append(answer[0])
        found.append(whole[i] if answer.ndim == 2 else whole[i, real])
    return torch.cat(found), torch.cat(expected)


def _swapped(axial: AxialPositions) -> None:
    with torch.no_grad():
        axial.columns.copy_(axial.columns.roll(1, 1))


def _unbiased(head: LanguageHead) -> None:
    assert head.bias is not None
    nn.init.zeros_(head.bias)


def _wider(attention: Attention) -> None:
    attention.mask = Causal() & Chunks(5)


MUTANTS = {
    "hash seed": each(LSHAttention, setting("seed", lambda seed: seed + 1)),
    "one round fewer": each(LSHAttention, setting("rounds", lambda rounds: rounds - 1)),
    "no look back": each(LSHAttention, setting("before", lambda before: before - 1)),
    "LSH chunk": each(LSHAttention, setting("chunk", lambda chunk: chunk + 1)),
    "the future": each(LSHAttention, setting("causal", lambda causal: not causal)),
    "local chunk": each(Attention, _wider),
    "local mask": each(Attention, setting("mask", lambda mask: Full())),
    "axial positions": each(AxialPositions, _swapped),
    "bias of the head": each(LanguageHead, _unbiased),
    "layer norm epsilon": LAYER_EPSILON,
}

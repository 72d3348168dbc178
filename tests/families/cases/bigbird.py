"""BigBird against the reference, in its full and in its block-sparse form."""

from collections.abc import Callable
from typing import Any

import numpy as np
import transformers as hf
from tests.families.case import Batch, Case
from tests.families.mutants import BIAS, LAYER_EPSILON, POSITION, SCALE, Mutant, each, setting

from cutaway.parts import BlockSparseAttention

TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "num_labels": 2,
    "block_size": 1,
    "num_random_blocks": 2,
    "sep_token_id": 97,  # in no text: the reference scores no token of a question
}
SHARPEN = 3.8
BACKENDS = ("eager", "sdpa", "sparse", "tiled")
CONFIGS = {"BigBird": (hf.BigBirdConfig, TINY)}
FULL = {"attention_type": "original_full"}
CASES = [
    # the reference goes by the longest row of a batch, so padding changes what it computes
    Case("bigbird", "sparse body alone", "BigBirdModel", padded=False),
    Case("bigbird", "full body alone", "BigBirdModel", FULL),
    Case("bigbird", "too short to be sparse", "BigBirdModel", {"block_size": 2}),
    Case("bigbird", "masked language", "BigBirdForMaskedLM", padded=False),
    Case("bigbird", "masked language, untied", "BigBirdForMaskedLM", {**FULL, "tie_word_embeddings": False}),
    Case("bigbird", "sequence classes", "BigBirdForSequenceClassification", {"num_labels": 3}, padded=False),
    Case("bigbird", "token classes", "BigBirdForTokenClassification", {"num_labels": 5}, padded=False),
    Case("bigbird", "question answering", "BigBirdForQuestionAnswering", padded=False),
    Case(
        "bigbird",
        "scaled, no biases, relu",
        "BigBirdModel",
        {"rescale_embeddings": True, "use_bias": False, "hidden_act": "relu"},
        False,
    ),
]


def _changed(change: Callable) -> Mutant:
    """Another layout of blocks: `change(counts (H, N, N))` in place."""

    def mutate(attention: BlockSparseAttention) -> None:
        def layout(tokens: int, total: int) -> np.ndarray:
            counts = BlockSparseAttention.layout(attention, tokens, total)
            change(counts)
            return counts

        attention.layout = layout

    return each(BlockSparseAttention, mutate)


def _no_last(counts: np.ndarray) -> None:
    counts[:, 2:-2, -1] = 0


def _no_neighbour(counts: np.ndarray) -> None:
    i = np.arange(2, counts.shape[1] - 2)
    counts[:, i, i + 1] = 0


MUTANTS = {
    "scale": SCALE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "position off by one": POSITION,
    "the first block counts once": _changed(lambda counts: counts.clip(max=1, out=counts)),
    "the last block is not global": _changed(_no_last),
    "no block to the right": _changed(_no_neighbour),
    "the first query block is as others": _changed(lambda counts: counts[:, 0, 4:-1].fill(0)),
    "full attention": each(BlockSparseAttention, setting("block", lambda size: 2)),
}


def extra(batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sentences in every row."""
    segments = (batch.ids > 45).long()
    return {"segments": segments}, {"token_type_ids": segments}

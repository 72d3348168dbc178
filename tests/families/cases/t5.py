"""T5, T5 1.1 and mT5 against the reference."""

import transformers as hf
from tests.families.case import Case
from tests.families.mutants import BUCKET_EDGE, DIRECTION, MASK, MASK_OFF_BY_ONE, RMS_EPSILON, SCALE

TINY = {
    "vocab_size": 99,
    "d_model": 32,
    "d_ff": 48,
    "d_kv": 8,
    "num_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}
SHARPEN = 5.4
CONFIGS = {"T5": (hf.T5Config, TINY), "MT5": (hf.MT5Config, TINY)}
CASES = [
    Case("t5", "1.0", "T5ForConditionalGeneration"),
    Case(
        "t5",
        "1.1 and Flan",
        "T5ForConditionalGeneration",
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 2},
    ),
    Case("t5", "mT5", "MT5ForConditionalGeneration"),
    Case("t5", "few buckets", "T5ForConditionalGeneration", {"relative_attention_num_buckets": 8}),
]
MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "rms norm epsilon": RMS_EPSILON,
    "bucket edge": BUCKET_EDGE,
    "direction": DIRECTION,
}

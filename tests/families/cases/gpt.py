"""GPT against the reference."""

import torch
import transformers as hf
from tests.families.case import Case
from tests.families.mutants import BIAS, LAYER_EPSILON, MASK, MASK_OFF_BY_ONE, POSITION, SCALE, each, setting
from torch import nn

from cutaway.parts import FeedForward, PostNorm, PreNorm, activation

TINY = {"vocab_size": 99, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
SHARPEN = 3.9
CASES = [
    Case("gpt", "as published", "OpenAIGPTLMHeadModel"),
    Case("gpt", "untied", "OpenAIGPTLMHeadModel", {"tie_word_embeddings": False}),
    Case("gpt", "relu, loose epsilon", "OpenAIGPTLMHeadModel", {"afn": "relu", "layer_norm_epsilon": 1e-3}),
    Case("gpt", "swish", "OpenAIGPTLMHeadModel", {"afn": "swish"}),
    Case("gpt", "body alone", "OpenAIGPTModel"),
    Case("gpt", "sequence classes", "OpenAIGPTForSequenceClassification", {"num_labels": 3, "pad_token_id": 95}),
]


def reference(case: Case) -> nn.Module:
    """The reference begins with numbers of 0.02, whatever its configuration asks for; from those no slip would show."""
    from tests.families.oracles import sharpen

    model = getattr(hf, case.model)(hf.OpenAIGPTConfig(**TINY, **case.config)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(15 if p.ndim == 2 else 1)
    sharpen(model, SHARPEN)
    return model


MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "position off by one": POSITION,
    "gelu without the approximation": each(FeedForward, setting("act", lambda _: activation("gelu"))),
    "norms before": each(PostNorm, setting("__class__", lambda _: PreNorm)),
}

"""The reference models each family is held against: tiny, random, with attention that is nearly decided.

`CASES` is data for the parity tests, the mutants and the table in the README.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from cutaway import families
from cutaway.attention import recording
from cutaway.layout import expand

hf.logging.set_verbosity_error()
TINY_LLAMA = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TINY_GPT2 = {
    "vocab_size": 99,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TINY_BERT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "num_labels": 2,
}
TINY_T5 = {
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
# queries and keys times this, per family, until attention is nearly decided (see `test_attention_is_peaked`)
SHARPEN = {"llama": 1.6, "gpt2": 1.6, "bert": 1.8, "t5": 2.5}


@dataclass(frozen=True)
class Case:
    family: str
    variant: str
    model: str  # the reference's class
    config: dict[str, Any] = field(default_factory=dict)
    padded: bool = True  # False: the reference lets the longest row decide for the others

    @property
    def name(self) -> str:
        return f"{self.family}-{self.variant.replace(' ', '-')}"


def _rope(kind: str, **numbers: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 100.0, "rope_type": kind, **numbers}}


CASES = [
    Case("llama", "grouped keys", "LlamaForCausalLM"),
    Case("llama", "one key head", "LlamaForCausalLM", {"num_key_value_heads": 1}),
    Case("llama", "multi-head", "LlamaForCausalLM", {"num_key_value_heads": 4}),
    Case("llama", "biases", "LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    Case("llama", "tied", "LlamaForCausalLM", {"tie_word_embeddings": True}),
    Case("llama", "wide heads", "LlamaForCausalLM", {"head_dim": 14}),
    Case("llama", "gelu gate", "LlamaForCausalLM", {"hidden_act": "gelu"}),
    Case("llama", "rotary linear", "LlamaForCausalLM", _rope("linear", factor=2.0)),
    Case(
        "llama",
        "rotary dynamic",
        "LlamaForCausalLM",
        {**_rope("dynamic", factor=2.0), "max_position_embeddings": 8},
        False,
    ),
    Case("llama", "rotary yarn", "LlamaForCausalLM", _rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    Case(
        "llama",
        "rotary llama3",
        "LlamaForCausalLM",
        _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
    ),
    Case("llama", "window (Mistral)", "MistralForCausalLM", {"sliding_window": 4}),
    Case("llama", "no window (Mistral)", "MistralForCausalLM", {"sliding_window": None}),
    Case("llama", "token classes", "LlamaForTokenClassification"),
    Case("gpt2", "as published", "GPT2LMHeadModel"),
    Case("gpt2", "scale by layer", "GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}),
    Case("gpt2", "unscaled", "GPT2LMHeadModel", {"scale_attn_weights": False}),
    Case("gpt2", "untied", "GPT2LMHeadModel", {"tie_word_embeddings": False}),
    Case("gpt2", "relu, narrow", "GPT2LMHeadModel", {"activation_function": "relu", "n_inner": 20}),
    Case("gpt2", "body alone", "GPT2Model"),
    Case("gpt2", "token classes", "GPT2ForTokenClassification"),
    Case("bert", "body alone", "BertModel"),
    Case("bert", "masked language", "BertForMaskedLM"),
    Case("bert", "masked language, untied", "BertForMaskedLM", {"tie_word_embeddings": False}),
    Case("bert", "token classes", "BertForTokenClassification", {"num_labels": 5}),
    Case("bert", "question answering", "BertForQuestionAnswering"),
    Case("bert", "relu, loose epsilon", "BertModel", {"hidden_act": "relu", "layer_norm_eps": 1e-5}),
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
CONFIGS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Llama": (hf.LlamaConfig, TINY_LLAMA),
    "Mistral": (hf.MistralConfig, TINY_LLAMA),
    "GPT2": (hf.GPT2Config, TINY_GPT2),
    "Bert": (hf.BertConfig, TINY_BERT),
    "T5": (hf.T5Config, TINY_T5),
    "MT5": (hf.MT5Config, TINY_T5),
}


def reference(case: Case) -> nn.Module:
    """The reference's model with nothing left at a value that hides mistakes: norms, biases random, attention sharp."""
    make, tiny = CONFIGS[case.model.split("For")[0].split("Model")[0].removesuffix("LMHead")]
    model = getattr(hf, case.model)(make(**{**tiny, **case.config})).eval()
    queries = ("q_proj", "query", "SelfAttention.q", "EncDecAttention.q")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.1)
            elif any(f"{q}.weight" in name for q in queries):
                p.mul_(SHARPEN[case.family] ** 2)
            elif "c_attn.weight" in name:
                p[:, : p.shape[1] // 3].mul_(SHARPEN[case.family] ** 2)
            elif "relative_attention_bias" in name:
                p.normal_()
    return model


def counterpart(theirs: nn.Module) -> nn.Module:
    """Our model of the reference's configuration, with the reference's weights."""
    config = json.loads(theirs.config.to_json_string(use_diff=False))
    config["architectures"] = [type(theirs).__name__]
    family = families.get(families.by_model_type(config["model_type"]))
    sizes = family.read(config)
    ours = family.compose(sizes).eval()
    parameters, tensors = dict(ours.named_parameters()), theirs.state_dict()
    with torch.no_grad():
        for entry in expand(family.weights(sizes), list(parameters), list(tensors)):
            for name, tensor in zip(entry.ours, entry.op.read(tensors[entry.theirs]), strict=True):
                assert parameters[name].shape == tensor.shape
                parameters[name].copy_(tensor)
    return ours


@dataclass(frozen=True)
class Batch:
    """One way to call both: ids, where they are padded, and what else the reference must be told."""

    name: str
    ids: Tensor
    padding: Tensor | None

    @property
    def real(self) -> Tensor:
        return torch.ones_like(self.ids, dtype=torch.bool) if self.padding is None else self.padding


def batches() -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 90, (2, 13), generator=generator)
    left, right = torch.ones_like(ids, dtype=torch.bool), torch.ones_like(ids, dtype=torch.bool)
    left[1, :5], right[1, 8:] = False, False
    yield Batch("no padding", ids, None)
    yield Batch("left padding", ids, left)
    yield Batch("right padding", ids, right)
    yield Batch("one token", ids[:, :1], None)


@torch.no_grad()
def outputs(case: Case, ours: nn.Module, theirs: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Both models' numbers on the real tokens."""
    padding = {} if batch.padding is None else {"attention_mask": batch.padding.long()}
    if case.family == "t5":
        target = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(2))
        expected = theirs(input_ids=batch.ids, decoder_input_ids=target, **padding).logits
        return ours(batch.ids, target, batch.padding), expected
    # the reference counts positions over padding unless told; ours never does
    if batch.padding is not None:
        padding["position_ids"] = (batch.padding.cumsum(1) - 1).clamp(min=0)
    extra = {}
    if case.family == "bert":
        extra["segments"] = padding["token_type_ids"] = (batch.ids > 45).long()
    found = theirs(input_ids=batch.ids, **padding)
    expected = torch.stack([found[0], found[1]], -1) if "start_logits" in found else found[0]
    return ours(batch.ids, batch.padding, **extra)[batch.real], expected[batch.real]


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def worst_error(case: Case) -> float:
    """Over all batches, from a fixed seed: what the table in the README shows."""
    torch.manual_seed(0)
    theirs = reference(case)
    ours = counterpart(theirs)
    return max(
        error(*outputs(case, ours, theirs, batch)) for batch in batches() if case.padded or batch.padding is None
    )


def peak(case: Case, ours: nn.Module) -> float:
    """The mean over rows of the largest weight of attention, where more than one key may be looked at."""
    with recording() as trace, torch.no_grad():
        ids = next(batches()).ids
        ours(ids, ids) if case.family == "t5" else ours(ids)
    rows = [record.weights()[:, :, 1:].amax(-1).flatten() for record in trace]
    return torch.cat(rows).mean().item()

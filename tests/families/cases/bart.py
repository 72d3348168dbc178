"""BART, mBART, Marian and Pegasus against the reference."""

import json

import torch
import transformers as hf
from tests.families.case import Batch, Case, target_ids
from tests.families.mutants import (
    BIAS,
    CROSS_MASK,
    EMBEDDING_SCALE,
    LAYER_EPSILON,
    LOGITS_BIAS,
    MASK,
    MASK_OFF_BY_ONE,
    NORM_ORDER,
    POSITION,
    SCALE,
)
from torch import Tensor, nn

from cutaway.families import bart
from cutaway.layout import expand

TINY = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
    "init_std": 0.3,
}
SHARPEN = 3.3
CONFIGS = {
    "Bart": (hf.BartConfig, TINY),
    "MBart": (hf.MBartConfig, {**TINY, "scale_embedding": True}),
    "Marian": (hf.MarianConfig, {**TINY, "scale_embedding": True, "activation_function": "swish"}),
    "Pegasus": (hf.PegasusConfig, {**TINY, "scale_embedding": True, "activation_function": "relu"}),
}
CASES = [
    Case("bart", "BART", "BartForConditionalGeneration", {"scale_embedding": True}),
    Case("bart", "BART, as published", "BartForConditionalGeneration"),
    Case("bart", "mBART", "MBartForConditionalGeneration"),
    Case("bart", "Marian", "MarianMTModel"),
    Case("bart", "Pegasus", "PegasusForConditionalGeneration"),
    Case(
        "bart",
        "gelu_new, other heads",
        "MarianMTModel",
        {"activation_function": "gelu_new", "decoder_attention_heads": 2},
    ),
    Case("bart", "body alone", "BartModel"),
    Case("bart", "body alone, before", "PegasusModel"),
    Case("bart", "sequence classes", "BartForSequenceClassification", {"num_labels": 5}),
    Case("bart", "sequence classes, before", "MBartForSequenceClassification"),
    Case("bart", "question answering", "BartForQuestionAnswering"),
]
MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "mask off by one": MASK_OFF_BY_ONE,
    "bias": BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "position off by one": POSITION,
    "embedding scale": EMBEDDING_SCALE,
    "norms before": NORM_ORDER,
    "bias of the logits": LOGITS_BIAS,
    "cross mask": CROSS_MASK,
}


def counterpart(theirs: nn.Module) -> nn.Module:
    """As of a checkpoint: its names tell of a bias of the logits, and of a table of positions."""
    config = json.loads(theirs.config.to_json_string(use_diff=False))
    config["architectures"] = [type(theirs).__name__]
    left = theirs._keys_to_ignore_on_save or ()
    tensors = {name: tensor for name, tensor in theirs.state_dict().items() if name not in left}
    sizes = bart.read(config, tensors)
    ours = bart.compose(sizes).eval()
    parameters = dict(ours.named_parameters())
    with torch.no_grad():
        for entry in expand(bart.weights(sizes), list(parameters), list(tensors)):
            for name, tensor in zip(entry.ours, entry.op.read(tensors[entry.theirs]), strict=True):
                parameters[name].copy_(tensor)
    return ours


def outputs(case: Case, ours: nn.Module, theirs: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The reference counts columns, so it is given every row from the left; ours as the batch has it."""
    ids = batch.ids.clone()
    classifies = not case.model.endswith(("Generation", "Model"))
    if classifies:  # the reference reads the class where a text ends
        last = torch.where(batch.real, torch.arange(ids.shape[1]), -1).argmax(1)
        ids[torch.arange(len(ids)), last] = theirs.config.eos_token_id
    source, mask = compact(ids, batch.real, theirs.config.pad_token_id)
    given = {"input_ids": source, "attention_mask": mask.long()}
    if classifies:
        found = theirs(**given)
        if "start_logits" in found:
            expected = torch.stack([found.start_logits, found.end_logits], -1)[mask]
            return ours(ids, None, batch.padding)[batch.real], expected
        return ours(ids, None, batch.padding), found.logits
    target = target_ids()
    real = torch.ones_like(target, dtype=torch.bool)
    real[1] = torch.arange(9) >= 4 if batch.name == "left padding" else torch.arange(9) < 6
    said, shown = compact(target, real, theirs.config.pad_token_id)
    expected = theirs(**given, decoder_input_ids=said)[0][shown]
    return ours(ids, target, batch.padding, real)[real], expected


def compact(ids: Tensor, real: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Each row's real tokens first."""
    order = (~real).long().argsort(dim=1, stable=True)
    return ids.masked_fill(~real, pad).gather(1, order), real.gather(1, order)

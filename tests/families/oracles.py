"""The reference models each family is held against: tiny, random, with attention that is nearly decided.

Gathers `tests/families/cases/`, for the parity tests, the mutants and the table in the README.
"""

import json
import pkgutil
from importlib import import_module
from typing import Any

import tests.families.cases
import torch
import transformers as hf
from tests.families.case import Batch, Case, batches, target_ids
from torch import Tensor, nn

from cutaway import families
from cutaway.attention import recording
from cutaway.layout import expand
from cutaway.parts import EncoderDecoder

__all__ = ["CASES", "FAMILIES", "Batch", "Case", "batches", "counterpart", "error", "outputs", "peak", "reference"]

hf.logging.set_verbosity_error()
FAMILIES: dict[str, Any] = {
    name: import_module(f"tests.families.cases.{name}")
    for _, name, _ in pkgutil.iter_modules(tests.families.cases.__path__)
}
CASES: list[Case] = [case for module in FAMILIES.values() for case in module.CASES]
CALM = 0.4
QUERIES = ("q_proj", "query", "SelfAttention.q", "EncDecAttention.q", "q_lin", "query_proj")


def reference(case: Case, lively: bool = False) -> nn.Module:
    """The reference's model with nothing left at a value that hides mistakes: norms, biases random, attention sharp.

    `lively` ones have layers loud enough to say one token after another, not the same for ever.
    """
    module = FAMILIES[case.family]
    if hasattr(module, "reference"):
        return module.reference(case)
    begins = max((name for name in module.CONFIGS if case.model.startswith(name)), key=len)
    make, tiny = module.CONFIGS[begins]
    model = getattr(hf, case.model)(make(**{**tiny, **case.config})).eval()
    if lively:
        sharpen(model, 1.6, 1.0)
    else:
        sharpen(model, module.SHARPEN, getattr(module, "CALM", CALM))
    return model


@torch.no_grad()
def sharpen(model: nn.Module, by: float, calm: float = CALM) -> None:
    """Queries `by`² times as large, so that attention is nearly decided; all that layers multiply with, `calm` times.

    Random layers add more than they are given, so that each makes the rounding of those before it several times larger;
    calm ones add less. Then 1e-5 is ten roundings away, on any machine, and no slip is any smaller.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for name, p in model.named_parameters():
        if p.ndim > 1 and id(p) not in tables and "embed" not in name:
            p.mul_(calm)
        if p.ndim == 1:
            p.add_(torch.randn_like(p) * 0.1)
            p.mul_(calm * by**2 if "q_norm" in name else 1)  # whatever goes into such a norm comes out as long
        elif any(f"{q}.weight" in name for q in QUERIES):
            p.mul_(by**2)
        elif any(f"{each}.weight" in name for each in ("query_key_value", "self.in_proj")):
            p.unflatten(0, (model.config.num_attention_heads, 3, -1))[:, 0].mul_(by**2)
        elif "c_attn.weight" in name:
            p[:, : p.shape[1] // 3].mul_(by**2)
        elif "Wqkv.weight" in name:
            p[: p.shape[0] // 3].mul_(by**2)
        elif "relative_attention_bias" in name:
            p.normal_()
    for name, buffer in model.named_buffers():
        if name == "final_logits_bias":
            buffer.normal_(std=0.1)


def counterpart(theirs: nn.Module) -> nn.Module:
    """Our model of the reference's configuration, with the reference's weights."""
    config = json.loads(theirs.config.to_json_string(use_diff=False))
    config["architectures"] = [type(theirs).__name__]
    family = families.get(families.by_model_type(config["model_type"]))
    sizes = family.read(config)
    ours = family.compose(sizes).eval().to(next(theirs.parameters()).dtype)
    parameters, tensors = dict(ours.named_parameters()), theirs.state_dict()
    with torch.no_grad():
        for entry in expand(family.weights(sizes), list(parameters), list(tensors)):
            for name, tensor in zip(entry.ours, entry.op.read(tensors[entry.theirs]), strict=True):
                assert parameters[name].shape == tensor.shape
                parameters[name].copy_(tensor)
    return ours


@torch.no_grad()
def outputs(case: Case, ours: nn.Module, theirs: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Both models' numbers on the real tokens."""
    module = FAMILIES[case.family]
    if hasattr(module, "outputs"):
        return module.outputs(case, ours, theirs, batch)
    padding = {} if batch.padding is None else {"attention_mask": batch.padding.long()}
    if isinstance(ours, EncoderDecoder):
        target = target_ids()
        expected = theirs(input_ids=batch.ids, decoder_input_ids=target, **padding).logits
        return ours(batch.ids, target, batch.padding), expected
    if case.model.endswith("ForSequenceClassification") and not ours.causal:
        # the reference reads a text's class off the first column: there it must begin
        order = (~batch.real).long().argsort(dim=1, stable=True)
        ids, real = batch.ids.gather(1, order), batch.real.gather(1, order)
        ids = ids.masked_fill(~real, theirs.config.pad_token_id)
        return ours(batch.ids, batch.padding), theirs(input_ids=ids, attention_mask=real.long()).logits
    # the reference counts positions over padding unless told; ours never does
    if batch.padding is not None and getattr(module, "TOLD_POSITIONS", True):
        padding["position_ids"] = (batch.padding.cumsum(1) - 1).clamp(min=0)
    if case.model.endswith("ForSequenceClassification"):  # the reference finds the last token by the ids
        ids = batch.ids.masked_fill(~batch.real, theirs.config.pad_token_id)
        return ours(batch.ids, batch.padding), theirs(input_ids=ids, **padding).logits
    mine, more = module.extra(batch) if hasattr(module, "extra") else ({}, {})
    # some references count positions by the ids
    ids = batch.ids.masked_fill(~batch.real, theirs.config.pad_token_id) if hasattr(module, "PADDED") else batch.ids
    found = theirs(input_ids=ids, **padding, **more)
    expected = torch.stack([found[0], found[1]], -1) if "start_logits" in found else found[0]
    return ours(batch.ids, batch.padding, **mine)[batch.real], expected[batch.real]


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def mutated(family: str, mutant: str) -> Case:
    """The variant that this mutant changes."""
    module = FAMILIES[family]
    variant = getattr(module, "MUTATED", {}).get(mutant, module.CASES[0].variant)
    return next(case for case in module.CASES if case.variant == variant)


def worst_error(case: Case) -> float:
    """Over all batches, from a fixed seed: what the table in the README shows."""
    torch.manual_seed(0)
    theirs = reference(case)
    ours = counterpart_of(case, theirs)
    return max(
        error(*outputs(case, ours, theirs, batch)) for batch in batches() if case.padded or batch.padding is None
    )


def counterpart_of(case: Case, theirs: nn.Module) -> nn.Module:
    """As `counterpart`, or as the family's file says."""
    return getattr(FAMILIES[case.family], "counterpart", counterpart)(theirs)


def peak(case: Case, ours: nn.Module) -> float:
    """The mean over rows of the largest weight of attention, where more than one key may be looked at."""
    with recording() as trace, torch.no_grad():
        ids = next(batches()).ids
        ours(ids, ids) if isinstance(ours, EncoderDecoder) else ours(ids)
    rows = [record.weights()[:, :, 1:].amax(-1).flatten() for record in trace]
    return torch.cat(rows).mean().item()

"""Every family gives the reference's numbers, over its variants and with padding anywhere; every mutant is caught."""

from collections.abc import Callable

import pytest
import torch
from tests.families.oracles import CASES, SHARPEN, batches, counterpart, error, outputs, peak, reference, worst_error
from torch import nn

from cutaway.attention import Causal, Full, Window, backend
from cutaway.parts import Attention, LayerNorm, Model, RMSNorm, Rotary, T5Bias

BOUND = 1e-5
FIRST = {family: next(c for c in CASES if c.family == family) for family in SHARPEN}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parity(case):
    assert worst_error(case) <= BOUND


@pytest.mark.parametrize("family", FIRST)
def test_attention_is_peaked(family):
    """Else a wrong scale or mask would hardly show."""
    assert peak(FIRST[family], counterpart(reference(FIRST[family]))) > 0.7


@pytest.mark.parametrize("name", ["eager", "sdpa", "tiled"])
@pytest.mark.parametrize("family", FIRST)
def test_every_backend_has_parity(family, name):
    theirs = reference(FIRST[family])
    ours = counterpart(theirs)
    with backend(name):
        for batch in batches():
            assert error(*outputs(FIRST[family], ours, theirs, batch)) <= BOUND


def each(kind: type, change: Callable) -> Callable[[nn.Module], None]:
    def mutate(model: nn.Module) -> None:
        found = [module for module in model.modules() if isinstance(module, kind)]
        assert found
        for module in found:
            change(module)

    return mutate


def _set(name: str, value: Callable) -> Callable:
    return lambda module: setattr(module, name, value(getattr(module, name)))


def _unbias(linear: nn.Linear) -> None:
    if linear.bias is not None:
        linear.bias.data.zero_()


MUTANTS = {
    "scale": each(Attention, _set("scale", lambda scale: scale * 1.01)),
    "mask": each(Attention, _set("mask", lambda mask: Causal() if mask == Full() else Full())),
    "mask off by one": each(Attention, _set("mask", lambda mask: mask & Window(9))),
    "rotary base": each(Rotary, _set("frequencies", lambda f: f * 1.01 ** -torch.linspace(0, 1, len(f)))),
    "rotary pairing": each(Rotary, _set("interleaved", lambda flag: not flag)),
    "bias": each(nn.Linear, _unbias),
    "layer norm epsilon": each(LayerNorm, _set("eps", lambda eps: eps + 1e-4)),
    "rms norm epsilon": each(RMSNorm, _set("eps", lambda eps: eps + 1e-4)),
    "bucket edge": each(T5Bias, _set("max_distance", lambda distance: distance - 4)),
    "direction": each(T5Bias, _set("bidirectional", lambda flag: not flag)),
    "position off by one": each(
        Model, lambda model: model.stack.embedding.steps.apply(lambda m: m.__dict__.update(offset=1))
    ),
}
CAUGHT = {
    "llama": ["scale", "mask", "mask off by one", "rotary base", "rotary pairing", "rms norm epsilon"],
    "gpt2": ["scale", "mask", "mask off by one", "bias", "layer norm epsilon", "position off by one"],
    "bert": ["scale", "mask", "mask off by one", "bias", "layer norm epsilon", "position off by one"],
    "t5": ["scale", "mask", "mask off by one", "rms norm epsilon", "bucket edge", "direction"],
}


@pytest.mark.parametrize(("family", "mutant"), [(f, m) for f, mutants in CAUGHT.items() for m in mutants])
def test_mutant_is_caught(family, mutant):
    """The smallest slip we can think of makes parity fail."""
    case = FIRST[family]
    theirs = reference(case)
    ours = counterpart(theirs)
    batch = next(batches())
    assert error(*outputs(case, ours, theirs, batch)) <= BOUND
    MUTANTS[mutant](ours)
    assert error(*outputs(case, ours, theirs, batch)) > BOUND


def test_sequence_classes():
    """Pooled at the first token (BERT) and at the last (GPT-2, LLaMA), whichever side the padding is on."""
    import transformers as hf
    from tests.families.oracles import TINY_BERT, TINY_GPT2, TINY_LLAMA

    made = [
        hf.BertForSequenceClassification(hf.BertConfig(**{**TINY_BERT, "num_labels": 3})),
        hf.GPT2ForSequenceClassification(hf.GPT2Config(**TINY_GPT2, num_labels=3, pad_token_id=95)),
        hf.LlamaForSequenceClassification(hf.LlamaConfig(**{**TINY_LLAMA, "pad_token_id": 95}, num_labels=3)),
    ]
    for theirs in made:
        ours = counterpart(theirs.eval())
        for batch in list(batches())[:3]:
            if batch.name == "left padding" and isinstance(theirs, hf.BertForSequenceClassification):
                continue  # the reference pools column 0, padding or not
            ids = batch.ids.masked_fill(~batch.real, 95)
            positions = (batch.real.cumsum(1) - 1).clamp(min=0)
            with torch.no_grad():
                expected = theirs(input_ids=ids, attention_mask=batch.real.long(), position_ids=positions).logits
                assert error(ours(ids, batch.padding), expected) <= BOUND


def test_bert_pooler():
    case = FIRST["bert"]
    theirs = reference(case)
    ours = counterpart(theirs)
    ids = next(batches()).ids
    with torch.no_grad():
        assert error(ours.pooled(ids), theirs(ids).pooler_output) <= BOUND

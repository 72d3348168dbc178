"""Every family gives the reference's numbers, over its variants and with padding anywhere; every mutant is caught."""

import pytest
import torch
from tests.families.oracles import (
    CASES,
    FAMILIES,
    batches,
    counterpart,
    counterpart_of,
    error,
    mutated,
    outputs,
    peak,
    reference,
    worst_error,
)

from cutaway.attention import backend

BOUND = 1e-5
FIRST = {family: module.CASES[0] for family, module in FAMILIES.items()}
SOFTMAX = [family for family, module in FAMILIES.items() if getattr(module, "SHARPEN", None)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parity(case):
    assert worst_error(case) <= BOUND


@pytest.mark.parametrize("family", SOFTMAX)
def test_attention_is_peaked(family):
    """Else a wrong scale or mask would hardly show."""
    case = FIRST[family]
    assert peak(case, counterpart_of(case, reference(case))) > 0.7


@pytest.mark.parametrize("name", ["eager", "sdpa", "sparse", "tiled"])
@pytest.mark.parametrize("family", SOFTMAX)
def test_every_backend_has_parity(family, name):
    if name not in getattr(FAMILIES[family], "BACKENDS", ("eager", "sdpa", "sparse", "tiled")):
        pytest.skip("this family's attention cannot run by this backend")
    theirs = reference(FIRST[family])
    ours = counterpart_of(FIRST[family], theirs)
    with backend(name):
        for batch in batches():
            if batch.padding is not None and not FIRST[family].padded:
                continue
            assert error(*outputs(FIRST[family], ours, theirs, batch)) <= BOUND


@pytest.mark.parametrize(("family", "mutant"), [(f, m) for f, module in FAMILIES.items() for m in module.MUTANTS])
def test_mutant_is_caught(family, mutant):
    """The smallest slip we can think of makes parity fail."""
    case = mutated(family, mutant)
    theirs = reference(case)
    ours = counterpart_of(case, theirs)
    batch = next(batches())
    assert error(*outputs(case, ours, theirs, batch)) <= BOUND
    FAMILIES[family].MUTANTS[mutant](ours)
    assert error(*outputs(case, ours, theirs, batch)) > BOUND


def test_sequence_classes():
    """Pooled at the first token (BERT) and at the last (GPT-2, LLaMA), whichever side the padding is on."""
    import transformers as hf

    tiny_bert, tiny_gpt2, tiny_llama = (FAMILIES[family].TINY for family in ("bert", "gpt2", "llama"))

    made = [
        hf.BertForSequenceClassification(hf.BertConfig(**{**tiny_bert, "num_labels": 3})),
        hf.GPT2ForSequenceClassification(hf.GPT2Config(**tiny_gpt2, num_labels=3, pad_token_id=95)),
        hf.LlamaForSequenceClassification(hf.LlamaConfig(**{**tiny_llama, "pad_token_id": 95}, num_labels=3)),
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

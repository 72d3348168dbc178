"""XLNet against the reference: the text, the query stream in random orders, segments, and a memory that forgets."""

from typing import Any

import torch
import transformers as hf
from tests.families.case import Batch, Case
from tests.families.mutants import BIAS, LAYER_EPSILON, LOGITS_BIAS, MASK, NORM_ORDER, SCALE, each, setting
from torch import Tensor, nn

from cutaway.parts import State
from cutaway.parts.permuted import PermutedModel
from cutaway.parts.relative_shift import Distances, RelativeScores, SegmentScores

TINY = {
    "vocab_size": 99,
    "d_model": 32,
    "n_layer": 2,
    "n_head": 4,
    "d_inner": 48,
    "initializer_range": 0.3,
    "mem_len": None,
    "num_labels": 2,
}
SHARPEN = 1.9
CONFIGS = {"XLNet": (hf.XLNetConfig, TINY)}
CASES = [
    Case("xlnet", "memory of 6, clamp", "XLNetLMHeadModel", {"mem_len": 6, "clamp_len": 10}),
    Case("xlnet", "as published", "XLNetLMHeadModel"),
    Case("xlnet", "body alone, relu", "XLNetModel", {"ff_activation": "relu"}),
    Case("xlnet", "untied", "XLNetLMHeadModel", {"tie_word_embeddings": False}),
    Case("xlnet", "from left to right", "XLNetLMHeadModel", {"attn_type": "uni"}, False),
    Case("xlnet", "from left to right, memory of 6", "XLNetLMHeadModel", {"attn_type": "uni", "mem_len": 6}, False),
    Case("xlnet", "sequence classes", "XLNetForSequenceClassification", {"num_labels": 3}),
    Case("xlnet", "sequence classes by the first", "XLNetForSequenceClassification", {"summary_type": "first"}, False),
    Case("xlnet", "sequence classes by the mean", "XLNetForSequenceClassification", {"summary_type": "mean"}, False),
    Case("xlnet", "token classes", "XLNetForTokenClassification", {"num_labels": 5}),
    Case("xlnet", "question answering", "XLNetForQuestionAnsweringSimple"),
]


def reference(case: Case) -> nn.Module:
    model = getattr(hf, case.model)(hf.XLNetConfig(**{**TINY, **case.config})).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.1)
            elif name.endswith(("rel_attn.q", "rel_attn.r")):
                p.mul_(SHARPEN**2)
            elif name.endswith(("rel_attn.v", "rel_attn.o", "layer_1.weight", "layer_2.weight")):
                p.mul_(0.4)  # as `sharpen` does it, and why
    return model


def outputs(case: Case, ours: Any, theirs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Everything both can say: a text, the next one beside its memory, a token after that, and guesses in any order."""
    ids, padding = batch.ids, {} if batch.padding is None else {"attention_mask": batch.padding.long()}
    generator = torch.Generator().manual_seed(4)
    segments = torch.randint(0, 4, ids.shape, generator=generator)
    if "Sequence" in case.model:
        # the reference reads a text's class off the last column: there it must end
        order = batch.real.long().argsort(dim=1, stable=True)
        ids, segments, real = (x.gather(1, order) for x in (ids, segments, batch.real))
        expected = theirs(ids, token_type_ids=segments, attention_mask=real.long()).logits
        return ours(batch.ids, batch.padding, segments=segments.gather(1, order.argsort(1))), expected
    first = theirs(ids, token_type_ids=segments, **padding, use_mems=True)
    pairs = [(ours(ids, batch.padding, segments=segments)[batch.real], _answer(first)[batch.real])]
    pairs.append((ours(ids, batch.padding)[batch.real], _answer(theirs(ids, **padding))[batch.real]))
    state = State(len(ids), 64)
    if batch.padding is None:
        ours(ids, segments=segments, state=state)
        for more in (ids[:, :7].flip(1), ids[:, :1]):
            kinds = {"token_type_ids": segments[:, : more.shape[1]], "use_mems": True}
            first = theirs(more, mems=first.mems, **kinds)
            pairs.append((ours(more, segments=kinds["token_type_ids"], state=state), _answer(first)))
    if not ours.causal and ids.shape[1] > 1 and case.model in ("XLNetLMHeadModel", "XLNetModel"):
        places = torch.stack([torch.randperm(ids.shape[1], generator=generator) for _ in ids])
        places = (places - 3).clamp(min=0)  # four are given
        targets = places.argsort(1)[:, [5, -1, 8, 4]]
        hidden = {
            "perm_mask": (places[:, None] > places[:, :, None])
            | (places[:, None] == places[:, :, None]) & (places > 0)[:, :, None],
            "target_mapping": nn.functional.one_hot(targets, ids.shape[1]),
        }
        hidden = {name: x.float() for name, x in hidden.items()}
        real = batch.real.gather(1, targets)
        expected = _answer(theirs(ids, token_type_ids=segments, **hidden, **padding))[real]
        pairs.append((ours.permuted(ids, places, targets, batch.padding, segments=segments)[real], expected))
        if batch.padding is None:
            expected = _answer(theirs(ids, mems=first.mems, token_type_ids=segments, **hidden))
            pairs.append((ours.permuted(ids, places, targets, segments=segments, state=state), expected))
    return torch.cat([a.flatten() for a, _ in pairs]), torch.cat([b.flatten() for _, b in pairs])


def _answer(found: Any) -> Tensor:
    return torch.stack([found.start_logits, found.end_logits], -1) if "start_logits" in found else found[0]


def _swapped(part: RelativeScores) -> None:
    part.u, part.v = part.v, part.u


def _shifted(part: Distances) -> None:
    rows = part.rows
    part.rows = lambda high, low, like: rows(high + 1, low + 1, like)


def _places(model: PermutedModel) -> None:
    """The query stream stands one token after its target."""
    through = model.stack.through

    def moved(x: Tensor, ctx: Any) -> Tensor:
        if hasattr(ctx, "places"):
            queries = ctx.places.shape[1] - (ctx.pos[0] >= 0).sum()
            ctx.places[:, -queries:] += 1
        return through(x, ctx)

    model.stack.through = moved


def _peeks(model: PermutedModel) -> None:
    """The query stream sees the token it is to guess."""
    through = model.stack.through

    def peeking(x: Tensor, ctx: Any) -> Tensor:
        if hasattr(ctx, "places"):
            own = ctx.places[:, :, None] == ctx.places[:, None, :]
            ctx.seen.logical_or_(own)
        return through(x, ctx)

    model.stack.through = peeking


MUTANTS = {
    "scale": SCALE,
    "mask": MASK,
    "bias": BIAS,
    "bias of the head": LOGITS_BIAS,
    "layer norm epsilon": LAYER_EPSILON,
    "norm before": NORM_ORDER,
    "u and v swapped": each(RelativeScores, _swapped),
    "shift off by one": each(Distances, _shifted),
    "clamp": each(Distances, setting("clamp", lambda clamp: clamp + 1)),
    "memory shorter by one": each(RelativeScores, setting("memory", lambda memory: memory - 1)),
    "segments the other way round": each(SegmentScores, lambda part: part.weight.data.copy_(part.weight.data.flip(0))),
    "no bias of segments": each(SegmentScores, lambda part: part.s.data.zero_()),
    "query stream stands elsewhere": each(PermutedModel, _places),
    "query stream peeks": each(PermutedModel, _peeks),
    "query vector": each(PermutedModel, lambda model: model.query.data.mul_(1.01)),
}

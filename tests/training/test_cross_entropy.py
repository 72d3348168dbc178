"""The loss taken in pieces against PyTorch's own, in value, gradients and what is held."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cutaway.parts import LanguageHead, MaskedTransform
from cutaway.parts.adaptive import AdaptiveSoftmax, AdaptiveTokens
from cutaway.training.batch import IGNORED
from cutaway.training.cross_entropy import cross_entropy
from cutaway.training.errors import TrainingError

B, T, D, V = 3, 7, 12, 50


class Largest(TorchDispatchMode):
    """The most elements that any new tensor had."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, (tuple, list)) else [out]
        self.most = max([self.most, *(x.numel() for x in made if isinstance(x, torch.Tensor))])
        return out


def heads():
    def tied():
        table = torch.nn.Embedding(V, D)
        return LanguageHead(D, V, tied=table)

    yield "plain", lambda: LanguageHead(D, V)
    yield "tied", tied
    yield "bias", lambda: LanguageHead(D, V, bias=True)
    yield "softcap", lambda: LanguageHead(D, V, softcap=1.5, bias=True)
    yield "scale", lambda: LanguageHead(D, V, scale=D**-0.5)
    yield "transform", lambda: LanguageHead(8, V, bias=True, transform=MaskedTransform(D, "gelu", 1e-6, out=8))


def drawn(dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(B, T, D, dtype=dtype, requires_grad=True)
    targets = torch.randint(V, (B, T))
    targets[0, 2:5] = IGNORED
    return x, targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, 4, 1000])
@pytest.mark.parametrize(("name", "make"), [pytest.param(*each, id=each[0]) for each in heads()])
def test_as_pytorch_says(name, make, rows, smoothing):
    x, targets = drawn()
    head = make().double()
    parameters = [x, *head.parameters()]
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    logits = head(x)
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum", label_smoothing=smoothing)
    plain = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    wanted = torch.autograd.grad(expected * 0.3, parameters)
    found, unsmoothed = cross_entropy(head, x, targets, smoothing=smoothing, rows=rows)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(unsmoothed, plain.detach(), rtol=1e-12, atol=0)
    for ours, theirs in zip(torch.autograd.grad(found * 0.3, parameters), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_adaptive():
    x, targets = drawn(torch.float32)
    head = AdaptiveSoftmax(AdaptiveTokens(V, D, D, [10, 30], 2), D, tied=True, shared_projects=True)
    expected = F.cross_entropy(head(x).flatten(0, 1), targets.flatten(), reduction="sum")
    found, _ = cross_entropy(head, x, targets)
    torch.testing.assert_close(found, expected)
    with pytest.raises(TrainingError, match="smoothing"):
        cross_entropy(head, x, targets, smoothing=0.1)


def test_the_logits_are_never_held():
    torch.manual_seed(0)
    words, tokens, width = 3000, 64, 16
    head = LanguageHead(width, words, softcap=30.0, bias=True)
    x = torch.randn(4, tokens, width, requires_grad=True)
    targets = torch.randint(words, (4, tokens))

    def most(loss):
        with Largest() as seen:
            loss().backward()
        return seen.most

    whole = most(lambda: F.cross_entropy(head(x).flatten(0, 1), targets.flatten(), reduction="sum"))
    assert whole >= 4 * tokens * words  # the plain way holds them, and the watcher sees it
    pieces = most(lambda: cross_entropy(head, x, targets, rows=32)[0])
    assert pieces == max(32 * words, words * width)


def test_nothing_asked_is_nothing_lost():
    x, targets = drawn()
    head = LanguageHead(D, V, bias=True).double()
    total, _ = cross_entropy(head, x, torch.full_like(targets, IGNORED))
    total.backward()
    assert total == 0
    assert x.grad is not None
    assert not x.grad.any()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize("autocast", [False, True])
def test_in_half_precision_sums_are_kept_in_full(autocast):
    """Compared with the same logits in bfloat16 whose loss is taken in float32."""
    torch.manual_seed(0)
    kind = torch.float32 if autocast else torch.bfloat16
    x = torch.randn(2, 512, D, dtype=kind, requires_grad=True)
    targets, head = torch.randint(V, (2, 512)), LanguageHead(D, V, bias=True).to(kind)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = F.cross_entropy(head(x).float().flatten(0, 1), targets.flatten(), reduction="sum")
        found, _ = cross_entropy(head, x, targets, rows=16)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    parameters = [x, *head.parameters()]
    wanted = torch.autograd.grad(expected, parameters)
    for ours, theirs in zip(torch.autograd.grad(found, parameters), wanted, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_other_heads_are_refused():
    x, targets = drawn()
    with pytest.raises(TrainingError, match="no head"):
        cross_entropy(None, x, targets)
    with pytest.raises(TrainingError, match="a Linear"):
        cross_entropy(torch.nn.Linear(D, V), x, targets)

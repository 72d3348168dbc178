"""BART's noise."""

import pytest
import torch

import cutaway
from cutaway.training.batch import IGNORED, Rows
from cutaway.training.data import characters
from cutaway.training.objectives import named
from cutaway.training.objectives.denoising import infilled, shuffled

TOKENIZER = characters(["abcdefghijklmnopqrstuvwxyz ."])  # 29 ids
MASK, END = 30, 28


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def net():
    return cutaway.build("bart-base", vocab=31, width=16, layers=1, heads=2, hidden=32, context=300, seed=0)


def objective(net, **options):
    return named("auto", net, net.family, net.sizes, TOKENIZER, eos=END, **options)


def test_the_target_is_the_text_as_it_was(net):
    ids = torch.randint(28, (8, 50), generator=draw())
    padding = torch.arange(50) < torch.randint(20, 51, (8, 1), generator=draw())
    batch = objective(net).batch(Rows(ids, padding), draw())
    for text, there, target in zip(ids, padding, batch.targets, strict=True):
        assert target[target != IGNORED].tolist() == [*text[there].tolist(), END]
    assert torch.equal(batch.inputs["target_padding"], batch.targets != IGNORED)  # the target's own
    assert (batch.inputs["target_ids"][:, 0] == net.start).all()
    assert objective(net).loss(net, batch).count == padding.sum() + 8


def test_spans_become_one_mask_each(net):
    """What is kept is a subsequence, 30% is gone, and span lengths are Poisson's."""
    ids = torch.arange(300) % 28
    gone, masks = [], []
    for seed in range(300):
        source = infilled(ids, MASK, 0.3, 3.0, draw(seed)).tolist()
        kept = [t for t in source if t != MASK]
        rest = iter(ids.tolist())
        assert all(t in rest for t in kept)
        gone.append(300 - len(kept))
        masks.append(len(source) - len(kept))
    assert set(gone) == {90}
    # spans needed to reach 90 with Poisson(3) lengths: 90/3 and a little over, since the last is cut
    assert abs(torch.tensor(masks).float().mean() - 30.5) < 1


def test_sentences_stay_whole_and_change_places():
    text = "one two. three four. five. six seven eight. nine"
    ids = torch.tensor(TOKENIZER.encode(text))
    ends = torch.zeros(31, dtype=torch.bool)
    ends[TOKENIZER.encode(".")] = True
    seen = set()
    for seed in range(50):
        made = TOKENIZER.decode(shuffled(ids, ends, draw(seed)).tolist())
        seen.add(made)
        assert sorted(made) == sorted(text)
        assert all(
            sentence in made for sentence in ("one two.", " three four.", " five.", " six seven eight.", " nine")
        )
    assert len(seen) > 30


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_short_texts(net, length):
    batch = objective(net).batch(Rows(torch.ones(2, 5).long(), torch.arange(5).expand(2, 5) < length), draw())
    assert (batch.targets != IGNORED).sum() == 2 * (length + 1)
    assert objective(net).loss(net, batch).total.isfinite()

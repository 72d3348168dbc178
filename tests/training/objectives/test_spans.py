"""T5's corruption of spans."""

import pytest
import torch
import torch.nn.functional as F
from tests.text.samples import train_sentencepiece

import cutaway
import cutaway.text
from cutaway.training.batch import IGNORED, Rows
from cutaway.training.data import characters
from cutaway.training.errors import TrainingError
from cutaway.training.objectives import named
from cutaway.training.objectives.spans import divided, spans

TOKENIZER = characters(["abcdefghijklmnopqrstuvwxyz "])  # 28 ids
END = 27


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def net():
    return cutaway.build("t5-small", vocab=28 + 40, width=16, layers=1, heads=2, head_width=8, hidden=32, seed=0)


def objective(net, **options):
    return named("auto", net, net.family, net.sizes, TOKENIZER, eos=END, **options)


def read(batch):
    """Rows of source and target, and the marks in them."""
    for source, there, target in zip(
        batch.inputs["source_ids"],
        batch.inputs.get("source_padding", torch.ones_like(batch.inputs["source_ids"], dtype=torch.bool)),
        batch.targets,
        strict=True,
    ):
        yield source[there].tolist(), target[target != IGNORED].tolist()


def put_back(source, target):
    """The text: each mark's span from the target in its place. An independent reading of the paper's figure 2."""
    parts, key = {}, None
    assert source[-1] == target[-1] == END
    for token in target[:-1]:
        if token >= 28:
            key = token
            parts[key] = []
        else:
            parts[key].append(token)
    assert all(parts.values())
    assert list(parts) == [t for t in source if t >= 28] == list(range(67, 67 - len(parts), -1))
    return [t for token in source[:-1] for t in parts.get(token, [token])]


@pytest.mark.parametrize("length", [2, 3, 10, 63, 200])
def test_source_and_target_together_are_the_text(net, length):
    ids = torch.randint(27, (20, length), generator=draw())
    batch = objective(net).batch(Rows(ids), draw(1))
    for (source, target), text in zip(read(batch), ids.tolist(), strict=True):
        assert put_back(source, target) == text
        assert 0 <= sum(t < 27 for t in target) - round(0.15 * length) <= 1


def test_padding_may_stand_anywhere(net):
    ids = torch.randint(27, (3, 40), generator=draw())
    there = torch.rand(3, 40, generator=draw()) < 0.7
    batch = objective(net).batch(Rows(ids, there), draw())
    for (source, target), text, real in zip(read(batch), ids, there, strict=True):
        assert put_back(source, target) == text[real].tolist()


def test_the_decoder_reads_what_it_wrote(net):
    ids = torch.randint(27, (4, 30), generator=draw())
    batch = objective(net).batch(Rows(ids), draw())
    read_, wanted = batch.inputs["target_ids"], batch.targets
    assert (read_[:, 0] == net.start).all()
    asked = wanted[:, :-1] != IGNORED
    assert torch.equal(read_[:, 1:][asked & (wanted[:, 1:] != IGNORED)], wanted[:, :-1][wanted[:, 1:] != IGNORED])
    loss = objective(net).loss(net, batch)
    expected = F.cross_entropy(net(**batch.inputs).flatten(0, 1), wanted.flatten(), reduction="sum")
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == (wanted != IGNORED).sum()


def test_spans_are_of_the_mean_length_and_uniform():
    cut = torch.stack([spans(200, 0.15, 3.0, draw(seed)) for seed in range(2000)])
    assert (cut.sum(1) == 30).all()
    assert cut[:, -1].all()
    assert not cut[:, 0].any()
    first = cut[:, 1:] & ~cut[:, :-1]
    assert (first.sum(1) == 10).all()
    # every division of 5 into 3 parts of at least one is equally likely: there are six
    seen = [tuple(divided(5, 3, generator).tolist()) for generator in [draw()] for _ in range(6000)]
    counts = torch.tensor([seen.count(each) for each in set(seen)])
    assert len(counts) == 6
    assert (counts - 1000).abs().max() < 5 * (6000 / 6 * 5 / 6) ** 0.5


def test_marks_of_a_published_tokenizer(tmp_path, t5):
    net = cutaway.build("t5-small", vocab=t5.vocab_size, width=16, layers=1, heads=2, head_width=8, hidden=32)
    made = named("spans", net, "t5", net.sizes, t5)
    assert t5.tokens(made.marks.tolist()) == [f"<extra_id_{i}>" for i in range(100)]
    assert made.eos == t5.eos_id


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """A tokenizer as T5's: a trained unigram model, and 100 extra ids in its configuration."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("t5")
    (folder / "spiece.model").write_bytes(
        train_sentencepiece("unigram", vocab_size=400, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    )
    transformers.T5Tokenizer.from_pretrained(folder, extra_ids=100).save_pretrained(folder)
    return cutaway.text.from_directory(folder)


def test_what_does_not_go_together_is_said(net):
    long = Rows(torch.zeros(1, 2000, dtype=torch.int64))
    with pytest.raises(TrainingError, match="marks for 40"):
        objective(net).batch(long, draw())
    with pytest.raises(TrainingError, match="one text a row"):
        objective(net).batch(Rows(torch.zeros(1, 4).long(), documents=torch.tensor([[0, 0, 1, 1]])), draw())
    decoder = cutaway.build("gpt2", vocab=80, width=16, layers=1, heads=2)
    with pytest.raises(TrainingError, match="is one stack"):
        named("spans", decoder, "gpt2", decoder.sizes, TOKENIZER)
    with pytest.raises(TrainingError, match="encoder with a decoder"):
        named("causal", net, "t5", net.sizes, TOKENIZER)
    narrow = cutaway.build("t5-small", vocab=28, width=16, layers=1, heads=2, head_width=8, hidden=32)
    with pytest.raises(TrainingError, match="vocab=29 or more"):
        objective(narrow)

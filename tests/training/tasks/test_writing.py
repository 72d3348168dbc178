"""Texts for texts: learnt, ended, scored as sacreBLEU and ROUGE do; what cannot be is refused."""

import pytest
import torch
from tests.training.tasks.conftest import tuned

import cutaway
from cutaway.training.errors import TrainingError
from cutaway.training.setup import prepare
from cutaway.training.tasks.task import Example
from cutaway.training.tasks.writing import Summarisation, Translation
from cutaway.training.tuning import evaluate, predict, recipe_for


def test_it_learns_to_write(translator, pairs, tmp_path):
    more = {
        "data__columns": "source,target",
        "data__split": 0,
        "loop__epochs": 24,
        "task__tokens": 12,
        "optimizer__rate": 0.01,
    }
    tuned(translator, "translation", pairs, tmp_path / "run", **more)
    scores = evaluate(tmp_path / "run", task="translation", data=str(pairs), columns=("source", "target"), tokens=12)
    assert scores["bleu"] > 90
    assert scores["chrf"] > 90
    answers = predict(tmp_path / "run", ["the film was good", "the play was awful"], task="translation", tokens=12)
    assert [answer["text"] for answer in answers] == ["a good old film", "a bad long play"]
    assert all(answer["score"] > 0.3 for answer in answers)


def test_targets_end_and_sources_have_their_prefix(translator):
    tokenizer = cutaway.load(translator).tokenizer
    task = Translation(tokenizer, prefix="with ", tokens=4)
    row = task.encode([Example("a film", "the old story was long")]).rows[0]
    assert row.ids == tokenizer.encode("with a film")
    assert len(row.target) == 4
    assert row.target == [*tokenizer.encode("the old story", special=False)[:3], tokenizer.eos_id]


@torch.no_grad()
def test_scores_are_those_of_the_tokens(translator):
    loaded = cutaway.load(translator)
    task = Translation(loaded.tokenizer, tokens=6, beams=1)
    texts = ["the film", "a very long and old story with a song"]
    for words, answer in zip(texts, task.answers(loaded.model, texts), strict=True):
        said = cutaway.generate(loaded, words, max_new_tokens=6).ids[0]
        logits = loaded.model(
            torch.tensor([loaded.tokenizer.encode(words)]), torch.tensor([[loaded.model.start, *said[:-1]]])
        )
        chances = logits[0].log_softmax(-1)[range(len(said)), said]
        assert answer["score"] == pytest.approx(chances.mean().exp().item(), rel=1e-4)


def test_measures_are_those_of_the_reference_scorers(translator):
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    said, right = ["the cat sat on a mat", "hello world"], ["the cat sat on the mat", "hello there world"]
    found = [Example("", r) for r in right]
    answers = [{"text": s} for s in said]
    tokenizer = cutaway.load(translator).tokenizer
    scores = Translation(tokenizer).score(answers, found)
    assert scores["bleu"] == pytest.approx(sacrebleu.BLEU().corpus_score(said, [right]).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.CHRF().corpus_score(said, [right]).score)
    scores = Summarisation(tokenizer).score(answers, found)
    for kind in ("rouge1", "rouge2", "rougeL"):
        each = [RougeScorer([kind]).score(r, s)[kind].fmeasure for r, s in zip(right, said, strict=True)]
        assert scores[kind] == pytest.approx(sum(each) / 2)
    assert scores["rouge1"] == pytest.approx((5 / 6 + 4 / 5) / 2)


def test_what_cannot_write_is_refused(encoder, translator, pairs):
    columns = {"data.columns": "source,target"}
    with pytest.raises(TrainingError, match="no token that ends a text"):
        prepare(recipe_for(str(encoder), "translation", [str(pairs)], columns))
    with pytest.raises(TrainingError, match=r"task\.tokens is at least 2"):
        prepare(recipe_for(str(translator), "translation", [str(pairs)], columns | {"task.tokens": "1"}))

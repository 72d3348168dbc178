"""The chapter of 2017 in miniature: English to French by a Transformer and by an LSTM with additive attention.

    python benchmarks/translation.py --data help-en-fr [--minutes 10] [--threads 1] [--json FILE]
    python benchmarks/translation.py --data help-en-fr --rates 1e-3 2e-3 4e-3 --minutes 1

The folder has train.tsv, valid.tsv and test.tsv, of `english<TAB>french`. `recipes/translation.toml` says all but the peer's
model, which has as many parameters (within 2%); tokenizer, batches and their order, loss and schedule are the same. One
process trains both, in turns, and counts the seconds of the steps of each; the schedule follows these seconds, so that both
end it. What each has learnt then writes the test split by beam search. Tokens count source and target, without padding.

`--rates` trains each with each of these rates instead, and prints the loss on valid.tsv, without label smoothing's part in it.
"""

import argparse
import dataclasses
import json
import math
import tempfile
import time
from pathlib import Path

import torch
from sacrebleu.metrics import BLEU, CHRF  # pyright: ignore[reportMissingImports]

import cutaway
from cutaway.training import toml
from cutaway.training.loop import VALIDATION
from cutaway.training.recipe import Recipe, read
from cutaway.training.setup import prepare
from cutaway.training.tuning import predict

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "translation.toml"
PEER = {"preset": "lstm-attention", "width": 128, "hidden": 162, "tied": True, "dropout": 0.0}
RATES = {"Transformer": 3e-3, "LSTM": 1e-2}  # the best of 2e-3, 3e-3 and 5e-3, and of 2.5e-3, 5e-3, 1e-2 and 2e-2
NAMES = ("Transformer", "LSTM")


def recipe_of(name: str, data: Path, rate: float) -> Recipe:
    recipe = toml.load(RECIPE)
    if name == "LSTM":
        recipe = dataclasses.replace(recipe, model=read({"model": PEER}).model)
    files = {"path": str(data / "train.tsv"), "valid": str(data / "valid.tsv")}
    return read({"data": files, "optimizer": {"rate": rate}}, recipe)


class Learner:
    """A model, and how long it has learnt."""

    def __init__(self, name: str, data: Path, rate: float) -> None:
        self.name, self.rate, self.recipe = name, rate, recipe_of(name, data, rate)
        self.prepared = prepare(self.recipe)
        self.trainer = self.prepared.trainer
        self.seconds, self.step, self.tokens = 0.0, 0, 0

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.trainer.model.parameters())

    def learn(self, seconds: float, budget: float) -> None:
        """For so many seconds of the budget, by whose part that is over the schedule goes."""
        end = min(self.seconds + seconds, budget)
        while self.seconds < end:
            steps = round(self.step * budget / self.seconds) if self.step > 10 else 10_000
            loop = dataclasses.replace(self.recipe.loop, steps=max(self.step + 1, steps))
            self.trainer.recipe = dataclasses.replace(self.recipe, loop=loop)
            begin = time.perf_counter()
            made = self.trainer.step(self.step + 1)
            self.seconds += time.perf_counter() - begin
            self.step, self.tokens = made.number, self.tokens + made.tokens

    @torch.no_grad()
    def valid(self) -> float:
        """The mean loss of a token of valid.tsv, without smoothing."""
        self.trainer.model.eval()
        total = count = 0.0
        for n in range(len(self.prepared.valid)):
            loss, _ = self.trainer._loss(self.prepared.valid.batch(n), VALIDATION, n)
            total, count = total + loss.extra["nll"].item(), count + loss.count.item()
        return total / count

    def said(self, texts: list[str], folder: Path) -> list[str]:
        cutaway.save(self.trainer.model, folder, tokenizer=self.prepared.tokenizer, layout="cutaway")
        options = self.recipe.task.options
        answers = predict(folder, texts, task="translation", length=self.recipe.data.length, rows=32, **options)
        return [answer["text"] for answer in answers]


def rates(data: Path, tried: list[float], seconds: float, chunk: float) -> dict[str, float]:
    found = {}
    for rate in tried:
        learners = [Learner(name, data, rate) for name in NAMES]
        alternate(learners, seconds, chunk)
        for each in learners:
            found[f"{each.name} {rate:g}"] = each.valid()
            print(f"{each.name:12} rate {rate:g}: loss {each.valid():.3f} after {each.step} steps", flush=True)
    return found


def alternate(learners: list[Learner], budget: float, chunk: float) -> None:
    while any(each.seconds < budget for each in learners):
        for each in learners:
            each.learn(chunk, budget)
        said = (
            f"{e.name} {e.seconds:.0f} s, step {e.step}, loss {e.valid():.3f}, {e.tokens / e.seconds:,.0f} tokens/s"
            for e in learners
        )
        print("   ".join(said), flush=True)


def race(data: Path, budget: float, chunk: float) -> dict[str, dict[str, float]]:
    learners = [Learner(name, data, RATES[name]) for name in NAMES]
    ours, theirs = (each.parameters for each in learners)
    print(f"{ours:,} and {theirs:,} parameters ({theirs / ours - 1:+.1%}), {budget / 60:g} minutes each")
    if abs(theirs / ours - 1) > 0.02:
        raise SystemExit("the peer's parameters differ by more than 2%")
    alternate(learners, budget, chunk)
    pairs = [line.split("\t") for line in (data / "test.tsv").read_text(encoding="utf-8").splitlines()]
    texts, right = (list(side) for side in zip(*pairs, strict=True))
    found: dict[str, dict[str, float]] = {}
    for each in learners:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            said = each.said(texts, Path(folder))
        searched = time.perf_counter() - begin
        bleu, chrf = BLEU(), CHRF()
        found[each.name] = {
            "bleu": bleu.corpus_score(said, [right]).score, "chrf": chrf.corpus_score(said, [right]).score,
            "tokens_per_second": each.tokens / each.seconds, "perplexity": math.exp(each.valid()),
            "parameters": each.parameters, "steps": each.step, "seconds": each.seconds, "search_seconds": searched,
        }  # fmt: skip
        print(f"{each.name:12} BLEU {found[each.name]['bleu']:.2f}   chrF {found[each.name]['chrf']:.2f}   "
              f"{each.tokens / each.seconds:,.0f} tokens/s in {each.seconds:.0f} s, {each.step} steps   "
              f"perplexity {found[each.name]['perplexity']:.2f} (valid)   search {searched:.0f} s", flush=True)  # fmt: skip
        print(f"  {bleu.get_signature()}   {chrf.get_signature()}")
        for i in (0, len(texts) // 2):
            print(f"  {texts[i][:90]} -> {said[i][:90]}")
    a, b = (found[name] for name in NAMES)
    print(f"Transformer over LSTM: {a['bleu'] - b['bleu']:+.2f} BLEU, {a['chrf'] - b['chrf']:+.2f} chrF, "
          f"{a['tokens_per_second'] / b['tokens_per_second']:.2f} times the tokens/s")  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with train.tsv, valid.tsv and test.tsv")
    parser.add_argument("--minutes", type=float, default=10, help="of training, each")
    parser.add_argument("--chunk", type=float, default=30, help="seconds after which the other one goes on")
    parser.add_argument("--rates", type=float, nargs="+", help="only try these")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seconds = 60 * options.minutes
    if options.rates:
        found = rates(options.data, options.rates, seconds, options.chunk)
    else:
        found = race(options.data, seconds, options.chunk)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

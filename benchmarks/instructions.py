"""SmolLM2 before and after LoRA on 80 conversations: whether it answers as it was taught to.

    python benchmarks/instructions.py [--recipe recipes/short_answers.toml] [--out RUN]

Shows what it says to questions that it was not taught, and scores two things: whether an answer has the form of the lesson,
a line "Short: …" and a line "Why: …", and whether it holds the right word. Then that the adapter is what it says it is:
`peft` reads it, on the base in transformers, and merged it is the same model. Run it in the folder that holds `recipes`.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import cutaway
from cutaway.parts import lora
from cutaway.training import predict, toml
from cutaway.training.metrics.squad import words
from cutaway.training.run import named_in
from cutaway.training.runner import train

FORM = re.compile(r"Short: [^\n]{1,60}\.\nWhy: [^\n]+\.")


def well_formed(answers: Sequence[str]) -> float:
    """The part of the answers that are two lines, as the lesson has them."""
    return sum(FORM.fullmatch(answer) is not None for answer in answers) / len(answers)


def right(answers: Sequence[str], expected: Sequence[str]) -> float:
    """The part of the answers that hold the words of the right one, in their order."""
    pairs = ((f" {' '.join(words(a))} ", f" {' '.join(words(b))} ") for a, b in zip(answers, expected, strict=True))
    return sum(b in a for a, b in pairs) / len(answers)


def proofs(run: Path, prompts: Sequence[str]) -> dict[str, float]:
    """The largest difference of logits, as a part of the largest: between the run and peft, and the run and itself merged."""
    import peft
    import transformers

    loaded = cutaway.load(run, "float32")
    assert loaded.tokenizer is not None
    ids = [loaded.tokenizer.encode_chat([{"role": "user", "content": prompt}]) for prompt in prompts]
    with torch.no_grad(), TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        apart = [loaded.model(torch.tensor([row]))[0] for row in ids]
        base = cutaway.convert("smollm2", Path(folder) / "base", dtype="float32")
        theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(base)
        theirs = peft.PeftModel.from_pretrained(theirs, str(named_in(run, "best") / "model")).eval()
        peer = [theirs(torch.tensor([row])).logits[0] for row in ids]
        lora.merge(loaded.model)
        merged = [loaded.model(torch.tensor([row]))[0] for row in ids]
    return {
        name: max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(apart, others, strict=True))
        for name, others in (("peft", peer), ("merged", merged))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/short_answers.toml"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recipe = toml.loads(given.recipe.read_text())
    lines = Path(recipe.data.path[0]).with_name("held_out.jsonl").read_text().splitlines()
    prompts, expected = zip(*((each["prompt"], each["answer"]) for each in map(json.loads, lines)), strict=True)
    with TemporaryDirectory() as folder:
        run = given.out or Path(folder) / "run"
        options = {"task": "instructions", "rows": 16, "tokens": recipe.task.options["tokens"]}
        before = [answer["text"] for answer in predict(recipe.model.source or "", prompts, **options)]
        begin = time.perf_counter()
        summary = train(recipe, run)
        seconds = time.perf_counter() - begin
        after = [answer["text"] for answer in predict(run, prompts, **options)]
        for question, *said in zip(prompts, before, after, strict=True):
            print(f"{question}\n  before  {said[0]!r}\n  after   {said[1]!r}")
        print("\n| | before | after |\n|---|--:|--:|")
        print(f"| in two lines, as taught | {well_formed(before):.0%} | {well_formed(after):.0%} |")
        print(f"| the right words are there | {right(before, expected):.0%} | {right(after, expected):.0%} |")
        share = summary.trained / summary.parameters
        print(f"\n{summary.trained:,} parameters trained ({share:.2%}), {summary.steps} steps, {seconds:.0f} s")
        for name, worst in proofs(run, prompts[:4]).items():
            print(f"largest difference of logits, of the largest, {name}: {worst:.1e}")


if __name__ == "__main__":
    main()

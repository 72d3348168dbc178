"""MiniLM tuned for three tasks, in cutaway and in plain `transformers`, by the same recipe; and by LoRA.

    CUTAWAY_DATA=FOLDER python benchmarks/finetuning.py [--tasks movies wnut17 xquad] [--seeds 0 1 2] [--out results.jsonl]
    CUTAWAY_DATA=FOLDER python benchmarks/finetuning.py --speed 20

Alike in both libraries: the weights they begin with, the new head's too; the files, which examples are in which batch and in
which order; what dropout draws; the optimizer (AdamW; norms, biases and embeddings do not decay), the schedule, clipping, the
number of steps. Different: the model's code. One thing more in `xquad`: a model of transformers may point at padding while it
learns, ours may not. Seeds change the head, the order and the draws. `lora` is cutaway with the same recipe but its rate,
training detours beside all matrices of the blocks, and the new head.

Each run is a process of its own, the libraries in turn; results are written to `--out` as they come, and what is there
already is not run again. `--speed N` times N steps of each task instead, both libraries in one process, step by step in
turn on the same batches: the median of seconds a step, and of the ratio of a pair, above 1 where cutaway is faster. A step is
the making of its batch, forward, backward, clipping and update.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch

import cutaway
from cutaway.training.adapt import adapt
from cutaway.training.data import examples
from cutaway.training.loop import Trainer
from cutaway.training.recipe import Recipe
from cutaway.training.schedules import factor
from cutaway.training.seeds import fold
from cutaway.training.tasks import TASKS as KINDS
from cutaway.training.tasks.items import Buckets
from cutaway.training.tasks.setup import opened
from cutaway.training.tuning import recipe_for

DATA = Path(os.environ.get("CUTAWAY_DATA", ""))
TASKS: dict[str, dict[str, Any]] = {
    "movies": {"task": "classification", "goal": "accuracy", "rate": "2e-4", "rows": 32, "length": 64, "epochs": 3,
               "train": 2500, "lora": {"rank": 4, "rate": "2e-3"}},
    "wnut17": {"task": "tokens", "goal": "f1", "rate": "3e-4", "rows": 8, "length": 96, "epochs": 3, "train": 1500,
               "lora": {"rank": 8, "rate": "1e-3"}},
    "xquad": {"task": "questions", "goal": "f1", "rate": "2e-4", "rows": 8, "length": 192, "epochs": 2, "train": 700,
              "lora": {"rank": 8, "rate": "2e-3"}},
}  # fmt: skip
LIBRARIES = ("cutaway", "transformers")
WAYS = (*LIBRARIES, "lora")


def examples_of(name: str) -> tuple[list[Any], list[Any]]:
    """To learn from, and to be scored on: of `xquad` whole articles, the last ones."""
    setting = TASKS[name]
    kind = KINDS[setting["task"]]
    if name == "xquad":
        found = kind.read(examples(DATA / "xquad" / "xquad.en.json"))
        held = set(list(dict.fromkeys(e.group for e in found))[-12:])
        train, test = [e for e in found if e.group not in held], [e for e in found if e.group in held]
    else:
        names, end = (["label", "text"], "tsv") if name == "movies" else (None, "conll")
        train, test = (kind.read(examples(DATA / name / f"{part}.{end}", names=names)) for part in ("train", "test"))
    return train[: setting["train"]], test


class Work:
    """One task and one seed."""

    def __init__(self, name: str, seed: int) -> None:
        self.setting = TASKS[name]
        self.kind = KINDS[self.setting["task"]]
        self.train, self.test = examples_of(name)
        self.names = self.kind.classes([*self.train, *self.test])
        length = self.setting["length"]
        self.model, self.task = opened("minilm", self.kind, self.names, length=length, device="cpu", seed=fold(seed))
        self.batches = Buckets(self.task.encode(self.train), self.setting["rows"], seed=fold(seed, 2))
        self.steps = self.setting["epochs"] * len(self.batches)
        self.settings = {"loop.steps": str(self.steps), "loop.seed": str(seed), "optimizer.rate": self.setting["rate"]}
        self.recipe = self.asked()

    def asked(self, **more: str) -> Recipe:
        return recipe_for("minilm", self.setting["task"], ["-"], self.settings | more)

    def way(self, who: str) -> tuple[Callable[[int], object], Any]:
        """What makes step n, and the model that learns."""
        return self.theirs() if who == "transformers" else self.ours(detours=who == "lora")

    def ours(self, *, detours: bool = False) -> tuple[Callable[[int], object], Any]:
        recipe = self.recipe
        if detours:
            chosen = self.setting["lora"]
            recipe = self.asked(**{"lora.rank": str(chosen["rank"]), "optimizer.rate": chosen["rate"]})
            adapt(self.model, recipe, head=True)
        trainer = Trainer(self.model, self.task.objective(self.model), self.batches, recipe)
        return trainer.step, self.model

    def theirs(self) -> tuple[Callable[[int], object], Any]:
        import transformers

        heads = {"sequence": "SequenceClassification", "token": "TokenClassification", "span": "QuestionAnswering"}
        automatic = getattr(transformers, f"AutoModelFor{heads[self.kind.head or '']}")
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        with TemporaryDirectory() as folder:  # from our weights, so that the heads begin alike
            path = cutaway.save(self.model, Path(folder) / "model", tokenizer=self.task.tokenizer)
            model = automatic.from_pretrained(path, attn_implementation="sdpa")
        tables = {n for n, m in model.named_modules() if isinstance(m, (torch.nn.LayerNorm, torch.nn.Embedding))}
        groups: dict[bool, list[Any]] = {True: [], False: []}
        for n, p in model.named_parameters():
            groups[n.endswith("weight") and n.rpartition(".")[0] not in tables].append(p)
        chosen = self.recipe.optimizer
        decays = [{"params": groups[yes], "weight_decay": chosen.decay if yes else 0.0} for yes in (True, False)]
        optimizer = torch.optim.AdamW(decays, lr=chosen.rate, betas=chosen.betas, eps=chosen.eps, fused=True)

        def step(number: int) -> None:
            model.train()
            batch = arguments(self.batches.batch(number - 1))
            torch.manual_seed(fold(fold(self.recipe.loop.seed, number, 0, 0), 1))  # as our loop does, for dropout
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), chosen.clip)
            for group in optimizer.param_groups:
                group["lr"] = chosen.rate * factor(self.recipe.schedule, number, self.steps)
            optimizer.step()
            optimizer.zero_grad()

        return step, model


def arguments(batch: Any) -> dict[str, Any]:
    """A batch as models of transformers take it."""
    ids, padding, segments = batch.rows.ids, batch.rows.padding, batch.rows.segments
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids) if padding is None else padding.long()}
    if segments is None:
        return given | {"labels": batch.labels}
    return given | {
        "token_type_ids": segments,
        "start_positions": batch.labels[:, 0],
        "end_positions": batch.labels[:, 1],
    }


class Read(torch.nn.Module):
    """A model of transformers that is called as ours, and gives its logits as ours."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.stack = model, SimpleNamespace(segments=2)

    def forward(self, ids: Any, padding: Any = None, segments: Any = None) -> Any:
        mask = torch.ones_like(ids) if padding is None else padding.long()
        out = self.model(ids, attention_mask=mask, **({} if segments is None else {"token_type_ids": segments}))
        return torch.stack([out.start_logits, out.end_logits], -1) if "start_logits" in out else out.logits


def run(name: str, seed: int, who: str) -> dict[str, Any]:
    """One run, in this process."""
    work = Work(name, seed)
    step, model = work.way(who)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    share = trained / sum(p.numel() for p in model.parameters())
    begin = time.perf_counter()
    for number in range(1, work.steps + 1):
        step(number)
    seconds = round(time.perf_counter() - begin, 2)
    asked = Read(model.eval()) if who == "transformers" else model.eval()
    scores = work.task.score(work.task.answers(asked, [e.text for e in work.test]), work.test)
    made = {"task": name, "seed": seed, "who": who, "steps": work.steps, "seconds": seconds, "trained": share}
    return made | scores


def speed(names: list[str], count: int) -> None:
    """Both in turn on the same batches, after two steps that do not count."""
    print("| task | seconds a step, cutaway | transformers | transformers / cutaway |\n|---|--:|--:|--:|")
    for name in names:
        work = Work(name, 0)
        steps = {who: work.way(who)[0] for who in reversed(LIBRARIES)}  # theirs begins with a copy of our weights
        taken: dict[str, list[float]] = {who: [] for who in LIBRARIES}
        for number in range(1, count + 3):
            for who in LIBRARIES if number % 2 else LIBRARIES[::-1]:
                begin = time.perf_counter()
                steps[who](number)
                taken[who].append(time.perf_counter() - begin)
        ours, theirs = (taken[who][2:] for who in LIBRARIES)
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        print(f"| {name} | {statistics.median(ours):.3f} | {statistics.median(theirs):.3f} | {ratio:.2f} |", flush=True)


def report(found: list[dict[str, Any]]) -> None:
    """Mean ± standard deviation over seeds, in percent."""
    print("| task | score | cutaway | transformers | LoRA | trained of all | seeds |\n|---|---|--:|--:|--:|--:|--:|")
    for name, setting in TASKS.items():
        runs = {who: [r for r in found if (r["task"], r["who"]) == (name, who)] for who in WAYS}
        cells = []
        for some in runs.values():
            scores = [100 * r[setting["goal"]] for r in some]
            cells.append(f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else "")
        trained = f"{100 * runs['lora'][0]['trained']:.2f}%" if runs["lora"] else ""
        seeds = sorted(r["seed"] for r in runs["cutaway"])
        print(f"| {name} | {setting['goal']} | {' | '.join(cells)} | {trained} | {' '.join(map(str, seeds))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--speed", type=int, metavar="STEPS")
    parser.add_argument("--out", type=Path, default=Path("finetuning.jsonl"))
    parser.add_argument("--one", nargs=3, metavar=("TASK", "SEED", "WHO"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.one:
        print(json.dumps(run(given.one[0], int(given.one[1]), given.one[2])))
        return
    if given.speed:
        speed(given.tasks, given.speed)
        return
    found = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(r["task"], r["seed"], r["who"]) for r in found}
    wanted = [(name, seed, who) for seed in given.seeds for name in given.tasks for who in given.ways]
    for name, seed, who in (each for each in wanted if each not in done):
        command = [sys.executable, __file__, "--threads", str(given.threads), "--one", name, str(seed), who]
        made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(made.stdout.splitlines()[-1]))
        with open(given.out, "a") as file:
            file.write(json.dumps(found[-1]) + "\n")
        print(found[-1], file=sys.stderr, flush=True)
    report(found)


if __name__ == "__main__":
    main()

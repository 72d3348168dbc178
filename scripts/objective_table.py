"""Every family takes some steps of its own objective on a real text, at tiny sizes: does its loss fall?

    python scripts/objective_table.py DATA_FOLDER                         measures all, prints, and writes docs/objectives.md
    python scripts/objective_table.py DATA_FOLDER --families bert t5 …    measures and prints
                                                  --steps 50 300

DATA_FOLDER holds tinyshakespeare.txt and help-en-fr/train.tsv. The table has the loss per thing asked on texts not trained
on, with noise that is the same each time, before and after so many steps. Characters are the tokens.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

import cutaway
from cutaway import families
from cutaway.text import Tokenizer
from cutaway.training.batch import Batch, Pairs, Rows
from cutaway.training.data import characters
from cutaway.training.objectives import Objective, head_for, named, own
from cutaway.training.objectives.ragged import laid

PAGE = Path(__file__).resolve().parents[1] / "docs" / "objectives.md"
BEGIN, END = "<!-- learnt:begin -->", "<!-- learnt:end -->"
LENGTH, ROWS, RATE, CHECKS = 64, 16, 3e-3, 4
SPARE = 24  # ids for the end of text, the mask and marks: the characters' tokenizer has none
TINY: dict[str, Any] = {
    "width": 64, "table_width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 16, "hidden": 128,
    "context": 2 * LENGTH, "dropout": 0.0,
}  # fmt: skip
OTHERWISE: dict[str, dict[str, Any]] = {  # what must shrink with the rest
    "bigbird": {"block": 8},
    "deberta": {"distance": LENGTH},
    "deberta_v2": {"distance": LENGTH, "buckets": 16},
    "linformer": {"rank": 16},
    "longformer": {"windows": (16,)},
    "mamba2": {"state": 16},
    "performer": {"features": 32},
    "reformer": {
        "grid": (8, 16), "grid_widths": (16, 48), "local_chunk": 16, "lsh_chunk": 16, "hash_buckets": None, "rounds": 2,
    },
    "s4": {"state": 16},
    "transformerxl": {"cutoffs": (20, 60), "div": 2, "table_width": 64, "memory": LENGTH, "clamp": LENGTH},
}  # fmt: skip


@dataclass(frozen=True)
class Learnt:
    """One line of the table. Losses are per thing asked, on texts not trained on."""

    family: str
    preset: str
    objective: str
    parameters: int
    losses: dict[int, float]  # after so many steps, 0 too


class Texts:
    """Batches of one text, and of pairs, as characters; by number, the last twentieth held out."""

    def __init__(self, folder: Path) -> None:
        text = (folder / "tinyshakespeare.txt").read_text(encoding="utf-8")
        lines = (folder / "help-en-fr" / "train.tsv").read_text(encoding="utf-8").splitlines()
        short = [pair for line in lines if len(pair := line.split("\t")) == 2 and max(map(len, pair)) < LENGTH]
        self.tokenizer: Tokenizer = characters([text, *(side for pair in short for side in pair)])
        self.end = self.tokenizer.vocab_size
        self.ids = torch.tensor(self.tokenizer.encode(text))
        self.pairs = [[torch.tensor([*self.tokenizer.encode(s), self.end]) for s in pair] for pair in short]

    def batch(self, pairs: bool, draw: torch.Generator, held: bool = False) -> Rows | Pairs:
        total = len(self.pairs) if pairs else len(self.ids) - LENGTH
        cut = total * 19 // 20
        low, high = (cut + LENGTH, total) if held else (0, cut)
        starts = torch.randint(low, high, (ROWS,), generator=draw).tolist()
        if not pairs:
            return Rows(torch.stack([self.ids[start : start + LENGTH] for start in starts]))
        return Pairs(*(laid([self.pairs[i][side] for i in starts]) for side in (0, 1)))


def built(family: str, vocab: int) -> tuple[Any, str]:
    """The family's first preset, made tiny, with the head its objective needs."""
    module = families.get(family)
    preset = next(iter(module.PRESETS))
    sizes = {**TINY, "vocab": vocab, **OTHERWISE.get(family, {})}
    known = {f.name for f in fields(module.Sizes)}
    head = head_for("auto", family, module.PRESETS[preset])
    sizes = {name: size for name, size in sizes.items() if name in known} | ({} if head is None else {"head": head})
    return cutaway.build(preset, seed=0, **sizes), preset


def learn(family: str, texts: Texts, steps: Sequence[int] = (50,)) -> Learnt:
    """Steps of AdamW, and the loss after each of these numbers of them."""
    torch.manual_seed(0)
    model, preset = built(family, texts.tokenizer.vocab_size + SPARE)
    objective = named("auto", model, family, model.sizes, texts.tokenizer, eos=texts.end)
    name = own(family, model.sizes)
    parts = [model, *objective.modules.values()]
    parameters = list({id(p): p for part in parts for p in part.parameters() if p.requires_grad}.values())
    optimizer = torch.optim.AdamW(parameters, RATE)

    def made(draw: torch.Generator, held: bool = False) -> Batch:
        return objective.batch(texts.batch(name == "translation", draw, held), draw)

    losses = {0: measured(model, objective, made)}
    for step in range(1, max(steps) + 1):
        for part in parts:
            part.train()
        loss = objective.loss(model, made(torch.Generator().manual_seed(step)))
        (loss.total / loss.count).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step in steps:
            losses[step] = measured(model, objective, made)
    return Learnt(family, preset, name, sum(p.numel() for p in model.parameters()), losses)


@torch.no_grad()
def measured(model: Any, objective: Objective, made: Callable[..., Batch]) -> float:
    """The mean loss over held-out batches: always the same ones, spoilt in the same way."""
    for part in (model, *objective.modules.values()):
        part.eval()
    losses = [objective.loss(model, made(torch.Generator().manual_seed(1_000_000 + i), True)) for i in range(CHECKS)]
    return float(sum(loss.total for loss in losses) / sum(loss.count for loss in losses))


def table(lines: Sequence[Learnt]) -> list[str]:
    """In Markdown."""
    steps = sorted(lines[0].losses)[1:]
    head = "| family | preset, made tiny | objective | parameters | loss before |"
    rows = [head + "".join(f" after {step} |" for step in steps), "|---|---|---|--:|--:|" + "--:|" * len(steps)]
    for line in lines:
        losses = " | ".join(f"{line.losses[step]:.3f}" for step in (0, *steps))
        rows.append(f"| {line.family} | {line.preset} | {line.objective} | {line.parameters:,} | {losses} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--families", nargs="+", choices=families.FAMILIES)
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 300])
    chosen = parser.parse_args()
    texts = Texts(chosen.data)
    lines: list[Learnt] = []
    for family in chosen.families or families.FAMILIES:
        lines.append(learn(family, texts, chosen.steps))
        print("\n".join(table(lines)[0 if len(lines) == 1 else -1 :]), flush=True)
    if not chosen.families:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        written = "\n".join([BEGIN, *table(lines), END])
        PAGE.write_text(before + written + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()

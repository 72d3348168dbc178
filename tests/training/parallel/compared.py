"""Families in a layout of processes, each beside the same training undivided: how far losses, norms and weights are apart.

torchrun compared.py SHARD TENSOR FAMILY...   prints one JSON object: family -> [loss, norm, weights], or why not
"""

import dataclasses
import json
import sys

import torch
from tests.test_docs import script

from cutaway.errors import CutawayError
from cutaway.training.batch import Pairs, Rows
from cutaway.training.data import characters
from cutaway.training.loop import Trainer
from cutaway.training.objectives import named, own
from cutaway.training.parallel.divide import divide
from cutaway.training.parallel.mesh import laid_out
from cutaway.training.parallel.whole import whole
from cutaway.training.recipe import Loop, Optimizer, Parallel, Recipe, Schedule
from cutaway.training.world import joined

TABLE = script("objective_table")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .!"
STEPS = 3


class Data:
    """Random letters; each share of the world has some of the rows."""

    fingerprint = ""

    def __init__(self, world, pairs):
        self.world, self.pairs = world, pairs

    def __len__(self):
        return STEPS

    def batch(self, n):
        draw = torch.Generator().manual_seed(n)
        made = [Rows(torch.randint(len(LETTERS), (4, TABLE.LENGTH), generator=draw)[self.world.share :: self.world.shares])
                for _ in range(2)]  # fmt: skip
        return Pairs(*made) if self.pairs else made[0]


def run(family, world, recipe):
    tokenizer = characters([LETTERS])
    torch.manual_seed(0)
    model, _ = TABLE.built(family, tokenizer.vocab_size + TABLE.SPARE)
    more = {"generator": 0.5} if family == "electra" else {}  # of two heads
    objective = named("auto", model, family, model.sizes, tokenizer, eos=tokenizer.vocab_size, **more)
    divide(model, objective, recipe, world, "cpu")
    data = Data(world, own(family, model.sizes) == "translation")
    trainer = Trainer(model, objective, data, recipe, world=world)
    steps = [trainer.step(n) for n in range(1, STEPS + 1)]
    return steps, {name: whole(x) for name, x in trainer.weights.items()}


def far(a, b):
    return abs(a - b) / abs(a)


shard, tensor, *families = sys.argv[1:]
recipe = Recipe(
    optimizer=Optimizer(rate=1e-3, eps=1e-4),  # so that what is but rounding stays small
    schedule=Schedule(name="constant", warmup=0),
    loop=Loop(steps=STEPS),
    parallel=Parallel(shard=int(shard), tensor=int(tensor)),
)
found = {}
with joined() as world:
    divided = laid_out(world, recipe.parallel, "cpu")
    for family in families:
        try:
            ours, mine = run(family, divided, recipe)
        except CutawayError as error:
            found[family] = str(error)
            continue
        copies = dataclasses.replace(divided, mesh=None)  # of the whole model, which read the same rows
        theirs, whose = run(family, copies, recipe)
        pairs = list(zip(theirs, ours, strict=True))
        found[family] = [
            max(far(a.loss, b.loss) for a, b in pairs),
            max(far(a.norm, b.norm) for a, b in pairs),
            max(float((x - mine[name]).abs().max()) for name, x in whose.items()),
        ]
    if world.main:
        print(json.dumps(found, indent=1))

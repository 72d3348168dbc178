"""What is proven of each family, measured anew: behind the tables in the README and in docs/correctness.md."""

import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tests.families.oracles import FAMILIES, batches, counterpart_of, error, mutated, outputs, reference, worst_error
from tests.families.test_presets import as_rounded
from tests.families.test_sizes import PRESET, TINY
from torch import nn

import cutaway
from cutaway import families
from cutaway.parts import EncoderDecoder, State

BOUND = 1e-5
EQUATIONS = "equations"  # what a case says in place of a class of the reference library

# Of families that the reference library does not have: what is proven instead, or besides their equations, and where.
PROOF: dict[str, tuple[str, str]] = {
    "transformer": ("equals `torch.nn.Transformer`, both orders of norm", "tests/families/test_transformer.py"),
    "recurrent": ("equals `torch.nn.LSTM` and `torch.nn.GRU`, layers and cells", "tests/parts/test_recurrence.py"),
    "seq2seq": ("additive attention's equations; `torch.nn.LSTM` both ways", "tests/parts/test_recurrence.py"),
    "s4": ("convolution = recurrence = the system itself in float64", "tests/parts/test_s4.py"),
    "linear_transformer": ("recurrent = parallel, gradients too", "tests/parts/test_linear_attention.py"),
    "performer": ("unbiased, error falling as 1/√M; a reference package", "tests/parts/test_performer.py"),
    "linformer": ("equals a reference package", "tests/parts/test_lowrank.py"),
    "synthesizer": ("the paper's equations and parameter counts", "tests/parts/test_synthesizer.py"),
    "transformerxl": (
        "the reference that still had it; with memory = one long pass",
        "tests/families/test_transformerxl.py",
    ),
}
# Of families whose state is not all the past, so that cached is uncached only as far as it reaches.
DECODES = {
    "reformer": "as the reference decodes",
    "transformerxl": "as the reference, memory by memory",
    "xlnet": "as the reference, memory by memory",
}


@dataclass(frozen=True)
class Proof:
    """One row of the table."""

    family: str
    against: dict[str, str]  # by variant, the reference's class
    errors: dict[str, float]  # by variant, the largest error relative to the largest number
    mutants: dict[str, bool]  # by name, whether parity failed as it must
    same_bits: int  # variants of the reference library whose tensors are the same again after there and back
    own_layout: bool  # saved and loaded in our own layout, bit for bit
    published: int  # presets whose parameters are as many as published
    presets: int
    cached: float | str | None  # cached against uncached, or in words; None: it does not generate

    @property
    def by_reference(self) -> int:
        """Variants compared with the reference library."""
        return sum(model != EQUATIONS for model in self.against.values())

    @property
    def caught(self) -> int:
        return sum(self.mutants.values())


def prove(family: str) -> Proof:
    """Compares, mutates, saves, counts and generates."""
    module, cases = families.get(family), getattr(FAMILIES.get(family), "CASES", [])
    theirs = [case for case in cases if case.model != EQUATIONS]
    return Proof(
        family=family,
        against={case.variant: case.model for case in cases},
        errors={case.variant: worst_error(case) for case in cases},
        mutants=_mutants(family),
        same_bits=sum(map(_there_and_back, theirs)),
        own_layout=_own_layout(family),
        published=sum(_as_published(module, name, sizes) for name, sizes in module.PRESETS.items()),
        presets=len(module.PRESETS),
        cached=DECODES.get(family) or _cached(family),
    )


def _mutants(family: str) -> dict[str, bool]:
    """As `test_mutant_is_caught`: each in a fresh pair of its variant."""
    found = {}
    for name, mutate in getattr(FAMILIES.get(family), "MUTANTS", {}).items():
        case = mutated(family, name)
        torch.manual_seed(0)
        theirs = reference(case)
        ours = counterpart_of(case, theirs)
        mutate(ours)
        found[name] = error(*outputs(case, ours, theirs, next(batches()))) > BOUND
    return found


def _there_and_back(case: Any) -> bool:
    """Written by them, read and written by us: the same bits under the same names, but one tensor's second names."""
    torch.manual_seed(0)
    theirs: Any = reference(case)
    for module in theirs.modules():  # a head's bias has two names, whose tensors are equal in every real checkpoint
        if hasattr(module, "bias") and getattr(getattr(module, "decoder", None), "bias", None) is not None:
            module.bias = nn.Parameter(module.decoder.bias.detach().clone())
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "theirs", Path(folder) / "ours"
        theirs.save_pretrained(first)
        cutaway.convert(first, second)
        before, after = (_tensors(each, theirs.base_model_prefix) for each in (first, second))
    again = [name for name in before if name not in after]
    return all(torch.equal(before[name], after[name]) for name in after) and all(
        any(torch.equal(before[name], tensor) for tensor in after.values()) for name in again
    )


def _tensors(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """A bare model's names may carry the prefix that a model with a head gives them; the reference reads both."""
    files = (load_file(file) for file in folder.glob("*.safetensors"))
    return {name.removeprefix(f"{prefix}."): tensor for tensors in files for name, tensor in tensors.items()}


def tiny(family: str) -> nn.Module:
    """A small model of the family with random weights."""
    there = {f.name for f in fields(families.get(family).Sizes)}
    sizes = {name: value for name, value in TINY[family].items() if name in there}
    return cutaway.build(PRESET.get(family, family), **sizes, seed=0).eval()


def _own_layout(family: str) -> bool:
    model = tiny(family)
    with tempfile.TemporaryDirectory() as folder:
        saved = cutaway.save(model, Path(folder) / "x", layout="cutaway")
        again = cutaway.load(saved).model.state_dict()
    return all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def _as_published(module: Any, name: str, sizes: Any) -> bool:
    count = _count(module, sizes)
    return count == module.PARAMETERS.get(name) or as_rounded(name, count)


def _count(module: Any, sizes: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in module.compose(sizes).parameters())


@torch.no_grad()
def _cached(family: str) -> float | None:
    """One token at a time from a state against all at once: of the first variant that generates, or of a small model."""
    torch.manual_seed(4)
    pairs = ((case, reference(case)) for case in getattr(FAMILIES.get(family), "CASES", []))
    models = (counterpart_of(case, theirs) for case, theirs in pairs)
    model: Any = next((m for m in models if getattr(m, "causal", False)), None) or tiny(family)
    if not model.causal:
        return None
    ids = torch.randint(3, model.vocab, (2, 12), generator=torch.Generator().manual_seed(5))
    state = State(2, 12)
    if isinstance(model, EncoderDecoder):
        memory = model.encode(ids)
        pieces = [model.decode(piece, memory, state=state) for piece in ids.split(1, 1)]
        return error(torch.cat(pieces, 1), model.decode(ids, memory))
    return error(torch.cat([model(piece, state=state) for piece in ids.split(1, 1)], 1), model(ids))

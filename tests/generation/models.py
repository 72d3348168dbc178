"""Models to generate with: tiny ones beside their references, and one that says what it is told to."""

import functools

import torch
from tests.families.oracles import CASES, counterpart_of, reference
from torch import nn

from cutaway.parts.state import State

FAMILIES = {
    "llama": ("llama", "grouped keys"),
    "mistral": ("llama", "window (Mistral)"),
    "gpt2": ("gpt2", "as published"),
    "gpt": ("gpt", "as published"),
    "gptneox": ("gptneox", "side by side"),
    "mpt": ("mpt", "clipped"),
    "bloom": ("bloom", "as published"),
    "qwen2": ("qwen", "2"),
    "qwen3": ("qwen", "3, biases, windows"),
    "gemma2": ("gemma2", "as published"),
    "t5": ("t5", "1.0"),
    "flan": ("t5", "1.1 and Flan"),
    "mamba": ("mamba", "as published"),
    "mamba2": ("mamba2", "two groups"),
    "bart": ("bart", "BART"),
    "mbart": ("bart", "mBART"),
    "marian": ("bart", "Marian"),
    "pegasus": ("bart", "Pegasus"),
    "linear": ("linear_transformer", "decoder"),
    "performer": ("performer", "decoder"),
    "performer-relu": ("performer", "ReLU features"),
    "sparse": ("sparse_transformer", "strided, by turns"),
    "sparse-fixed": ("sparse_transformer", "fixed, in different heads, two groups"),
    "transformerxl": ("transformerxl", "as published"),
    "xlnet": ("xlnet", "from left to right"),
    "synthesizer": ("synthesizer", "all of them"),
    "synthesizer-both": ("synthesizer", "encoder-decoder"),
}

LOUDER = {
    "t5": {".o.weight": 6, ".wo.weight": 6},
    "bart": {".fc2.weight": 20, "_attn.out_proj.weight": 0.1, "embed_positions.weight": 4},
}


@functools.cache
def pair(name: str):
    """The reference and ours with its weights: random, with attention that is nearly decided."""
    torch.manual_seed(4)
    case = next(c for c in CASES if (c.family, c.variant) == FAMILIES[name])
    theirs = reference(case, lively=True)
    # else the embedding drowns what the layers say, or one token that all look at, and it repeats one token for ever
    with torch.no_grad():
        for parameter_name, p in theirs.named_parameters():
            if p.requires_grad:  # waves stay what they are
                p.mul_(next((by for end, by in LOUDER.get(case.family, {}).items() if parameter_name.endswith(end)), 1))
    for name in ("forced_bos_token_id", "forced_eos_token_id") if hasattr(theirs, "generation_config") else ():
        setattr(theirs.generation_config, name, None)
    return theirs, counterpart_of(case, theirs)


def prompts(seed: int = 0, lengths=(7, 3, 11, 1)) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 90, (n,), generator=generator).tolist() for n in lengths]


class Scripted(nn.Module):
    """Says token `script[row][t]` after t + 1 new tokens; then 0 for ever. Rows are known by their first token."""

    causal, max_positions = True, None

    def __init__(self, script: dict[int, list[int]], vocab: int = 300) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.script, self.vocab = script, vocab
        self.dropout = nn.Dropout(0.5)
        self.fed: list[tuple[int, ...]] = []

    def forward(self, ids, padding=None, *, state: State | None = None, last: bool = False):
        assert last
        assert not self.training
        self.fed.append(tuple(ids.shape))
        assert state is not None
        state.advance(ids.shape[1], padding)
        held = state.cells("script", lambda: {"first": ids[:, 0].clone(), "start": state.next.clone()})
        logits = torch.zeros(len(ids), 1, self.vocab)
        for row, (first, start, reached) in enumerate(zip(held["first"], held["start"], state.next, strict=True)):
            said = self.script[int(first)]
            step = int(reached - start)
            logits[row, 0, said[step] if step < len(said) else 0] = 5.0
        return logits


class Letters:
    """A tokenizer whose tokens are bytes, except that 200 is "ab" and 201 "bc"; 1 begins a text and 2 ends it."""

    bos_id, eos_ids = 1, {2}

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def stream(self):
        return Pieces()


class Pieces:
    def push(self, token: int) -> str:
        return {1: "", 2: "", 200: "ab", 201: "bc"}.get(token) or chr(token)

    def flush(self) -> str:
        return ""

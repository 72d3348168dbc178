"""Three architectures nobody published, each trained on a text for a few minutes and asked to go on with it.

    python scripts/compositions.py TEXT_FILE [--steps 300]

Prints the loss on text not trained on, before and after, in bits a byte, and what the model writes. A demonstration
that swapped parts learn and generate, not a recipe for training.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cutaway

SMALL = {"vocab": 256, "width": 128, "layers": 4, "heads": 4, "dropout": 0.0}
COMPOSITIONS: dict[str, dict[str, Any]] = {
    "a BERT's blocks with rotary positions, looking back, under a language head": {
        "preset": "transformer-decoder", "position": "rotary", "norm": "rms", "feedforward": "geglu", **SMALL,
    },
    "a GPT-2 with Mamba in every other block": {"preset": "gpt2", "mixer": ["attention", "mamba"], **SMALL},
    "a LLaMA with ALiBi, and linear attention in two blocks of three": {
        "preset": "smollm2-135m", "position": "alibi", "mixer": ["linear", "linear", "attention"], **SMALL,
    },
}  # fmt: skip
LENGTH, BATCH = 128, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    chosen = parser.parse_args()
    ids = torch.frombuffer(bytearray(chosen.text.read_bytes()), dtype=torch.uint8).long()
    train, held = ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]
    for name, made in COMPOSITIONS.items():
        made = dict(made)
        model = cutaway.build(made.pop("preset"), seed=0, **made)
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters")
        before, began = bits(model, held), time.perf_counter()
        fit(model, train, chosen.steps)
        spent = time.perf_counter() - began
        print(f"  bits a byte {before:.2f} -> {bits(model, held):.2f} in {chosen.steps} steps, {spent:.0f} s")
        prompt = list(b"ROMEO:\n")
        written = cutaway.generate(model, [prompt], max_new_tokens=120, temperature=0.8, top_k=20, seed=0)
        print("  " + bytes(prompt + written.ids[0]).decode(errors="replace").replace("\n", "\n  ") + "\n")


def batch(ids: Tensor, generator: torch.Generator) -> Tensor:
    starts = torch.randint(0, len(ids) - LENGTH - 1, (BATCH,), generator=generator)
    return torch.stack([ids[i : i + LENGTH + 1] for i in starts.tolist()])  # (B, T + 1)


def loss_of(model: nn.Module, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def fit(model: nn.Module, ids: Tensor, steps: int) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 30) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
        optimizer.zero_grad()
        loss_of(model, batch(ids, generator)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


@torch.no_grad()
def bits(model: nn.Module, ids: Tensor, batches: int = 8) -> float:
    generator = torch.Generator().manual_seed(1)
    return sum(loss_of(model, batch(ids, generator)).item() for _ in range(batches)) / batches / math.log(2)


if __name__ == "__main__":
    main()

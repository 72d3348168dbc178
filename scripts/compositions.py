"""Three architectures nobody published, each trained on a text by `cutaway train`'s own loop, and then asked to write.

    python scripts/compositions.py TEXT_FILE [--steps 300] [--out FOLDER]

Prints each one's first loss, its last on text not trained on, and what it writes: decoders go on with a prompt; the
encoder fills what is hidden, surest first, as Ghazvininejad et al. 2019 (arXiv:1904.09324). The runs stay in FOLDER,
where every other command can open them. A demonstration that swapped parts learn and write, no recipe.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

import cutaway
from cutaway.training import train
from cutaway.training.recipe import read
from cutaway.training.run import entries

SMALL = {"width": 128, "layers": 4, "heads": 4, "dropout": 0.0}
COMPOSITIONS: dict[str, dict[str, Any]] = {
    "a BERT with rotary positions, RMSNorm and GeGLU": {
        "preset": "bert-base", "position": "rotary", "norm": "rms", "feedforward": "geglu", "hidden": 512, **SMALL,
    },
    "a GPT-2 with Mamba in every other block": {"preset": "gpt2", "mixer": ["attention", "mamba"], **SMALL},
    "a LLaMA with ALiBi, and linear attention in two blocks of three": {
        "preset": "smollm2-135m", "position": "alibi", "mixer": ["linear", "linear", "attention"],
        "kv_heads": 4, "hidden": 512, **{k: v for k, v in SMALL.items() if k != "dropout"},
    },
}  # fmt: skip
PROMPT = "ROMEO:\n"
HIDDEN = "Now is the winter of our discontent\nMade glorious summer by this sun of York."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, help="where the runs are kept")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, model) in enumerate(COMPOSITIONS.items()):
            folder = (chosen.out or Path(scratch)) / str(number)
            encoder = model["preset"].startswith("bert")
            summary = train(recipe(chosen.text, model, chosen.steps, encoder), folder)
            first = next(entry["loss"] for entry in entries(folder / "log.jsonl") if "loss" in entry)
            print(f"{name}: {summary.parameters:,} parameters")
            print(f"  loss {first:.2f} -> {summary.valid:.2f} in {summary.step} steps, {summary.seconds:.0f} s")
            print("  " + (filled if encoder else continued)(folder).replace("\n", "\n  ") + "\n", flush=True)


def recipe(text: Path, model: dict[str, Any], steps: int, encoder: bool) -> Any:
    return read(
        {
            "data": {"path": str(text), "tokenizer": "wordpiece:2000" if encoder else "byte", "length": 128},
            "model": model,
            "optimizer": {"rate": 2e-3},
            "schedule": {"warmup": 30, "final": 0.05},
            "loop": {"steps": steps, "rows": 16},
        }
    )


def continued(folder: Path) -> str:
    written = cutaway.generate(cutaway.load(folder), PROMPT, max_new_tokens=120, temperature=0.8, top_k=20, seed=0)
    return PROMPT + written.texts[0]


@torch.no_grad()
def filled(folder: Path) -> str:
    """Every fifth token is hidden, and guessed one after another; what was guessed stands in brackets."""
    loaded = cutaway.load(folder)
    model, tokenizer = loaded.model, loaded.tokenizer
    assert tokenizer is not None and tokenizer.mask_id is not None  # noqa: PT018
    ids, mask = torch.tensor([tokenizer.encode(HIDDEN)]), tokenizer.mask_id
    asked = torch.arange(ids.shape[1]) % 5 == 3
    right, ids[0, asked] = ids.clone(), mask
    while (ids == mask).any():
        sure, guess = model(ids)[0].softmax(-1).max(-1)
        first = sure.where(ids[0] == mask, -1.0).argmax()
        ids[0, first] = guess[first]
    words = [tokenizer.decode([token]) for token in ids[0].tolist()]
    shown = " ".join(f"[{word}]" if hidden else word for word, hidden in zip(words, asked.tolist(), strict=True))
    return f"{shown.replace(' ##', '')}\n({int((ids == right)[0, asked].sum())} of {int(asked.sum())} as they were)"


if __name__ == "__main__":
    main()

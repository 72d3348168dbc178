"""Asks the reference's Transformer-XL, in a process whose `transformers` (4.57) still has it. No test by itself.

    python transformerxl_oracle.py make FOLDER       FOLDER/cases.json: [class, config] each; writes FOLDER/0, FOLDER/1, …
    python transformerxl_oracle.py answer FOLDER     of the checkpoints in FOLDER/*/ours

Both write `answers.pt` beside the weights: in one pass, segment by segment, and as the reference is called by default.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import logging
from transformers.models.deprecated.transfo_xl import modeling_transfo_xl as reference
from transformers.models.deprecated.transfo_xl.configuration_transfo_xl import TransfoXLConfig

SEGMENTS = (5, 7, 1, 1, 9)
logging.set_verbosity_error()
# it calls `type_as(dtype=…)`, which no torch has ever taken
_type_as = torch.Tensor.type_as
torch.Tensor.type_as = lambda x, other=None, dtype=None: x.to(dtype) if other is None else _type_as(x, other)


def ids() -> torch.Tensor:
    return torch.randint(0, 99, (2, sum(SEGMENTS)), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def answer(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    def nothing() -> list[torch.Tensor]:
        return [torch.zeros(0, len(ids()), model.config.d_model) for _ in range(model.config.n_layer)]

    memories, pieces = nothing(), []
    for piece in ids().split(SEGMENTS, 1):
        found = model(piece, mems=memories)
        memories = found.mems
        pieces.append(found[0])
    together = {"segments": torch.cat(pieces, 1)} if pieces[0].ndim == 3 else {}
    return {"whole": model(ids(), mems=nothing())[0], "default": model(ids())[0], **together}


def main(command: str, folder: Path) -> None:
    if command == "answer":
        for ours in folder.glob("*/ours"):
            kind = json.loads((ours / "config.json").read_text())["architectures"][0]
            torch.save(answer(getattr(reference, kind).from_pretrained(ours).eval()), ours / "answers.pt")
        return
    for i, (kind, config) in enumerate(json.loads((folder / "cases.json").read_text())):
        torch.manual_seed(i)
        model = getattr(reference, kind)(TransfoXLConfig(**config)).eval()
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.normal_(1.0 if name.endswith("layer_norm.weight") else 0.0, 0.1 if p.ndim == 1 else 0.3)
                if "qkv_net" in name:
                    p[: len(p) // 3].mul_(2)
        model.save_pretrained(folder / str(i), safe_serialization=False)
        torch.save(answer(model), folder / str(i) / "answers.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

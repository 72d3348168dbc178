"""What the model writes at each evaluation, so that one can read how it learns: `samples.txt`."""

from __future__ import annotations

import re

from cutaway.generation import generate
from cutaway.training.watch.watch import Start, Watch


class Samples(Watch):
    """Goes on from a prompt, always with the same luck, with the weights that are saved."""

    def __init__(self, prompt: str, tokens: int) -> None:
        self.prompt, self.tokens = prompt, tokens

    def began(self, start: Start) -> None:
        self.start, self.file = start, start.folder / "samples.txt"
        if self.file.exists():  # those of steps that are made anew are written anew
            blocks = re.split(r"^(?=── step )", self.file.read_text(encoding="utf-8"), flags=re.M)
            kept = [b for b in blocks if (step := re.match(r"── step (\d+)", b)) and int(step[1]) <= start.done]
            self.file.write_text("".join(kept), encoding="utf-8")

    def evaluated(self, step: int, loss: float) -> None:
        trainer, tokenizer = self.start.trainer, self.start.tokenizer
        model = trainer.model.eval()
        room = getattr(model, "max_positions", None)
        length = len(tokenizer.encode(self.prompt))
        count = self.tokens if room is None else max(1, min(self.tokens, room - length))
        with trainer.average.in_place():
            answer = generate(
                model, self.prompt, tokenizer=tokenizer, max_new_tokens=count, temperature=0.8, top_p=0.95, seed=0
            )
        (text,) = answer.texts or ("",)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(f"── step {step}, validation {loss:.4f}\n{self.prompt}{text}\n\n")

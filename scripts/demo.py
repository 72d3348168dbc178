"""`make demo`: the main job end to end, on two real models. Pictures go to `demo/`."""

from pathlib import Path

from cutaway.cli import cards, sources, talk
from cutaway.cli.output import console, opened
from cutaway.generation import stream
from cutaway.inspection import inspect
from cutaway.lab import card

PROMPT = "Write one sentence about the sea."
SENTENCES = ("A cat is sitting on the mat.", "A kitten rests on a rug.", "The stock market fell today.")
LOOK = "The cat sat on the mat because it was tired"
OUT = Path("demo")


def main() -> None:
    out = console()

    def heading(text: str) -> None:
        out.print(f"\n[bold reverse] {text} [/]\n", markup=True)

    heading("1  What it is")
    cards.show(card.of("smollm2"))

    heading("2  It answers")
    model = opened("smollm2")
    out.print(f"> {PROMPT}")
    ids = model.tokenizer.encode_chat([{"role": "user", "content": PROMPT}])
    pieces = stream(model, [ids], max_new_tokens=120)
    talk.say(pieces)
    result = pieces.result
    out.print(f"({result.tokens} tokens, {result.tokens_per_second:.1f} a second)")

    heading("3  Another compares sentences")
    vectors = sources.vectors_of(opened("minilm"), list(SENTENCES))
    sources.show_similarities(vectors, SENTENCES)

    heading("4  Where the first one looks")
    seen = inspect(model, LOOK)
    OUT.mkdir(exist_ok=True)
    picture = seen.save(OUT / "attention.png")
    page = seen.save(OUT / "attention.html")
    out.print(f"every layer and head of {LOOK!r}:\n  {picture}\n  {page}  (open it in a browser; it needs no network)")


if __name__ == "__main__":
    main()

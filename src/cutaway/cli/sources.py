"""`cutaway embed`, `cutaway inspect` and `cutaway convert`: what else to do with a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from cutaway.cli.output import Adapter, Dtype, Json, Source, busy, console, emit, opened, standard_input, table
from cutaway.errors import CutawayError

if TYPE_CHECKING:
    from torch import Tensor

Text = Annotated[str, Positional, arg(metavar="TEXT", help="What the model reads.", help_behavior_hint="")]


def embed(
    source: Source,
    texts: Annotated[
        tuple[str, ...],
        Positional,
        arg(metavar="TEXT...", help="Sentences; - reads one a line from standard input.", help_behavior_hint=""),
    ],
    *,
    dtype: Dtype = None,
    adapter: Adapter = None,
    json: Json = False,
) -> None:
    """Turn sentences into vectors, and show how similar they are (the cosine: 1 is the same meaning).

    A text longer than the model takes is cut there. Vectors have length 1, except where the model says otherwise.

    Example:
        cutaway embed minilm "A cat sits." "A kitten is sitting." "Stocks fell."

    With --json: {"embeddings" (one list a text), "similarities" (a matrix), "texts"}.
    """
    read = [line for line in standard_input().splitlines() if line] if texts == ("-",) else list(texts)
    if not read:
        raise CutawayError("embed needs at least one text")
    vectors = vectors_of(opened(source, dtype, adapter), read)
    if json:
        emit({"embeddings": vectors.tolist(), "similarities": cosines(vectors).tolist(), "texts": read})
    else:
        show_similarities(vectors, read)


def show_similarities(vectors: Tensor, texts: Sequence[str]) -> None:
    """The cosine of each pair, as a table."""
    similar = enumerate(zip(cosines(vectors).tolist(), texts, strict=True), start=1)
    rows = [(i, *(f"{x:.3f}" for x in row), text) for i, (row, text) in similar]
    table("", *(f"{i + 1}>" for i in range(len(texts))), "text", rows=rows)
    several = "vectors" if len(texts) > 1 else "vector"
    console().print(f"\n{len(texts)} {several} of width {vectors.shape[1]}; the cosine of each pair")


def cosines(vectors: Tensor) -> Tensor:
    """(B, B): of each pair of (B, D)."""
    from torch.nn.functional import normalize

    unit = normalize(vectors, dim=-1)
    return unit @ unit.T


def vectors_of(loaded: Any, texts: list[str]) -> Tensor:
    """(B, D) float32, as the model pools. A bare encoder's states are averaged and made of length 1.

    Texts are cut where the model's publisher cuts them, or at its last position.
    """
    import torch

    from cutaway.generation.subject import writes
    from cutaway.parts import EmbeddingHead, Mean, Model
    from cutaway.parts.call import context

    model = loaded.model
    if not isinstance(model, Model) or not (model.head is None or isinstance(model.head, EmbeddingHead)):
        task = "writes text" if writes(model) else f"has a {loaded.sizes.head} head"
        raise CutawayError(f"this {loaded.family} model {task}; embed takes an encoder of sentences, such as minilm")
    if loaded.tokenizer is None:
        raise CutawayError("this source has no tokenizer, so there is nothing to read texts with")
    longest = [n for n in (loaded.tokenizer.max_length, model.max_positions) if n is not None]
    ids, padding = loaded.tokenizer.encode_batch(texts, max_length=min(longest, default=None))
    with torch.no_grad():
        out = model(ids, padding)
        if model.head is None:
            out = EmbeddingHead(Mean())(out, context(model.vocab, ids, padding, None, None, None))
    return out.float()


def inspect(
    source: Source,
    text: Text,
    *,
    out: Path = Path("inspect.html"),
    target: Annotated[
        str | None, arg(metavar="TEXT", help="What the decoder reads, in an encoder-decoder.", help_behavior_hint="")
    ] = None,
    theme: Literal["light", "dark"] = "light",
    dtype: Dtype = None,
    adapter: Adapter = None,
    json: Json = False,
) -> None:
    """Draw where each layer and head looks in a text, what the model expects next, and how it knows positions.

    Examples:
        cutaway inspect minilm "The cat sat on the mat because it was tired." --out cat.html
        cutaway inspect smollm2 "The capital of France is" --out france.png

    An .html page stands alone and opens without a network; .png and .svg show every layer and head at a glance.
    With --json: {"out", "tokens", "attention" (of each kind: layers, heads)}.

    Args:
        out: Where to write: .html, .png or .svg.
        theme: Of a .png or .svg; a page follows the reader's system.
    """
    from cutaway.inspection import inspect as look

    loaded = opened(source, dtype, adapter)
    with busy("drawing"):
        found = look(loaded, text, target)
        path = found.save(out, theme=theme)
    if not json:
        console().print(f"wrote {path}", soft_wrap=True, markup=False)
        return
    kinds = {kind: {"layers": len(p.layers), "heads": len(p.heads)} for kind, p in found.patterns.items()}
    emit({"out": str(path), "tokens": list(found.tokens), "attention": kinds})


def convert(
    source: Source,
    folder: Annotated[
        Path, Positional, arg(metavar="FOLDER", help="Where to write; made if it is not there.", help_behavior_hint="")
    ],
    *,
    dtype: Dtype = None,
    adapter: Adapter = None,
    overwrite: bool = False,
    json: Json = False,
) -> None:
    """Write a model as a folder in the Hugging Face layout: config, safetensors, tokenizer. transformers reads it too.

    A LoRA adapter becomes part of the weights.

    Examples:
        cutaway convert smollm2 ./smollm2-hf --dtype bfloat16
        cutaway convert smollm2 ./pirate-hf --adapter runs/pirate

    With --json: {"folder", "family", "parameters", "files"}.

    Args:
        overwrite: Replace a checkpoint that is there already. A folder that holds anything else is never touched.
    """
    from cutaway import api
    from cutaway.checkpoints.folder import check_target
    from cutaway.parts import lora

    check_target(folder, overwrite)  # before the work of loading
    loaded = opened(source, dtype, adapter)
    lora.merge(loaded.model)
    api.save(loaded, folder, overwrite=overwrite)
    files = sorted(p.name for p in folder.iterdir())
    parameters = sum(p.numel() for p in loaded.model.parameters())
    if json:
        emit({"folder": str(folder), "family": loaded.family, "parameters": parameters, "files": files})
    else:
        console().print(
            f"wrote {parameters:,} parameters to {folder}: {', '.join(files)}", soft_wrap=True, markup=False
        )

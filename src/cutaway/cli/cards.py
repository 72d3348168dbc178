"""`cutaway models` and `cutaway card`: what there is, and what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from cutaway.cli.output import Json, console, emit, size, table
from cutaway.cli.usage import OptionalInt

if TYPE_CHECKING:
    from cutaway.lab.card import Card


Swap = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")]


def models(*, json: Json = False) -> None:
    """The families, their presets, and the parameter counts their authors published.

    Example:
        cutaway models
    """
    from cutaway import families

    found = {name: families.get(name) for name in families.FAMILIES}
    if json:
        listed = {
            name: {"identity": _identity(module), "presets": {p: module.PARAMETERS.get(p) for p in module.PRESETS}}
            for name, module in found.items()
        }
        emit({"families": listed})
        return
    for name, module in found.items():
        console().print(f"[bold]{name}[/bold]  {_identity(module)}", soft_wrap=True)
        rows = [(f"  {p}", f"{module.PARAMETERS[p]:,}" if p in module.PARAMETERS else "–") for p in module.PRESETS]
        table("  preset", "published parameters>", rows=rows)
        print()


def card(
    model: Annotated[
        str,
        Positional,
        arg(
            metavar="PRESET_OR_SOURCE",
            help="A preset (`cutaway models` lists them), or where a model is: a folder, a .gguf file, a hub id, "
            "smollm2 or minilm.",
            help_behavior_hint="",
        ),
    ],
    *,
    context: OptionalInt = None,
    batch: int = 1,
    diff: Annotated[
        str | None,
        arg(
            metavar="PRESET_OR_SOURCE",
            help="Another model: say in words, part by part, where the two differ.",
            help_behavior_hint="",
        ),
    ] = None,
    position: Swap = None,
    norm: Swap = None,
    feedforward: Swap = None,
    mixer: Swap = None,
    embedding: Swap = None,
    json: Json = False,
) -> None:
    """What a model is: its parts, its sizes, and the memory and work it takes. Loads no weights.

    Examples:
        cutaway card bert-base
        cutaway card llama-65b --context 2048 --batch 8
        cutaway card gpt2 --diff llama-7b
        cutaway card gpt2 --mixer attention,window:256 --position rotary --diff gpt2

    With --json: the card; with --diff: {"a", "b" (the two cards), "differing": {part: [in a, in b]}, "alike": [part]}.

    Args:
        context: Tokens looked back at. The model's longest if not given.
        batch: Sequences at once, for the KV cache.
        position: Other positions than the preset's own: none, learned, sinusoidal, rotary, alibi, t5.
        norm: Another norm: layer, rms, std.
        feedforward: Another feed-forward network: relu, relu2, gelu, gelu_tanh, silu, swiglu, geglu, reglu.
        mixer: Another mixer of tokens, or several to take turns: attention,window:256. A wrong name lists all.
        embedding: What is added to the embeddings: ngrams:5, of up to five tokens together.
    """
    from cutaway.lab import card as cards
    from cutaway.lab.anatomy import differences

    chosen = {"position": position, "norm": norm, "feedforward": feedforward, "mixer": mixer and mixer.split(",")}
    chosen["embedding"] = embedding
    swaps = {kind: name for kind, name in chosen.items() if name}
    found = cards.of(model, context=context, batch=batch, swaps=swaps)
    if diff is None:
        emit(found.json()) if json else show(found)
        return
    other = cards.of(diff, context=context, batch=batch)
    differing, alike = differences(found.parts, other.parts)
    if json:
        pairs = {part: [a, b] for part, a, b in differing}
        emit({"a": found.json(), "b": other.json(), "differing": pairs, "alike": alike})
    else:
        show_differences(found, other, differing, alike)


def _identity(module: object) -> str:
    return (module.__doc__ or "").strip().splitlines()[0]


def show_differences(a: Card, b: Card, differing: list[tuple[str, str, str]], alike: list[str]) -> None:
    """Where two models differ, part by part."""
    of_a, of_b = (card.name + "".join(f", {kind} swapped" for kind in card.swaps) for card in (a, b))
    rows = [*differing, ("parameters", f"{a.parameters:,}", f"{b.parameters:,}")]
    table("", of_a, of_b, rows=rows)
    said = f"Alike: {', '.join(alike)}." if alike else "No part is alike."
    console().print(f"\n{said if differing else 'No part differs.'}", soft_wrap=True)


def show(card: Card) -> None:
    """A card for people."""
    out = console()
    out.print(f"[bold]{card.name}[/bold]  ({card.family})")
    out.print(card.identity + "\n", soft_wrap=True)
    published = ""
    if card.published_parameters is not None:
        published = "  = published" if card.published_parameters == card.parameters else "  ≠ published"
    rows = [
        ("parameters", f"{card.parameters:,}{published}"),
        ("layers", card.layers),
        ("width", card.width),
        ("FLOPs a token", f"{card.flops_per_token:,}"),
    ]
    if card.flops_per_source_token is not None:
        rows.append(("FLOPs a source token", f"{card.flops_per_source_token:,}"))
    rows.append(("AdamW state", size(card.adamw)))
    table("", "", rows=rows)
    print()
    cache = card.kv_cache or {}
    rows = [(dtype, size(n), size(cache[dtype]) if cache else "none") for dtype, n in card.weights.items()]
    table("memory", "weights>", "KV cache or state>", rows=rows)
    sequences = "a sequence" if card.batch == 1 else f"{card.batch} sequences"
    out.print(f"(FLOPs and cache for {sequences} of {card.context:,} tokens)\n")
    table("part", "what it is", rows=list(card.parts.items()))
    print()
    out.print(", ".join(f"{key} {value}" for key, value in card.sizes.items()), markup=False)

"""What a model is made of, in words, part by part; and where two models differ.

Read off the composed modules themselves, so that a swapped part, or a family made tomorrow, is described as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from cutaway import parts
from cutaway.attention import Mask
from cutaway.attention.masks import Both, Causal, Either, Full, Window
from cutaway.parts import Attention, EncoderDecoder, Model, Parallel, PostNorm, PreNorm, Sandwich, Stack

Words = dict[str, str]


def anatomy(model: Model | EncoderDecoder) -> Words:
    """Each part of the model and what it is: {"positions": "rotary, base 10,000", "feed-forward": …}, in reading order."""
    found: Words = {}
    if isinstance(model, EncoderDecoder):
        found |= {f"encoder {name}": words for name, words in _stack(model.encoder).items()}
        found |= {f"decoder {name}": words for name, words in _stack(model.decoder).items()}
    else:
        found |= _stack(model.stack)
    found["head"] = "none" if model.head is None else describe(model.head)
    if getattr(model, "pooler", None) is not None:
        found["pooler"] = describe(model.pooler)  # type: ignore[arg-type]
    return found


def differences(a: Words, b: Words) -> tuple[list[tuple[str, str, str]], list[str]]:
    """What differs, as (part, in a, in b), and the names of the parts that are alike."""
    names = [*a, *(name for name in b if name not in a)]
    differing = [(n, a.get(n, "none"), b.get(n, "none")) for n in names if a.get(n) != b.get(n)]
    return differing, [name for name in names if a.get(name) == b.get(name)]


def _stack(stack: Stack) -> Words:
    embedding = stack.embedding
    found = {"tokens": f"{embedding.tokens.num_embeddings:,} of width {embedding.tokens.embedding_dim:,}"}
    if getattr(embedding, "scale", 1.0) != 1.0:
        found["tokens"] += f", times {embedding.scale:.4g}"
    if getattr(embedding, "project", None) is not None:
        found["tokens"] += f", projected to {embedding.width:,}"
    steps = [describe(step) for step in getattr(embedding, "steps", ()) if not isinstance(step, parts.Dropout)]
    found["embedding steps"] = ", then ".join(steps) or "none"
    blocks = list(stack.blocks)
    distinct = len({id(block) for block in blocks})
    found["blocks"] = f"{len(blocks)}" if distinct == len(blocks) else f"{len(blocks)}, sharing {distinct}"
    aspects = [_block(block) for block in blocks]
    for name in dict.fromkeys(name for block in aspects for name in block):
        found[name] = _where([block.get(name, "none") for block in aspects])
    found["last norm"] = "none" if isinstance(stack.norm, parts.Dropout | None) else describe(stack.norm)
    return found


def _block(block: nn.Module) -> Words:
    """A block's sublayers: what each computes, and how it is joined to the residual stream."""
    found: Words = {"sublayers": "side by side: x + f(norm(x)) + g(norm(x))"} if isinstance(block, Parallel) else {}
    for name, sublayer in block.named_children():
        inner = getattr(sublayer, "inner", None)
        if not isinstance(inner, nn.Module):
            found[name] = describe(sublayer)
            continue
        if isinstance(inner, Attention):
            found |= {f"{name} {aspect}".strip(): words for aspect, words in _attention(inner).items()}
        else:
            found[name] = describe(inner)
        found[f"{name} norm"] = _residual(sublayer)
    return found


def _residual(sublayer: nn.Module) -> str:
    match sublayer:
        case PreNorm():
            return f"{describe(sublayer.norm)}, before: x + f(norm(x))"
        case PostNorm():
            return f"{describe(sublayer.norm)}, after: norm(x + f(x))"
        case Sandwich():
            return f"{describe(sublayer.before)}, on both sides: x + norm(f(norm(x)))"
    return describe(sublayer, leaving_out=("inner",))


def _where(values: list[str]) -> str:
    """One value for all blocks, or each with the blocks that have it."""
    kinds: dict[str, list[int]] = {}
    for i, value in enumerate(values):
        kinds.setdefault(value, []).append(i)
    if len(kinds) == 1:
        return values[0]
    if len(kinds) > 4:  # differs from block to block, as GPT-2's scale by layer can
        first, last = values[0], values[-1]
        return f"{first} in block 0, … {last} in block {len(values) - 1}"
    return "; ".join(f"{value} in {_some(places)}" for value, places in kinds.items())


def _some(blocks: list[int]) -> str:
    shown = ", ".join(map(str, blocks[:3]))
    return f"block{'s' if len(blocks) > 1 else ''} {shown}{', …' if len(blocks) > 3 else ''}"


def describe(part: nn.Module, leaving_out: tuple[str, ...] = ()) -> str:
    """One part in words."""
    special = _SPECIAL.get(type(part))
    if special is not None:
        return special(part)
    settings = ", ".join(_settings(part, leaving_out))
    name = "ALiBi" if isinstance(part, parts.ALiBi) else _spaced(type(part).__name__)
    return f"{name} ({settings})" if settings else name


def _settings(part: nn.Module, leaving_out: tuple[str, ...]) -> Iterator[str]:
    """What a part was made with, where it keeps it under the argument's name and it is not the default."""
    for name, argument in inspect.signature(type(part).__init__).parameters.items():
        value = getattr(part, name, None)
        if name in ("self", "width", "vocab", "dropout", "count", *leaving_out) or value == argument.default:
            continue
        if value is True:
            yield name.replace("_", " ")
        elif isinstance(value, Mask):
            yield looks(value)
        elif isinstance(value, (int, float, str)) and value is not False:
            yield f"{name.replace('_', ' ')} {_number(value)}"


def _attention(a: Any) -> Words:
    """Attention, aspect by aspect."""
    heads = f"{a.heads} heads of {a.head_width}" if a.heads > 1 else f"1 head of {a.head_width}"
    if a.kv_heads != a.heads:
        heads += f", {a.kv_heads} of keys and values"
    turned = [describe(step) + _partly(step, a.head_width) for step in a.q_steps]
    scores = [] if a.score_bias is None else [f"plus {describe(a.score_bias)}"]
    if abs(a.scale - a.head_width**-0.5) > 1e-9:
        scores.append(f"times {a.scale:.4g} instead of {a.head_width**-0.5:.4g}")
    if a.softcap is not None:
        scores.append(f"capped softly at {a.softcap:g}")
    biased = [name for name in ("q", "k", "v", "out") if getattr(a, name).bias is not None]
    values = {"turns values": ", then ".join(describe(step) for step in a.v_steps)} if a.v_steps else {}
    return {
        "": heads,
        "sees": "the encoder's output" if a.cross else looks(a.mask),
        "turns queries and keys": ", then ".join(turned) or "no",
        **values,
        "scores": ", ".join(scores) or "q·k scaled by the head's width",
        "biases": {4: "yes", 0: "no"}.get(len(biased), f"on {', '.join(biased)}"),
    }


def _partly(step: nn.Module, head_width: int) -> str:
    width = getattr(step, "width", head_width)
    return f" on {width} of {head_width} numbers" if isinstance(step, parts.Rotary) and width < head_width else ""


def looks(mask: Mask) -> str:
    """Who looks at whom."""
    match mask:
        case Full():
            return "all look at all"
        case Causal():
            return "causal"
        case Window():
            return f"fewer than {mask.size} positions apart"
        case Both(Causal(), Window(size=size)):
            return f"causal, the last {size:,} tokens"
        case Both():
            return f"{looks(mask.a)}, and {looks(mask.b)}"
        case Either():
            return f"{looks(mask.a)}, or {looks(mask.b)}"
    return repr(mask)


def _feedforward(part: Any) -> str:
    gate = "gated, " if isinstance(part, parts.Gated) else ""
    bias = "biases" if part.up.bias is not None else "no biases"
    act = next((name for name, act in parts.ACTIVATIONS.items() if act is part.act), "activation")
    return f"{gate}{act}, hidden width {part.up.out_features:,}; {bias}"


def _norm(part: Any) -> str:
    bias = ", no bias" if isinstance(part, parts.LayerNorm) and part.bias is None else ""
    offset = f", times {part.offset:g} + g" if isinstance(part, parts.RMSNorm) and part.offset else ""
    return f"{type(part).__name__} (ε {part.eps:g}{bias}{offset})"


def _language_head(part: Any) -> str:
    tie = "tied to the embedding" if isinstance(part.tokens, nn.Embedding) else "a table of its own"
    transform = "" if part.transform is None else ", after a transform"
    bias = "" if part.bias is None else ", a bias"
    cap = "" if part.softcap is None else f"; capped softly at {part.softcap:g}"
    return f"vocabulary; {tie}{transform}{bias}{cap}"


def _rotary(part: Any) -> str:
    scaled = f", scaled: {part.kind}" if part.kind != "default" else ""
    return f"rotary (base {part.base:,.10g}{scaled})"


def _disentangled(part: Any) -> str:
    names = {"content to position": part.c2p, "position to content": part.p2c}
    said = " and ".join(name for name, there in names.items() if there) or "nothing of position"
    far = f" up to {part.table.max_distance:,}" if part.table.max_distance else ""
    return f"{said}, {part.table.span:,} distances{far} to each side"


def _relative(part: Any) -> str:
    clamp = "" if part.distances.clamp is None else f" up to {part.distances.clamp:,}"
    return f"relative positions{clamp} (u, v){', relative segments' if part.segments is not None else ''}"


_SPECIAL: dict[type, Callable[[Any], str]] = {
    Attention: lambda part: "; ".join(filter(None, _attention(part).values())),
    parts.FeedForward: _feedforward,
    parts.Gated: _feedforward,
    parts.LayerNorm: _norm,
    parts.RMSNorm: _norm,
    parts.StdNorm: _norm,
    parts.LanguageHead: _language_head,
    parts.Rotary: _rotary,
    parts.AdaptiveSoftmax: lambda part: f"vocabulary; adaptive, of {len(part.clusters)} clusters",
    parts.Disentangled: _disentangled,
    parts.NGrams: lambda part: f"convolution over {part.conv.kernel_size[0]} neighbours",
    parts.RelativeScores: _relative,
    parts.LearnedPositions: lambda part: f"{part.count:,} learned positions",
    parts.HashedNGrams: lambda part: f"up to {len(part.tables) + 1} tokens together, hashed into {part.buckets:,} rows",
    parts.Narrow: lambda part: f"{describe(part.norm)}, back from float32",
    parts.SinusoidalPositions: lambda part: "sinusoidal positions",
    parts.Segments: lambda part: f"{part.weight.shape[0]} segments",
}


def _spaced(name: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() and i and name[i - 1].islower() else c for i, c in enumerate(name))


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)

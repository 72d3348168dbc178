"""A model's card: what it is, and the memory and work it takes, from its sizes alone.

The model is built on PyTorch's `meta` device, so a card of 175 billion parameters takes no memory and no download.

    weights         parameters · bytes of the dtype
    AdamW state     two float32 moments a parameter (Loshchilov and Hutter 2019): 8 · parameters
    KV cache        what a row of `context` tokens leaves behind, as allocated: for attention
                    Σ over sites 2 · B · G · min(context, window) · E · bytes of the dtype; for an SSM a constant
    FLOPs a token   2 · (elements of the matrices a token goes through) + Σ over sites 4 · H · E · min(context, window)

The last one is a forward pass for one token that looks at `context` keys, as in Chowdhery et al. 2022 (PaLM,
arXiv:2204.02311, appendix B), but counting matrices only: table look-ups, norms and additions are left out.
A training step takes three times as much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cutaway import families
from cutaway.checkpoints import PACKAGES, open_source
from cutaway.checkpoints.compose import compose
from cutaway.errors import ConfigError
from cutaway.lab.anatomy import Words, anatomy
from cutaway.parts import Attention, DetectionHead, EncoderDecoder, LanguageHead, Model, State, TokenHead
from cutaway.parts.state import KV

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
DEFAULT_CONTEXT = 512  # where a family has no longest context of its own


@dataclass(frozen=True)
class Card:
    """What `describe` found. Bytes are bytes; `kv_cache` is None for an encoder, which remembers nothing."""

    name: str
    family: str
    identity: str  # the family's one line
    sizes: dict[str, Any]
    swaps: dict[str, Any]
    parts: Words  # what each part is, in words
    parameters: int
    published_parameters: int | None  # of the preset, where it is one
    layers: int  # blocks; an encoder's and a decoder's together
    width: int
    context: int
    batch: int
    weights: dict[str, int]  # dtype -> bytes
    adamw: int
    kv_cache: dict[str, int] | None  # dtype -> bytes
    flops_per_token: int
    flops_per_source_token: (
        int | None
    )  # an encoder-decoder's other half: encoder, and cross-attention's keys and values

    def json(self) -> dict[str, Any]:
        """The card as plain data."""
        return asdict(self)


def describe(
    family: str,
    sizes: Any,
    *,
    name: str | None = None,
    context: int | None = None,
    batch: int = 1,
    swaps: Mapping[str, Any] | None = None,
) -> Card:
    """The card of a family's sizes.

    Args:
        family: a name from `cutaway.families.FAMILIES`.
        sizes: that family's `Sizes`.
        name: how to call it; a preset's name also tells the published count.
        context: keys a token looks at (and source tokens); the model's longest by default.
        batch: sequences in the cache, B.
        swaps: parts in the place of the family's own, as for `cutaway.build`.

    Raises:
        ConfigError: context or batch below 1, or longer than the model has positions; parts that cannot be.
    """
    module = families.get(family)
    model: Any = compose(family, sizes, name or family, torch.device("meta"), swaps).eval()
    if context is None:
        context = int(getattr(sizes, "context", DEFAULT_CONTEXT))
    if context < 1 or batch < 1:
        raise ConfigError(f"context and batch are at least 1, not {context} and {batch}")
    if model.max_positions is not None and context > model.max_positions:
        raise ConfigError(f"the model has {model.max_positions} positions, fewer than a context of {context}")
    parameters = sum(p.numel() for p in model.parameters())
    cache = _cached_elements(model, context) * batch if model.causal else None
    target, source = _flops(model, context)
    return Card(
        name=name or family,
        family=family,
        identity=(module.__doc__ or "").strip().splitlines()[0],
        sizes=asdict(sizes),
        swaps=dict(swaps or {}),
        parts=anatomy(model),
        parameters=parameters,
        published_parameters=None if swaps else module.PARAMETERS.get(name),
        layers=sum(len(blocks) for blocks in _blocks(model)),
        width=model.width,
        context=context,
        batch=batch,
        weights={dtype: parameters * width for dtype, width in BYTES.items()},
        adamw=8 * parameters,
        kv_cache=None if cache is None else {dtype: cache * width for dtype, width in BYTES.items()},
        flops_per_token=target,
        flops_per_source_token=source,
    )


def of(model: str, *, context: int | None = None, batch: int = 1, swaps: Mapping[str, Any] | None = None) -> Card:
    """The card of a preset, or of any source that `cutaway.load` takes; its weights are not read.

    A name that is both (`gpt2` is a preset and may be a folder) is the folder. Only a preset's parts can be swapped.

    Raises:
        SourceError: it is neither.
        ConfigError: parts that cannot go together, or swaps for a model that has its weights already.
    """
    local = Path(model).expanduser().exists() or model.lower() in PACKAGES
    if not local and "/" not in model:
        family = families.by_preset(model)
        chosen = families.get(family).PRESETS[model]
        return describe(family, chosen, name=model, context=context, batch=batch, swaps=swaps)
    if swaps:
        raise ConfigError(f"{model} has trained weights, whose parts cannot be swapped; choose a preset")
    opened = open_source(model)
    return describe(opened.family, opened.sizes, name=model, context=context, batch=batch, swaps=opened.swaps)


def _blocks(model: Model | EncoderDecoder) -> list[nn.ModuleList]:
    if isinstance(model, EncoderDecoder):
        return [model.encoder.blocks, model.decoder.blocks]
    return [model.stack.blocks]


def _sites(blocks: nn.ModuleList) -> Iterator[Attention]:
    return (m for m in _as_run(blocks) if isinstance(m, Attention))


def _keys(site: Attention, context: int) -> int:
    window = None if site.cross else site.mask.window
    return context if window is None else min(window, context)


def _cached_elements(model: Model | EncoderDecoder, context: int) -> int:
    """Elements that one sequence of `context` tokens leaves behind, cross-attention's too: one token is run on `meta`."""
    ids = torch.zeros((1, 1), dtype=torch.int64, device="meta")
    state = State(1, context, device="meta")
    with torch.no_grad():
        if isinstance(model, EncoderDecoder):
            model(ids.expand(1, context), ids, state=state)
        else:
            model(ids, state=state)
    held = ((x, held) for held in state.sites.values() for x in held.tensors())
    # of a buffer's slots one is a bin for padding
    return sum(x.numel() // x.shape[2] * (x.shape[2] - 1) if isinstance(h, KV) else x.numel() for x, h in held)


def _flops(model: Model | EncoderDecoder, context: int) -> tuple[int, int | None]:
    """FLOPs a (target) token, and a source token where there is an encoder beside."""
    *encoder, blocks = _blocks(model)
    stack = model.decoder if isinstance(model, EncoderDecoder) else model.stack
    matrices = _matrices(stack.embedding) + _matrices(blocks) + _head(model.head)
    crossed = sum(site.k.weight.numel() + site.v.weight.numel() for site in _sites(blocks) if site.cross)
    target = 2 * (matrices - crossed) + _mixing(blocks, context)
    if not encoder:
        return target, None
    return target, 2 * (_matrices(encoder[0]) + crossed) + _mixing(encoder[0], context)


def _matrices(module: nn.Module) -> int:
    return sum(m.weight.numel() for m in _as_run(module) if isinstance(m, nn.Linear))


def _as_run(module: nn.Module) -> Iterator[nn.Module]:
    """The modules inside, one that stands in several places as often."""
    return (m for _, m in module.named_modules(remove_duplicate=False))


def _mixing(blocks: nn.ModuleList, context: int) -> int:
    return sum(4 * site.heads * site.head_width * _keys(site, context) for site in _sites(blocks))


def _head(head: nn.Module | None) -> int:
    """The matrices of a head that reads every token; one that reads a pooled vector costs next to nothing a token."""
    if isinstance(head, LanguageHead):
        transform = 0 if head.transform is None else _matrices(head.transform)
        return head.tokens.weight.numel() + transform
    return _matrices(head) if isinstance(head, (TokenHead, DetectionHead)) else 0

"""What mixers that are no softmax attention have in common: they read a call meant for `Attention`, or say why they cannot."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.attention import Full, Mask
from cutaway.axes import Float
from cutaway.errors import ConfigError


def wide(x: Tensor) -> Tensor:
    """Sums over a long text lose too much in half precision: float32 or better."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def split_heads(x: Float[Tensor, "b t he"], heads: int) -> Float[Tensor, "b h t e"]:
    """What a projection gives for all heads, head by head."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def reads_causally(mask: Mask) -> bool:
    """Whether a mixer that can only look everywhere or back is to look back.

    Raises:
        ConfigError: the mask asks for something between.
    """
    if not mask.causal and not isinstance(mask, Full):
        raise ConfigError(f"this mixer looks at all tokens or at the past; it cannot follow {mask!r}")
    return mask.causal


def check_heads(width: int, heads: int, kv_heads: int | None, head_width: int | None) -> tuple[int, int]:
    """G and E of an attention of that shape, as `Attention` counts them."""
    kv_heads = heads if kv_heads is None else kv_heads
    if heads < 1 or kv_heads < 1 or heads % kv_heads:
        raise ConfigError(f"{heads} query heads cannot share {kv_heads} key/value heads: H is a multiple of G")
    if head_width is None and width % heads:
        raise ConfigError(f"width {width} does not divide into {heads} heads; give head_width")
    return kv_heads, head_width or width // heads


def no_logits(score_bias: nn.Module | None, what: str) -> None:
    """Refuses a position bias where there is nothing to add it to."""
    if score_bias is not None:
        raise ConfigError(f"{what} has no logits for {type(score_bias).__name__} to add to; choose another position")

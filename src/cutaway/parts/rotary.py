"""Rotary position embedding: queries and keys turn by an angle that grows with position (Su et al. 2021, section 3.2).

The pair (x, y) at position p becomes (x cos pω - y sin pω, x sin pω + y cos pω), so that q·k depends on p - p' alone.
Pair i turns at ω_i = base^(-2i/R) over the first R of the head's E numbers. Pairs are (i, i + R/2) in LLaMA's published
weights ("half-split") or neighbours (2i, 2i + 1) as in the paper ("interleaved"); position 0 looks right with either.

Longer texts than in training (`scaling`, spelled as in published configurations):

    linear    ω / factor                                                    Chen et al. 2023
    dynamic   base grows with the length once it exceeds the trained one    "NTK-aware", bloc97 2023
    yarn      fast pairs as they are, slow ones / factor, a ramp between     Peng et al. 2023, section 3
    llama3    the same idea by wavelength                                   Llama 3.1, 2024
    factors   each ω_i divided by its own published number                  GGUF's `rope_freqs`

Under `dynamic` each row's base follows its own length, so that a batch equals its rows alone (elsewhere the longest row
decides for all); keys that are cached keep the turn they had when they were written, as elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.axes import Float
from cutaway.errors import ConfigError
from cutaway.parts.context import Context

# what each kind of scaling reads, and what it takes where a configuration is silent (... must be given)
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": ...},
    "dynamic": {"factor": ..., "original_max_position_embeddings": ...},
    "yarn": {
        "factor": ...,
        "original_max_position_embeddings": ...,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "attention_factor": None,
        "mscale": None,
        "mscale_all_dim": None,
        "truncate": True,
    },
    "llama3": {"factor": ..., "low_freq_factor": ..., "high_freq_factor": ..., "original_max_position_embeddings": ...},
    "factors": {"factors": ...},
}


class Rotary(nn.Module):
    """A step for queries and keys: turns x (B, H, T, E) by `ctx.pos`. Angles are float32 or better in every dtype.

    Args:
        head_width: E.
        base: the θ of ω_i = θ^(-2i/R).
        width: R, how many of the E numbers turn (partial rotary); `None` is all.
        interleaved: pairs are neighbours instead of halves.
        scaling: a published `rope_scaling` / `rope_parameters`, or None.

    Raises:
        ConfigError: an unknown kind of scaling, or a key that it does not know or lacks.
    """

    def __init__(
        self,
        head_width: int,
        base: float = 10_000.0,
        *,
        width: int | None = None,
        interleaved: bool = False,
        scaling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.width = head_width if width is None else width
        if self.width % 2 or not 0 < self.width <= head_width:
            raise ConfigError(f"rotary turns pairs within a head: {self.width} of {head_width} numbers cannot be")
        self.base, self.interleaved = base, interleaved
        self.kind, self.scaling = check_scaling(scaling)
        # a plain attribute, not a buffer: it is no weight, and must be real even where the model is built on `meta`
        self.frequencies = self._scaled(self._frequencies(torch.tensor(float(base), dtype=torch.float64, device="cpu")))

    def _frequencies(self, base: Tensor) -> Float[Tensor, "... r"]:
        """ω_i = base^(-2i/R); `base` may be a batch (..., 1)."""
        exponent = torch.arange(0, self.width, 2, dtype=base.dtype, device=base.device) / self.width
        return base**-exponent

    def _scaled(self, omega: Tensor) -> Tensor:
        s = self.scaling
        if self.kind == "linear":
            return omega / s["factor"]
        if self.kind == "factors":
            factors = torch.tensor(s["factors"], dtype=omega.dtype, device="cpu")
            if factors.shape != omega.shape:
                raise ConfigError(f"rotary of width {self.width} takes {len(omega)} factors, not {len(factors)}")
            return omega / factors
        if self.kind == "yarn":
            low, high = (self._yarn_pair(s[beta]) for beta in ("beta_fast", "beta_slow"))
            if s["truncate"]:
                low, high = math.floor(low), math.ceil(high)
            low, high = max(low, 0), min(high, self.width - 1)
            ramp = (torch.arange(self.width // 2, dtype=omega.dtype, device="cpu") - low) / max(high - low, 1e-3)
            return torch.lerp(omega, omega / s["factor"], ramp.clamp(0, 1))
        if self.kind == "llama3":
            turns = s["original_max_position_embeddings"] * omega / (2 * math.pi)  # full turns over the trained length
            ramp = (turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
            return torch.lerp(omega / s["factor"], omega, ramp.clamp(0, 1))
        return omega

    def _yarn_pair(self, turns: float) -> float:
        """The pair that makes this many full turns over the trained length (Peng et al. 2023, section 3.2)."""
        length = self.scaling["original_max_position_embeddings"]
        return self.width * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(self.base))

    @property
    def amplitude(self) -> float:
        """YaRN also raises the temperature of attention, by making queries and keys longer."""
        if self.kind != "yarn":
            return 1.0
        s = self.scaling
        if s["attention_factor"] is not None:
            return s["attention_factor"]

        def longer(mscale: float) -> float:
            return 1.0 if s["factor"] <= 1 else 0.1 * mscale * math.log(s["factor"]) + 1.0

        if s["mscale"] and s["mscale_all_dim"]:
            return longer(s["mscale"]) / longer(s["mscale_all_dim"])
        return longer(1.0)

    def angles(self, ctx: Context) -> tuple[Float[Tensor, "b 1 t r"], Float[Tensor, "b 1 t r"]]:
        """What each of the R numbers, and its partner in the pair, is multiplied by: cos, and sin with its sign."""
        omega = self.frequencies.float().to(ctx.pos.device)
        if self.kind == "dynamic":
            trained, factor = self.scaling["original_max_position_embeddings"], self.scaling["factor"]
            length = (ctx.pos.amax(-1, keepdim=True) + 1).clamp(min=trained).float()  # (B, 1): each row by its own
            grown = self.base * (factor * length / trained - (factor - 1)) ** (self.width / max(self.width - 2, 1))
            omega = self._frequencies(grown)[:, None]  # (B, 1, R/2)
        angle = (ctx.pos[..., None].float() * omega)[:, None]  # (B, 1, T, R/2)
        cos, sin = angle.cos() * self.amplitude, angle.sin() * self.amplitude
        if self.interleaved:
            return cos.repeat_interleave(2, -1), torch.stack([-sin, sin], -1).flatten(-2)
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)

    def forward(self, x: Float[Tensor, "b h t e"], ctx: Context) -> Float[Tensor, "b h t e"]:
        cos, sin = ctx.once((self, "angles"), lambda: self.angles(ctx))
        whole = self.width == x.shape[-1]
        pairs = (x if whole else x[..., : self.width]).float()
        if self.interleaved:
            partner = pairs.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        else:
            partner = pairs.roll(self.width // 2, -1)
        turned = torch.addcmul(pairs * cos, partner, sin).to(x.dtype)
        return turned if whole else torch.cat([turned, x[..., self.width :]], -1)


def check_scaling(scaling: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """The kind of a published scaling, and its numbers with defaults filled in."""
    given = {key: value for key, value in (scaling or {}).items() if value is not None}
    kind = given.pop("rope_type", given.pop("type", "default"))
    if kind not in SCALINGS:
        raise ConfigError(f"unknown rotary scaling {kind!r}; known: {', '.join(SCALINGS)}")
    unknown = sorted(set(given) - set(SCALINGS[kind]))
    if unknown:
        raise ConfigError(f"rotary scaling {kind!r} does not know {', '.join(unknown)}")
    numbers = {**SCALINGS[kind], **given}
    missing = [key for key, value in numbers.items() if value is ...]
    if missing:
        raise ConfigError(f"rotary scaling {kind!r} needs {', '.join(missing)}")
    return kind, numbers

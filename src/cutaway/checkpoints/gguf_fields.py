"""The fields of a GGUF header that describe the model, read as strictly as a config."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway.checkpoints.stored import Stored
from cutaway.errors import ConfigError

REQUIRED = object()


class Fields:
    """The fields of one architecture; every one must be asked for, as in a strict config."""

    def __init__(self, fields: Mapping[str, Any], architecture: str, path: Path):
        self.path, self.prefix = path, architecture + "."
        self.left = {k.removeprefix(self.prefix): v for k, v in fields.items() if k.startswith(self.prefix)}

    def take(self, name: str, default: Any = REQUIRED, kind: type = int) -> Any:
        value = self.left.pop(name, default)
        if value is REQUIRED:
            raise ConfigError(f"{self.path} lacks the field {self.prefix}{name}")
        if value is not default and (type(value) is not kind or (kind is float and not math.isfinite(value))):
            raise ConfigError(f"{self.path}: {self.prefix}{name} cannot be {str(value)[:60]!r}")
        return value

    def finish(self) -> None:
        if self.left:
            raise ConfigError(
                f"{self.path} has fields that are not understood: {', '.join(map(self._full, self.left))}"
            )

    def _full(self, name: str) -> str:
        return f"{self.prefix}{name}: {str(self.left[name])[:60]}"


def only(own: Fields, name: str, value: int) -> None:
    found = own.take(name, value)
    if found != value:
        raise ConfigError(f"{own.path}: {own.prefix}{name} is {found}; only {value} is supported")


def decimal(value: float) -> float:
    """The short decimal that was rounded to this float32: 1e-05, not 9.999999747378752e-06."""
    return float(f"{value:.7g}")


def scaling(own: Fields, context: int, base: float, factors: Stored | None) -> dict[str, Any] | None:
    """`rope_scaling` as published configs spell it."""
    kind = own.take("rope.scaling.type", "none", str)
    factor = own.take("rope.scaling.factor", 1.0, float)
    original = own.take("rope.scaling.original_context_length", context)
    own.take("rope.scaling.finetuned", False, bool)  # says where the scaling comes from, not what it is
    if factors is not None:
        if kind != "none" or math.prod(factors.shape) > 4096:
            raise ConfigError(
                f"{own.path} has rope_freqs.weight beside a scaling of type {kind!r}, or too many of them"
            )
        return _published(factors.read().float().view(-1), base, own.path)
    if kind == "none":
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": decimal(factor)}
    if kind == "yarn":
        return {"rope_type": "yarn", "factor": decimal(factor), "original_max_position_embeddings": original}
    raise ConfigError(f"{own.path}: rope scaling of type {kind!r} is not read; none, linear and yarn are")


def _published(factors: Tensor, base: float, path: Path) -> dict[str, Any]:
    """GGUF keeps Llama 3's scaling as one divisor a frequency: the published numbers where they give just these."""
    known = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    known |= {"original_max_position_embeddings": 8192, "factor": round(float(factors.max()), 6)}
    if bool((factors >= 1).all()) and torch.allclose(_llama3_divisors(len(factors), base, known), factors, rtol=1e-5):
        return known
    if not bool((factors > 0).all() and factors.isfinite().all()):
        raise ConfigError(f"{path}: rope_freqs.weight must be finite and positive")
    return {"rope_type": "factors", "factors": factors.tolist()}


def _llama3_divisors(count: int, base: float, s: Mapping[str, Any]) -> Tensor:
    omega = base ** -(torch.arange(count, dtype=torch.float64) / count)
    turns = s["original_max_position_embeddings"] * omega / (2 * math.pi)
    ramp = (turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
    return (1 / torch.lerp(torch.full_like(omega, 1 / s["factor"]), torch.ones_like(omega), ramp.clamp(0, 1))).float()

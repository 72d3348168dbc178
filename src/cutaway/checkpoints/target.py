"""Where numbers go: the dtypes and devices a user may ask for by name."""

import torch

from cutaway.errors import ConfigError

DTYPES = {
    **dict.fromkeys(("float32", "f32", "fp32"), torch.float32),
    **dict.fromkeys(("bfloat16", "bf16"), torch.bfloat16),
    **dict.fromkeys(("float16", "f16", "fp16", "half"), torch.float16),
    **dict.fromkeys(("float64", "f64", "double"), torch.float64),
}


def check_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """A floating-point dtype by any of its usual names."""
    found = DTYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if found not in DTYPES.values():
        raise ConfigError(f"no dtype {dtype!r} for a model; there are float32, bfloat16, float16 and float64")
    return found  # type: ignore[return-value]


def check_device(device: torch.device | str | None) -> torch.device:
    """A device that this machine has."""
    try:
        found = torch.device(device or "cpu")
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"no device {device!r}; cpu, cuda, cuda:1 and mps are of the kind known") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(found.type, False):
        has = " and ".join(name for name, available in there.items() if available)
        raise ConfigError(f"this machine, or this build of torch, has no device {found.type}; it has {has}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"no device {found}: this machine has {torch.cuda.device_count()}")
    return found

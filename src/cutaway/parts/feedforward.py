"""The feed-forward network: the same two or three matrices applied to every token alone.

FeedForward   W₂ · act(W₁ x)                Vaswani et al. 2017, equation 2
Gated         W₂ · (act(W₁ x) ∘ W₃ x)       Shazeer 2020: SwiGLU (silu), GeGLU (gelu), ReGLU (relu)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.axes import Float
from cutaway.errors import ConfigError
from cutaway.parts.dropout import drop

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "relu": F.relu,
    "gelu": F.gelu,  # x · Φ(x), by the error function
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),  # Hendrycks and Gimpel 2016's shorter form of gelu
    "tanh": torch.tanh,
    "relu2": lambda x: F.relu(x).square(),  # So et al. 2021 (Primer), section 4.1
}
# the names published configurations use for the same functions
TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
PUBLISHED_ACTIVATIONS = {**dict.fromkeys(TANH, "gelu_tanh"), "swish": "silu"}


def activation(name: str) -> Activation:
    """The activation of that name, ours or a published one.

    Raises:
        ConfigError: nobody here knows the name.
    """
    found = ACTIVATIONS.get(PUBLISHED_ACTIVATIONS.get(name, name))
    if found is None:
        known = ", ".join([*ACTIVATIONS, *PUBLISHED_ACTIVATIONS])
        raise ConfigError(f"unknown activation {name!r}; known: {known}")
    return found


class FeedForward(nn.Module):
    """W₂ · act(W₁ x)"""

    def __init__(self, width: int, hidden: int, act: str, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.act, self.dropout = activation(act), dropout

    def forward(self, x: Float[Tensor, "b t d"], ctx: object = None) -> Float[Tensor, "b t d"]:
        return self.down(drop(self, self.act(self.up(x)), self.dropout))


class Gated(nn.Module):
    """W₂ · (act(W₁ x) ∘ W₃ x), where W₁ is `gate`, W₃ `up` and W₂ `down`."""

    def __init__(self, width: int, hidden: int, act: str, bias: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.act, self.dropout = activation(act), dropout

    def forward(self, x: Float[Tensor, "b t d"], ctx: object = None) -> Float[Tensor, "b t d"]:
        return self.down(drop(self, self.act(self.gate(x)) * self.up(x), self.dropout))

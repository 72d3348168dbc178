"""LoRA: a matrix that stays as it is, and a narrow detour that learns (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    h = W x + b + s · B A dropout(x)        A (r, in)   B (out, r), zero at first   s = α / r

| here  | paper | shape                 |
|-------|-------|-----------------------|
| `a`   | A     | (r, in)               |
| `b`   | B     | (out, r)              |
| scale | α / r |                       |

`attach` puts such detours beside the matrices of a model, under a name; several may lie beside one base and take turns
(`use`). `merge` adds the one in use to W for good, and the model is as it was composed. W and b keep their names all along, so a
checkpoint's rules still apply.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.axes import Float
from cutaway.errors import ConfigError

# Matrices that their owner reads instead of calling: a detour beside them would be passed by.
READ = ("r", "step")


class Detour(nn.Module):
    """scale · B A dropout(x), for x (..., in)."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.a = nn.Parameter(torch.empty(rank, linear.in_features, **like))
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # as the published code begins
        self.alpha, self.dropout = alpha, dropout

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        return F.linear(F.linear(F.dropout(x, self.dropout, self.training), self.a), self.b) * self.scale

    def matrix(self) -> Float[Tensor, "o i"]:
        """What the detour adds to W."""
        return self.b @ self.a * self.scale


class LoRALinear(nn.Linear):
    """W x + b and, where one is in use, a detour. `weight` and `bias` are those of the linear layer it stands for."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.detours, self.used = nn.ModuleDict(), ""

    def forward(self, input: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        y = F.linear(input, self.weight, self.bias)
        return y + self.detours[self.used](input) if self.used else y

    def plain(self) -> nn.Linear:
        """The linear layer alone again."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        linear.weight, linear.bias = self.weight, self.bias
        return linear


def attach(
    model: nn.Module,
    rank: int = 8,
    alpha: float | None = None,
    *,
    targets: Sequence[str] | str = ("q", "v"),
    dropout: float = 0.0,
    name: str = "default",
) -> list[str]:
    """Puts a detour beside each matrix that `targets` names, freezes all else, and uses it. Returns the paths.

    Args:
        rank: r.
        alpha: α; 2r by default.
        targets: the last part of the matrices' paths, as `print(model)` shows them ("q", "v", "up", …), or whole paths; "all" is
            every one inside the blocks.
        name: of this set of detours.

    Raises:
        ConfigError: nothing in the model is called so; a rank or dropout that cannot be; a name in use.
    """
    if not (isinstance(rank, int) and rank >= 1 and 0 <= dropout < 1):
        raise ConfigError(f"LoRA needs a rank of at least 1 and a dropout from 0 to below 1, not {rank} and {dropout}")
    if not name or "." in name:
        raise ConfigError(f"an adapter needs a name without dots, not {name!r}")
    if name in names(model):
        raise ConfigError(f"this model has an adapter {name!r} already; give another name, or detach that one first")
    wanted = None if targets == "all" else {targets} if isinstance(targets, str) else set(targets)
    linears = {path: m for path, m in model.named_modules() if isinstance(m, nn.Linear) and _offered(path)}
    paths = [
        path
        for path in linears
        if (".blocks." in f".{path}." if wanted is None else {path, path.rpartition(".")[2]} & wanted)
    ]
    lacking = {t for t in wanted or () if not any(t in (path, path.rpartition(".")[2]) for path in paths)}
    if lacking or not paths:
        known = ", ".join(sorted({path.rpartition(".")[2] for path in linears}))
        raise ConfigError(f"no matrix here is called {', '.join(sorted(lacking)) or 'that'}; there are {known}")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for path in paths:
        put(model, path, name, rank, 2.0 * rank if alpha is None else alpha, dropout)
    use(model, name)
    return paths


def put(model: nn.Module, path: str, name: str, rank: int, alpha: float, dropout: float = 0.0) -> Detour:
    """One detour beside the matrix at `path`."""
    linear = model.get_submodule(path)
    if not isinstance(linear, LoRALinear):
        linear = LoRALinear(linear)  # type: ignore[arg-type]
        linear.train(model.training)
        model.set_submodule(path, linear)
    detour = linear.detours[name] = Detour(linear, rank, alpha, dropout)
    return detour.train(model.training)


def adapted(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Every matrix with detours, by its path."""
    yield from ((path, module) for path, module in model.named_modules() if isinstance(module, LoRALinear))


def names(model: nn.Module) -> list[str]:
    """The adapters a model has."""
    return list(dict.fromkeys(name for _, linear in adapted(model) for name in linear.detours))


def use(model: nn.Module, name: str | None) -> None:
    """Lets the adapter of that name take part, and no other; None: the base alone.

    Raises:
        ConfigError: there is no such adapter.
    """
    if name is not None and name not in names(model):
        raise ConfigError(f"no adapter {name!r} here; there are {', '.join(names(model)) or 'none'}")
    for _, linear in adapted(model):
        linear.used = name if name is not None and name in linear.detours else ""


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Adds the adapter in use to the matrices and forgets all adapters: a plain model that needs nothing more to run."""
    for path, linear in list(adapted(model)):
        if linear.used:
            linear.weight += linear.detours[linear.used].matrix()  # type: ignore[operator]
        model.set_submodule(path, linear.plain())


def detach(model: nn.Module, name: str | None = None) -> None:
    """Forgets an adapter (all, without a name); the base is as it was."""
    for path, linear in list(adapted(model)):
        if name is None or (name in linear.detours and len(linear.detours) == 1):
            model.set_submodule(path, linear.plain())
        elif name in linear.detours:
            linear.used = "" if linear.used == name else linear.used
            del linear.detours[name]


def _offered(path: str) -> bool:
    return path.rpartition(".")[2] not in READ and ".detours." not in path

"""LoRA: a matrix that stays as it is, and a narrow detour that learns (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    h = W x + b + s · B A dropout(x)        A (r, in)   B (out, r), zero at first   s = α / r

`attach` puts such detours beside the matrices of a model, as one adapter with a name. Several adapters may lie beside one
base and take turns (`use`); what an adapter trains whole, such as a new head, takes turns too. `detach` gives the base back
as it was, to the bit; `merge` adds the adapter in use to the matrices for good. W and b keep their names all along, so that a
checkpoint's rules apply to them. While a model has adapters only the one in use is trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.axes import Float
from cutaway.errors import ConfigError


class Detour(nn.Module):
    """s · B A dropout(x), for x (..., in). `a` may be given, to be shared with other detours."""

    def __init__(
        self, linear: nn.Linear, rank: int, alpha: float, dropout: float = 0.0, a: nn.Parameter | None = None
    ) -> None:
        super().__init__()
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        if a is None:
            a = nn.Parameter(torch.empty(rank, linear.in_features, **like))
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))  # as the published code begins
        self.a, self.b = a, nn.Parameter(torch.zeros(linear.out_features, rank, **like))
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
        """What the detour adds to W, in float32."""
        return self.b.float() @ self.a.float() * self.scale


class LoRALinear(nn.Linear):
    """W x + b and, where one is in use, a detour. `weight` and `bias` are those of the linear layer it stands for."""

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)  # no weights of its own
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.base = (base,)  # out of sight of the module's own children
        self.detours, self.used = nn.ModuleDict(), ""
        self.train(base.training)

    def forward(self, input: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        y = F.linear(input, self.weight, self.bias)
        return y + self.detours[self.used](input) if self.used else y


@dataclass
class Own:
    """What a model with adapters knows of them besides their detours.

    Attributes:
        trainable: the parameters that were, before there was any.
        wholes: of each adapter, the parameters that it has to itself; under "" those of the base.
    """

    trainable: set[str]
    wholes: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def attach(
    model: nn.Module,
    rank: int = 8,
    alpha: float | None = None,
    *,
    targets: Sequence[str] | str = "all",
    also: Sequence[str] = (),
    dropout: float = 0.0,
    name: str = "default",
) -> list[str]:
    """Puts a detour beside each matrix that `targets` names, and uses and trains the adapter. Returns the paths.

    Args:
        rank: r.
        alpha: α; 2r by default.
        targets: the last part of the matrices' paths, as `print(model)` shows them ("q", "v", "up", …), or whole paths; "all"
            is every one inside the blocks.
        also: modules that are trained whole, by their paths, such as "head".
        name: of the adapter.

    Raises:
        ConfigError: nothing in the model is called so; a rank or dropout that cannot be; a name in use.
    """
    if not (type(rank) is int and rank >= 1 and 0 <= dropout < 1):
        raise ConfigError(f"LoRA needs a rank of at least 1 and a dropout from 0 to below 1, not {rank} and {dropout}")
    linears = [path for path, m in model.named_modules() if isinstance(m, nn.Linear) and offered(model, path)]
    wanted = {targets} if isinstance(targets, str) else set(targets)
    known = {name for path in linears for name in (path, last(path))}
    everywhere = {path for path in linears if ".blocks." in f".{path}."} if "all" in wanted else set()
    paths = [path for path in linears if path in everywhere or {path, last(path)} & wanted]
    if (lacking := wanted - known - {"all"}) or not paths:
        there = ", ".join(sorted({last(path) for path in linears})) or "none"
        raise ConfigError(f"no matrix here is called {', '.join(sorted(lacking or wanted))}; there are {there}")
    wholes = [n for n, _ in model.named_parameters() if any(f"{n}.".startswith(f"{module}.") for module in also)]
    begin(model, name)
    for path in paths:
        put(model, path, name, rank, 2.0 * rank if alpha is None else alpha, dropout)
    give(model, name, {path: model.get_parameter(path).detach().clone() for path in wholes})
    use(model, name)
    return paths


def offered(model: nn.Module, path: str) -> bool:
    """Whether the matrix of this path takes a detour: it would be passed by where the owner reads the matrix itself."""
    names = path.split(".")
    owners = [model.get_submodule(".".join(names[:i])) for i in range(len(names))]
    return not any(name in getattr(owner, "reads", ()) for owner, name in zip(owners, names, strict=True))


def last(path: str) -> str:
    return path.rpartition(".")[2]


def begin(model: nn.Module, name: str) -> None:
    """A new adapter, with nothing in it yet.

    Raises:
        ConfigError: there is one of that name, or the name cannot be.
    """
    if not name or "." in name:
        raise ConfigError(f"an adapter needs a name without dots, not {name!r}")
    own = model.__dict__.setdefault("adapters", Own({n for n, p in model.named_parameters() if p.requires_grad}))
    if name in own.wholes:
        raise ConfigError(f"this model has an adapter {name!r} already; give another name, or detach that one first")
    own.wholes.setdefault("", {})
    own.wholes[name] = {}


def put(
    model: nn.Module, path: str, name: str, rank: int, alpha: float, dropout: float = 0.0, a: nn.Parameter | None = None
) -> Detour:
    """One detour of an adapter, beside the matrix at `path`."""
    linear = model.get_submodule(path)
    if not isinstance(linear, LoRALinear):
        linear = LoRALinear(linear)  # type: ignore[arg-type]
        model.set_submodule(path, linear)
    detour = linear.detours[name] = Detour(linear, rank, alpha, dropout, a).train(linear.training)
    return detour


def give(model: nn.Module, name: str, wholes: Mapping[str, Tensor]) -> None:
    """With this adapter in use, the parameters at these paths are these."""
    own: Own = model.__dict__["adapters"]
    for path, tensor in wholes.items():
        own.wholes[""].setdefault(path, model.get_parameter(path).data)
        own.wholes[name][path] = tensor


def adapted(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Every matrix with detours, by its path."""
    yield from ((path, module) for path, module in model.named_modules() if isinstance(module, LoRALinear))


def names(model: nn.Module) -> list[str]:
    """The adapters a model has."""
    own: Own | None = model.__dict__.get("adapters")
    return [] if own is None else [name for name in own.wholes if name]


def used(model: nn.Module) -> str | None:
    """The adapter in use."""
    return next((linear.used for _, linear in adapted(model) if linear.used), None)


def use(model: nn.Module, name: str | None) -> None:
    """Lets the adapter of that name take part and be trained, and no other; None: the base alone.

    Raises:
        ConfigError: there is no such adapter.
    """
    if name is not None and name not in names(model):
        raise ConfigError(f"no adapter {name!r} here; there are {', '.join(names(model)) or 'none'}")
    own: Own | None = model.__dict__.get("adapters")
    if own is None:
        return
    before = own.wholes[used(model) or ""]
    before.update({path: model.get_parameter(path).data for path in before})  # it may have been trained
    now = own.wholes[name or ""]
    for path, base in own.wholes[""].items():
        parameter = model.get_parameter(path)
        parameter.data = now.get(path, base).to(parameter)
    for _, linear in adapted(model):
        linear.used = name if name is not None and name in linear.detours else ""
    trained = {id(p) for _, linear in adapted(model) if linear.used for p in linear.detours[linear.used].parameters()}
    for path, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) in trained or (name is not None and path in now))


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Adds the adapter in use to the matrices and forgets all adapters: a plain model that needs nothing more to run."""
    for _, linear in adapted(model):
        if linear.used:
            linear.weight.copy_(linear.weight.float() + linear.detours[linear.used].matrix())  # type: ignore[operator]
    _forget(model)


def detach(model: nn.Module, name: str | None = None) -> None:
    """Forgets an adapter (all, without a name); the base is as it was.

    Raises:
        ConfigError: there is no such adapter.
    """
    if name is not None and name not in names(model):
        raise ConfigError(f"no adapter {name!r} here; there are {', '.join(names(model)) or 'none'}")
    if name is None or name == used(model):
        use(model, None)
    if name is None or names(model) == [name]:
        return _forget(model)
    for _, linear in adapted(model):
        linear.detours.pop(name) if name in linear.detours else None
    del model.__dict__["adapters"].wholes[name]


def _forget(model: nn.Module) -> None:
    own: Own | None = model.__dict__.pop("adapters", None)
    if own is None:
        return
    for path, linear in list(adapted(model)):
        base = linear.base[0].train(linear.training)
        base.weight, base.bias = linear.weight, linear.bias  # whatever has become of them
        model.set_submodule(path, base)
    for path, parameter in model.named_parameters():
        parameter.requires_grad_(path in own.trainable)

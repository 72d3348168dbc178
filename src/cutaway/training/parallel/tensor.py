"""Each layer divided among processes, by heads and neurons (Shoeybi et al. 2019, section 3), by plans over DTensor.

    q, k, v, W₁, W₃    by columns: a process has the heads, or the hidden neurons, that it computes
    out, W₂            by rows: each multiplies what it has, and the products are added up

Embeddings, norms and heads of the model are whole on each process, and so are the states between layers; so is a mixer that
does not work by heads (recurrences, scans) or draws for all heads at once (LSH). The parts know nothing of it: to an
attention it is as if it had fewer heads. What belongs to heads otherwise than through a linear layer (T5's biases,
Transformer-XL's u and v) is put in its place while its module runs: a process's own part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from cutaway.parts.attention import Attention
from cutaway.parts.block_sparse import BlockSparseAttention
from cutaway.parts.disentangled import Disentangled
from cutaway.parts.feedforward import FeedForward, Gated
from cutaway.parts.linear_attention import LinearAttention
from cutaway.parts.lowrank import Along, LowRankAttention
from cutaway.parts.relative import ALiBi, T5Bias
from cutaway.parts.relative_shift import RelativeScores
from cutaway.parts.synthesizer import Dense, FactorisedDense, FactorisedRandom, PerHead, Random, Synthesizer
from cutaway.training.errors import TrainingError

BY_HEADS = (Attention, LinearAttention, LowRankAttention, Synthesizer)
COLUMNS = ("q", "k", "v", "q_global", "k_global", "v_global", "gate", "up", "hidden")
ROWS = ("out", "down")


@dataclass
class Plan:
    """What is to be done with the modules of a model."""

    linear: dict[str, Any] = field(default_factory=dict)  # by module, PyTorch's plan
    heads: list[tuple[str, nn.Module]] = field(default_factory=list)  # that are to have fewer
    # in whose call, whose, what, along which dimension
    slices: list[tuple[nn.Module, nn.Module, str, int]] = field(default_factory=list)
    common: list[nn.Module] = field(default_factory=list)  # whose parameters all heads use
    biases: list[nn.Module] = field(default_factory=list)  # that give all heads something, and learn nothing


def plan(model: nn.Module) -> Plan:
    """Who is divided, and how."""
    found = Plan()
    for name, part in model.named_modules():
        if isinstance(part, (FeedForward, Gated, *BY_HEADS, Disentangled, Dense, FactorisedDense)):
            styles = dict.fromkeys(COLUMNS, ColwiseParallel) | dict.fromkeys(ROWS, RowwiseParallel)
            inside = {child: styles[child] for child, m in part.named_children() if child in styles and _linear(m)}
            found.linear |= {f"{name}.{child}": style() for child, style in inside.items()}
        if isinstance(part, BY_HEADS):
            found.heads.append((name, part))
            for steps in ("q_steps", "k_steps", "v_steps"):
                found.common += [m for step in getattr(part, steps, ()) for m in step.modules()]
        found.slices += [(part, *what) for what in _by_head(part)]
        if isinstance(part, Along) and part.weight.ndim == 2:
            found.common.append(part)
        if isinstance(part, ALiBi):
            found.biases.append(part)
        if isinstance(part, Synthesizer) and part.mixture is not None:
            found.common.append(part)
    found.common = list({id(m): m for m in found.common}.values())
    return found


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _by_head(part: nn.Module) -> Iterator[tuple[nn.Module, str, int]]:
    """Parameters that have a row for each head: of which module, which, along which dimension."""
    if isinstance(part, T5Bias):
        yield part, "weight", 1
    elif isinstance(part, RelativeScores):
        yield from [(part, "u", 0), (part, "v", 0), (part.r, "weight", 0)]
        if part.segments is not None:
            yield from [(part.segments, "weight", 1), (part.segments, "s", 0)]
    elif isinstance(part, (Along, Random)) and part.weight.ndim == 3:
        yield part, "weight", 0
    elif isinstance(part, PerHead):
        yield from [(part, "weight", 0), *([] if part.bias is None else [(part, "bias", 0)])]
    elif isinstance(part, FactorisedRandom):
        yield from [(part, "left", 0), (part, "right", 0)]


def divide_tensors(model: nn.Module, mesh: DeviceMesh) -> None:
    """Divides the layers of a model, in place, over a mesh of one dimension; every process has the same model before.

    Raises:
        TrainingError: the heads or neurons of a layer are not divisible, or nothing is.
    """
    found, ways = plan(model), mesh.size()
    _check(model, found, ways)
    parallelize_module(model, mesh, found.linear, src_data_rank=None)
    for _, part in found.heads:
        if isinstance(part, BlockSparseAttention):
            _own_blocks(part, mesh)
        for count in ("heads", "kv_heads"):
            if hasattr(part, count):
                setattr(part, count, getattr(part, count) // ways)
    made: dict[int, nn.Parameter] = {}
    for caller, owner, name, dim in found.slices:
        p = getattr(owner, name)
        if not isinstance(p, DTensor):  # layers may share one
            if id(p) not in made:
                split = distribute_tensor(p.detach(), mesh, [Shard(dim)], src_data_rank=None)
                made[id(p)] = nn.Parameter(split, requires_grad=p.requires_grad)
            owner.register_parameter(name, made[id(p)])
        _in_place(caller, owner, name, _part)
    for part in found.common:
        for name, _ in part.named_parameters(recurse=False):
            _in_place(part, part, name, partial(_Common.apply, mesh.get_group()))
    for part in found.biases:
        part.register_forward_hook(partial(_own_heads, mesh.get_local_rank(), ways))


def _check(model: nn.Module, found: Plan, ways: int) -> None:
    if not found.heads and not found.linear:
        raise TrainingError(
            f"no layer of {getattr(model, 'family', 'this model')} works by heads or hidden neurons: leave parallel.tensor at 1"
        )
    for name, part in found.heads:
        heads: Any = part.heads
        groups = getattr(part, "kv_heads", heads)
        if heads % ways or groups % ways:
            has = f"{heads} heads" if heads % ways else f"{groups} key/value heads"
            raise TrainingError(
                f"{name} has {has}, which {ways} processes cannot divide: choose another parallel.tensor"
            )
    for name, style in found.linear.items():
        linear = model.get_submodule(name)
        size = linear.in_features if isinstance(style, RowwiseParallel) else linear.out_features
        if size % ways:  # type: ignore[operator]
            raise TrainingError(
                f"{name} has {size} neurons, which {ways} processes cannot divide: choose another parallel.tensor"
            )


class _Common(Function):
    """What the heads of all processes use: its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, group: dist.ProcessGroup, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient, group=ctx.group)
        return None, gradient


def _part(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x


def _in_place(caller: nn.Module, owner: nn.Module, name: str, made: Any) -> None:
    """While `caller` runs, `owner.name` is what `made` makes of the parameter: an attribute that hides it."""

    def before(*_: Any) -> None:
        owner.__dict__.pop(name, None)
        owner.__dict__[name] = made(getattr(owner, name))

    def after(*_: Any) -> None:
        owner.__dict__.pop(name, None)

    caller.register_forward_pre_hook(before)
    caller.register_forward_hook(after, always_call=True)


def _own_heads(rank: int, ways: int, _: nn.Module, given: Any, bias: Tensor) -> Tensor:
    """Of a bias (B, H, Q, K) of all heads, those of this process."""
    own = bias.shape[1] // ways
    return bias[:, rank * own : (rank + 1) * own]


def _own_blocks(part: BlockSparseAttention, mesh: DeviceMesh) -> None:
    """BigBird's heads draw one after another from one seed: all are drawn, and this process keeps its own."""
    draw, heads, own = part.layout, part.heads, part.heads // mesh.size()
    first = mesh.get_local_rank() * own

    def layout(tokens: int, total: int) -> Any:
        part.heads = heads
        try:
            return draw(tokens, total)[first : first + own]
        finally:
            part.heads = own

    part.layout = layout  # type: ignore[method-assign]

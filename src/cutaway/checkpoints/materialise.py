"""From a model on the `meta` device to a real one: every parameter read straight to its dtype and device, or none."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor, nn

from cutaway.checkpoints.progress import track
from cutaway.checkpoints.stored import Stored
from cutaway.errors import CheckpointError
from cutaway.layout import Entry, Rule, expand, same

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def materialise(
    model: nn.Module,
    rules: Sequence[Rule] | None,
    tensors: Mapping[str, Stored],
    dtype: torch.dtype,
    device: torch.device,
    source: str = "the checkpoint",
) -> None:
    """Gives the parameters of `model`, which are on `meta`, the numbers of a checkpoint.

    Everything that can be checked without reading is checked first, and the model is touched last.

    Raises:
        CheckpointError: a tensor is missing, unknown, of a wrong shape or type, or not finite.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    try:
        entries = list(expand(rules, shapes, tensors)) if rules is not None else _own(shapes, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    for entry in entries:
        _check(entry, tensors[entry.theirs], shapes)
    real: dict[str, Tensor] = {}
    # the largest first: what reading it needs for a moment is then not on top of everything else
    entries.sort(key=lambda entry: -prod(tensors[entry.theirs].shape))
    sizes = [prod(tensors[entry.theirs].shape) * dtype.itemsize for entry in entries]
    try:
        with _one_thread():
            for entry in track(zip(sizes, entries, strict=True), sum(sizes), f"loading {source}"):
                _read(entry, tensors[entry.theirs], shapes, real, dtype, device)
    except (MemoryError, RuntimeError) as error:  # torch reports exhausted memory as a RuntimeError
        if isinstance(error, RuntimeError) and "alloc" not in str(error) and "memory" not in str(error):
            raise
        raise CheckpointError(f"{sum(sizes) / 2**30:.1f} GiB of weights do not fit the memory of {device}") from error
    fresh = [name for name in shapes if name not in real]
    for name in fresh:
        real[name] = _fresh(name, shapes[name], dtype, device)
    if fresh:
        warnings.warn(f"not in the checkpoint, so starting afresh: {', '.join(fresh)}", stacklevel=3)
    _replace(model, real)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Copying small pieces is not worth torch's threads, which on a busy machine wait for each other at every one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main_dtype(tensors: Iterable[Stored]) -> torch.dtype:
    """What most of the numbers are kept as."""
    counts = dict.fromkeys(FLOATS, 0)
    for tensor in tensors:
        if tensor.dtype in counts:
            counts[tensor.dtype] += prod(tensor.shape)
    best = max(counts, key=lambda dtype: counts[dtype])
    return best if counts[best] else torch.float32


def _own(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Stored]) -> list[Entry]:
    """Names that are ours already."""
    for kind, names in (("lacks", set(shapes) - set(tensors)), ("also holds", set(tensors) - set(shapes))):
        if names:
            raise CheckpointError(f"the checkpoint {kind} {', '.join(sorted(names)[:5])}: it is not this model's")
    return [Entry(name, (name,), same) for name in shapes]


def _check(entry: Entry, stored: Stored, shapes: Mapping[str, tuple[int, ...]]) -> None:
    expected = entry.op.theirs_shape([shapes[name] for name in entry.ours])
    where = f"{stored.path}: {entry.theirs}"
    if stored.shape != expected:
        raise CheckpointError(f"{where} has shape {list(stored.shape)}; its config calls for {list(expected)}")
    if stored.dtype not in FLOATS:
        raise CheckpointError(
            f"{where} holds {stored.dtype} numbers, not floating-point weights; quantised checkpoints are read as GGUF"
        )


def _read(
    entry: Entry,
    stored: Stored,
    shapes: Mapping[str, tuple[int, ...]],
    real: dict[str, Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    where = f"{stored.path}: {entry.theirs}"
    if entry.ours[0] in real:  # a second name of the same parameter
        flat = real[entry.ours[0]].view(-1)
        alike = stored.equals(flat) if entry.op is same else torch.equal(flat, _through(entry, stored)[0].to(flat))
        if not alike:
            raise CheckpointError(f"{where} should equal {entry.ours[0]}, to which the config ties it, and does not")
        return
    if entry.op is same:
        real[entry.ours[0]] = stored.made(dtype, device)
    else:
        for name, part in zip(entry.ours, entry.op.read(stored.read()), strict=True):
            real[name] = torch.empty(shapes[name], dtype=dtype, device=device).copy_(part)
    for name in entry.ours:
        if not finite(real[name]):
            narrow = "" if dtype.itemsize >= stored.dtype.itemsize else f" (or too large for {dtype}; try float32)"
            raise CheckpointError(f"{where} holds numbers that are not finite{narrow}")


def _through(entry: Entry, stored: Stored) -> list[Tensor]:
    return [part.reshape(-1) for part in entry.op.read(stored.read())]


def finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite. Their sum shows it without a copy, except where it overflows itself.

    Piece by piece, since a sum in another dtype than the tensor's copies what it adds up.
    """
    wide = torch.promote_types(tensor.dtype, torch.float32)
    pieces = tensor.view(-1).split(1 << 20)
    return all(bool(piece.sum(dtype=wide).isfinite()) or bool(piece.isfinite().all()) for piece in pieces)


def _fresh(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """How a new head begins: small normal weights, biases of 0, gains of 1."""
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if name.endswith("bias"):
        return tensor.zero_()
    return tensor.normal_(std=0.02) if len(shape) > 1 else tensor.fill_(1.0)


def _replace(model: nn.Module, real: Mapping[str, Tensor]) -> None:
    """Puts the parameters in their places; one that stands in several stays one."""
    made = {
        id(old): nn.Parameter(real[name], requires_grad=old.requires_grad) for name, old in model.named_parameters()
    }
    for module, name, old in list(_places(model)):
        setattr(module, name, made[id(old)])


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield module, name, parameter

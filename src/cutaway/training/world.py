"""The processes that train together: which one this is, and how their numbers become one.

`torchrun` starts them and tells each by its environment who it is. Gloo carries the numbers of CPUs, NCCL those of GPUs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from cutaway.errors import CutawayError
from cutaway.training.errors import TrainingError
from cutaway.training.parallel.whole import part

BUCKET = 6_400_000  # elements sent at once: 25 MB, as PyTorch's own data parallelism has them
TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # by torchrun, to each process
LOST = ("Connection closed", "Connection reset", "Broken pipe", "Connection refused", "timed out", "Timed out")


def is_main() -> bool:
    """Whether this process is the one that speaks: the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0" or not all(name in os.environ for name in TOLD)


def device_for(asked: str | None) -> str:
    """The device that was asked for; else a GPU where there is one."""
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class World:
    """One process alone, or one of `size` that all call the same methods in the same order."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None  # copies × pieces of the model × of its layers; None: copies alone
    tensor: int = 1  # how many neighbours divide each layer, and read the same rows
    rows: Any = None  # the process group of those that read different ones; None is all

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @property
    def share(self) -> int:
        """Which part of the rows this process reads, of `shares`."""
        return self.rank // self.tensor

    @property
    def shares(self) -> int:
        return self.size // self.tensor

    def sum(self, x: Tensor) -> Tensor:
        """Of all processes' numbers."""
        return self._sum(x, None)

    def sum_rows(self, x: Tensor) -> Tensor:
        """Of what all rows gave: those that read the same count once."""
        return self._sum(x, self.rows)

    def _sum(self, x: Tensor, group: Any) -> Tensor:
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x, group=group)
        return x

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Adds up the gradients of all processes. One that none of them has stays away."""
        # of what is divided over rows they were added up on the way
        parameters = [
            p for p in parameters if not isinstance(p, DTensor) or p.device_mesh.mesh_dim_names == ("tensor",)
        ]
        if self.shares == 1 or not parameters:
            return
        there = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
        dist.all_reduce(there, op=dist.ReduceOp.MAX, group=self.rows)
        asked = [p for p, some in zip(parameters, there.tolist(), strict=True) if some]
        for p in asked:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        sent = []
        for bucket in _buckets([part(p.grad) for p in asked if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            sent.append((bucket, flat, dist.all_reduce(flat, group=self.rows, async_op=True)))
        for bucket, flat, work in sent:
            assert work is not None
            work.wait()
            for gradient, piece in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(piece.view_as(gradient))

    @torch.no_grad()
    def same(self, tensors: Iterable[Tensor]) -> None:
        """All have what the main one has."""
        if self.size > 1:
            for x in tensors:
                if not isinstance(x, DTensor):
                    dist.broadcast(x, 0)

    def told(self, work: Callable[[], Any]) -> Any:
        """What `work` gives, done by the main one only: a value that JSON can say. Its error is everyone's."""
        if self.size == 1:
            return work()
        said: dict[str, Any] = {}
        failed: CutawayError | None = None
        if self.main:
            try:
                said = {"value": work()}
            except CutawayError as error:
                failed, said = error, {"error": str(error)}
        data = json.dumps(said).encode()
        size = torch.tensor([len(data)])
        dist.broadcast(size, 0)
        text = (
            torch.frombuffer(bytearray(data), dtype=torch.uint8)
            if self.main
            else torch.empty(int(size), dtype=torch.uint8)
        )
        dist.broadcast(text, 0)
        said = json.loads(text.numpy().tobytes())
        if "error" in said:
            raise failed or TrainingError(said["error"])
        return said["value"]


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """In the order of the backward pass, of one kind each."""
    held: list[Tensor] = []
    for x in reversed(tensors):
        alike = not held or (x.dtype, x.device) == (held[0].dtype, held[0].device)
        if held and (not alike or sum(h.numel() for h in held) + x.numel() > BUCKET):
            yield held
            held = []
        held.append(x)
    if held:
        yield held


@contextmanager
def joined() -> Iterator[World]:
    """The processes that torchrun started, as long as the body runs; one alone where it started none.

    Raises:
        TrainingError: another of them has ended.
    """
    if not all(name in os.environ for name in TOLD) or os.environ["WORLD_SIZE"] == "1":
        yield World()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        store, rank, size = next(dist.rendezvous("env://"))  # pyright: ignore[reportPrivateImportUsage]
        store = dist.PrefixStore(_life(store, rank, size), store)  # pyright: ignore[reportPrivateImportUsage]
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        try:
            yield World(rank, size)
        finally:
            dist.destroy_process_group()
    except RuntimeError as error:
        if any(sign in str(error) for sign in LOST):
            raise TrainingError(
                f"another process of this run has ended, so process {os.environ['RANK']} ends too; it says why itself"
            ) from None
        raise


def _life(store: Any, rank: int, size: int) -> str:
    """A name that only the processes of this start have in common.

    torchrun's store outlives those it starts again, and with it the addresses of the dead. So the first process answers
    whoever greets it, the dead too, until all of the living have heard the name.
    """
    if rank:
        greeting = os.urandom(8).hex()
        store.set(f"greeting {rank}", greeting)
        store.wait([f"answer to {greeting}"])
        life = store.get(f"answer to {greeting}").decode()
        store.set(f"{life} heard by {rank}", "")
        return life
    life = os.urandom(8).hex()
    while not store.check([f"{life} heard by {r}" for r in range(1, size)]):
        for other in range(1, size):
            if store.check([f"greeting {other}"]):
                store.set(f"answer to {store.get(f'greeting {other}').decode()}", life)
        time.sleep(0.01)
    return life

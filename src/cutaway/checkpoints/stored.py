"""Tensors of a checkpoint that know their shape and are read when asked, straight into where they belong."""

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from cutaway.errors import CheckpointError

PIECE = 4 << 20  # bytes converted at once: small, so that loading needs little more than the model itself


def memory_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, to read into or to write from."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]


class File:
    """A file read by position into given memory, or mapped where its bytes are wanted as they are.

    What is converted is read: its mapped pages would count as ours, beside the numbers made of them.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed when its last tensor is forgotten)
            self.size = self.file.seek(0, 2)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be opened: {error.strerror}") from error

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()

    def into(self, out: Tensor, offset: int) -> None:
        """Fills the contiguous CPU tensor `out` with the bytes at `offset`."""
        memory = memory_of(out)
        done = 0
        try:
            self.file.seek(offset)
            while done < len(memory):
                count = self.file.readinto(memory[done:])  # type: ignore[arg-type]
                if not count:
                    raise CheckpointError(f"{self.path} ends in the middle of a tensor: fetch it again")
                done += count
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error.strerror}") from error

    @cached_property
    def mapping(self) -> mmap.mmap:
        """The file as memory. What is written there stays in this process, and pages that nobody writes are shared."""
        return mmap.mmap(self.file.fileno(), self.size, access=mmap.ACCESS_COPY)

    def bytes(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset`; fewer where the file ends."""
        out = torch.empty(max(0, min(count, self.size - offset)), dtype=torch.uint8)
        self.into(out, offset)
        return out.numpy().tobytes()


class Stored(ABC):
    """One tensor of a checkpoint, not read yet.

    Attributes:
        shape: as published.
        dtype: what the numbers are kept as, or what they decode to.
        path: the file it lies in, for messages.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, path: Path):
        self.shape, self.dtype, self.path = shape, dtype, path

    @abstractmethod
    def pieces(self) -> Iterator[Tensor]:
        """The numbers in order, a flat piece after another; each is valid until the next is asked for."""

    def fill(self, out: Tensor) -> None:
        """Reads everything into the flat contiguous `out`, of any dtype and device."""
        done = 0
        for piece in self.pieces():
            out[done : done + len(piece)].copy_(piece)
            done += len(piece)

    def equals(self, other: Tensor) -> bool:
        """Whether the numbers, at the dtype of the flat `other`, are those of `other`."""
        done = 0
        for piece in self.pieces():
            if not torch.equal(other[done : done + len(piece)], piece.to(other.device, other.dtype)):
                return False
            done += len(piece)
        return True

    def made(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The whole tensor as it is wanted. Writing to it changes nothing else."""
        out = torch.empty(self.shape, dtype=dtype, device=device)
        self.fill(out.view(-1))
        return out

    def read(self) -> Tensor:
        """The whole tensor, on the CPU, in memory of its own."""
        return Stored.made(self, self.dtype, torch.device("cpu"))


class Raw(Stored):
    """Plain numbers lying in a file, little-endian, in the order of the shape."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, file: File, offset: int):
        super().__init__(shape, dtype, file.path)
        self.file, self.offset = file, offset

    def pieces(self) -> Iterator[Tensor]:
        total, size = prod(self.shape), self.dtype.itemsize
        buffer = torch.empty(min(total, PIECE // size), dtype=self.dtype)
        for start in range(0, total, len(buffer) or 1):
            piece = buffer[: total - start]
            self.file.into(piece, self.offset + start * size)
            yield piece

    def fill(self, out: Tensor) -> None:
        if out.dtype == self.dtype and out.device.type == "cpu":
            self.file.into(out, self.offset)
        else:
            super().fill(out)

    def made(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """As above; where the file has it so already, eight times as fast as a copy."""
        count, as_is = prod(self.shape), dtype == self.dtype and device.type == "cpu"
        if not (as_is and count and self.offset % dtype.itemsize == 0):
            return super().made(dtype, device)
        try:
            return torch.frombuffer(self.file.mapping, dtype=dtype, count=count, offset=self.offset).view(self.shape)
        except (OSError, ValueError):  # a file system that maps nothing, or a file that was cut off since
            return super().made(dtype, device)


class Turned(Stored):
    """Another tensor as published, where the file lays it out otherwise."""

    def __init__(self, inner: Stored, turn: Callable[[Tensor], Tensor]):
        super().__init__(tuple(turn(torch.empty(inner.shape, device="meta")).shape), inner.dtype, inner.path)
        self.inner, self.turn = inner, turn

    def pieces(self) -> Iterator[Tensor]:
        yield self.turn(self.inner.read()).reshape(-1)

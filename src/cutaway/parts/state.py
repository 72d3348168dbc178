"""What a model remembers between calls: buffers made once and written in place, so a new token costs O(1) besides attention.

Slot rule, for full and bounded buffers alike: position p lives in slot p mod capacity. One more slot is a bin where
padding goes. So rows stay compact, each row has its own length, and the side of the padding does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cutaway.axes import Bool, Float, Int
from cutaway.errors import CapacityError, ConfigError
from cutaway.parts.context import Context
from cutaway.parts.position import check_length


class Held(Protocol):
    """What one site remembers of every row."""

    def tensors(self) -> Iterator[Tensor]:
        """All of it, for counting memory; the first axis is B."""
        ...

    def reorder(self, index: Int[Tensor, "n"]) -> None:
        """Row i becomes what row `index[i]` was."""
        ...


@dataclass
class Slots:
    """Which position each slot holds, (B, capacity + 1); -1 is empty. Layers of equal capacity share one."""

    pos: Int[Tensor, "b s"]

    @property
    def capacity(self) -> int:
        return self.pos.shape[1] - 1

    def used(self, fed: int) -> int:
        """How many slots can hold anything after `fed` columns, in steps of 64: room that is reserved costs nothing."""
        return min(self.capacity, -(-fed // 64) * 64)

    def write(self, pos: Int[Tensor, "b q"]) -> tuple[Int[Tensor, "b 1"], Int[Tensor, "b q"]]:
        """Note the new tokens, and say where they go: row and slot. Of more than fit, each row's last ones stay."""
        bin_, keep = self.capacity, pos >= 0
        if pos.shape[1] > self.capacity:
            keep = keep & (pos > pos.amax(1, keepdim=True) - self.capacity)
        slot, row = torch.where(keep, pos % self.capacity, bin_), torch.arange(pos.shape[0], device=pos.device)[:, None]
        self.pos[row, slot] = torch.where(keep, pos, -1)
        return row, slot


@dataclass
class KV:
    """The keys and values of one attention site, each (B, G, capacity + 1, E); keys may have a width of their own."""

    k: Float[Tensor, "b g s d"]
    v: Float[Tensor, "b g s e"]
    slots: Slots

    def extend(self, k: Tensor, v: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor, object]:
        """Remember the new keys and values (B, G, Q, E); returns what to attend to: k, v, positions, and whose they are."""
        rows, q = k.shape[0], k.shape[2]
        slots, owner = self.slots, self.slots.capacity
        pos = ctx.pos.expand(rows, -1)
        result: tuple[Tensor, Tensor, Tensor, object]
        fed, even = (owner, False) if ctx.state is None else (ctx.state.fed, ctx.state.even)
        end = min(fed, owner) if even else slots.used(fed)
        held_k, held_v, held_pos = self.k[:, :, :end], self.v[:, :, :end], slots.pos[:, :end]
        if ctx.fresh:
            result = k, v, ctx.pos, "own"
        elif q == 1:
            result = held_k, held_v, held_pos, ("newest" if even else "slots", owner)
        else:  # several tokens after others: the old ones as they are, then the new, before any old one is overwritten
            k_pos = ctx.once(("extended", owner), lambda: torch.cat([held_pos, pos], 1))
            result = torch.cat([held_k, k], 2), torch.cat([held_v, v], 2), k_pos, ("extended", owner)

        row, slot = ctx.once(("slot", owner), lambda: slots.write(pos))
        at = (fed - q) % owner
        if even and at + q <= owner:  # all rows alike, and not around the end: a plain copy, faster than one by index
            self.k.narrow(2, at, q).copy_(k)
            self.v.narrow(2, at, q).copy_(v)
        else:
            self.k[row, :, slot] = k.transpose(1, 2)
            self.v[row, :, slot] = v.transpose(1, 2)
        return result

    def tensors(self) -> Iterator[Tensor]:
        yield from (self.k, self.v)

    def reorder(self, index: Int[Tensor, "n"]) -> None:
        self.k, self.v = self.k.index_select(0, index), self.v.index_select(0, index)


@dataclass
class Memory:
    """The keys and values of one cross-attention site, each (B, G, S, E): computed once, on the first call."""

    k: Float[Tensor, "b g s e"]
    v: Float[Tensor, "b g s e"]
    tensors, reorder = KV.tensors, KV.reorder


@dataclass
class Cells:
    """What a recurrent part carries from token to token, of a size that does not grow: tensors whose first axis is B.

    A scan's state, an LSTM's h and c, running sums. Write in place (`cells["scan"].copy_(new)`), so that compiled
    code sees the same memory at every step.
    """

    held: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.held[name]

    def tensors(self) -> Iterator[Tensor]:
        yield from self.held.values()

    def reorder(self, index: Int[Tensor, "n"]) -> None:
        self.held = {name: x.index_select(0, index) for name, x in self.held.items()}


class State:
    """Everything one batch of sequences has behind it. `model(ids, padding, state=state)` continues from here.

    Args:
        batch: number of rows B.
        capacity: the most real tokens a row will ever hold, prompt included. Layers with a window hold only that.
    """

    def __init__(self, batch: int, capacity: int, device: torch.device | str | None = None) -> None:
        if batch < 1 or capacity < 1:
            raise ConfigError(f"a state needs batch >= 1 and capacity >= 1, not {batch} and {capacity}")
        self.capacity = capacity
        self.next = torch.zeros(batch, dtype=torch.int64, device=device)  # the position the next token will have
        self.calls = 0
        self.fed = 0  # columns fed so far: an upper bound of every row's length, known without reading a tensor
        self.even = not torch.compiler.is_compiling()  # no padding so far: every row is exactly `fed` long
        self.sites: dict[str, Held] = {}
        self.slots: dict[int, Slots] = {}

    @property
    def batch(self) -> int:
        return self.next.shape[0]

    @property
    def bytes(self) -> int:
        """Memory of all buffers, in bytes."""
        return sum(x.numel() * x.element_size() for x in self._tensors())

    def advance(
        self, tokens: int, padding: Bool[Tensor, "b q"] | None, max_positions: int | None = None
    ) -> Int[Tensor, "#b q"]:
        """The positions of the next `tokens` columns, -1 on padding, and move on.

        Raises:
            CapacityError: a row would hold more than `capacity` tokens, or than the model's `max_positions`. Nothing
                has changed then.
        """
        start = self.next[:, None]
        if padding is None:
            pos = start + torch.arange(tokens, device=start.device)
            after = self.next + tokens
        else:
            pos = torch.where(padding, start + padding.cumsum(1) - 1, -1)
            after = self.next + padding.sum(1)
        most = self.capacity if max_positions is None else min(self.capacity, max_positions)
        if self.fed + tokens > most and not torch.compiler.is_compiling():
            longest = int(after.max())
            if longest > self.capacity:
                raise CapacityError(
                    f"this state has room for {self.capacity} tokens a row, and {longest} were fed; "
                    "make it larger: State(batch, capacity)"
                )
            check_length(longest, max_positions)
        self.next.copy_(after)
        self.fed += tokens
        self.calls += 1
        self.even = self.even and padding is None and not torch.compiler.is_compiling()
        return pos[:1] if padding is None and self.calls == 1 else pos

    def kv(self, site: str, k: Tensor, v: Tensor, window: int | None) -> KV:
        """The buffers of a site, made on first use in its keys' dtype and device. Zeros: a NaN in an empty slot would leak."""
        found = self.sites.get(site)
        if isinstance(found, KV):
            return found
        capacity = self.capacity if window is None else min(window, self.capacity)
        if capacity not in self.slots:
            empty = torch.full((self.batch, capacity + 1), -1, dtype=torch.int64, device=k.device)
            self.slots[capacity] = Slots(empty)

        def buffer(x: Tensor) -> Tensor:
            return _zeros((self.batch, x.shape[1], capacity + 1, x.shape[3]), x)

        made = self.sites[site] = KV(buffer(k), buffer(v), self.slots[capacity])
        return made

    def cells(self, site: str, make: Callable[[], Mapping[str, Tensor]]) -> Cells:
        """The tensors of a recurrent site; `make` gives their beginning, on first use."""
        found = self.sites.get(site)
        if not isinstance(found, Cells):
            found = self.sites[site] = Cells(dict(make()))
        return found

    def reorder(self, index: Int[Tensor, "n"]) -> None:
        """Row i becomes what row `index[i]` was: beams that win are copied, those that lose vanish."""
        self.next = self.next.index_select(0, index)
        for slots in self.slots.values():
            slots.pos = slots.pos.index_select(0, index)
        for held in self.sites.values():
            held.reorder(index)

    def _tensors(self) -> Iterator[Tensor]:
        yield self.next
        yield from (slots.pos for slots in self.slots.values())
        for held in self.sites.values():
            yield from held.tensors()


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros in the dtype and device of another tensor. On a CPU the system makes a page when it is first touched."""
    if like.device.type != "cpu" or torch.compiler.is_compiling() or 0 in shape:
        return like.new_zeros(shape)
    untouched = torch.from_numpy(np.zeros(math.prod(shape) * like.element_size(), np.uint8))
    return untouched.view(like.dtype).view(shape)

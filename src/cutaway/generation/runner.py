"""A model run over sequences that grow token by token: the prompts once, then one new token a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cutaway.generation.prompts import pack
from cutaway.parts.model import EncoderDecoder
from cutaway.parts.state import State


class Past:
    """What a decoder has read of one sequence, so that a longer prompt that begins with it costs only what is new."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.state: State | None = None

    def before(self, prompt: list[int], room: int, device: torch.device) -> State:
        """The state to go on from: the one kept, or a fresh one, twice as large as it must be, where that does not fit."""
        kept, read, most = self.state, len(self.ids), len(prompt) + room
        # an interrupted forward leaves a state that was fed more than `ids`
        if not (kept and kept.fed == read < len(prompt) and most <= kept.capacity and prompt[:read] == self.ids):
            self.ids, self.state = [], State(1, 2 * most, device)
        assert self.state is not None
        return self.state


class Runner:
    """Next-token logits of B growing sequences, for decoders and encoder-decoders, cached or not.

    Args:
        model: `Model` (causal) or `EncoderDecoder`.
        prompts: what each sequence begins with, lists of ids; for an encoder-decoder, what the target begins with.
        room: how many tokens at most follow.
        sources: what the encoder reads, one list a sequence.
        cache: remember keys and values in a preallocated `State`; False recomputes everything at each step, which
            is the definition that the cached way must equal.
        past: what was read before of the one prompt, and grows as this is run. An encoder-decoder has none.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[list[int]],
        room: int,
        sources: Sequence[Sequence[int]] | None = None,
        cache: bool = True,
        past: Past | None = None,
    ) -> None:
        self.model = model
        device = next(model.parameters()).device
        self.ids, self.padding = pack(prompts, device)
        batch, longest = self.ids.shape
        self.memory, self.memory_padding = None, None
        if isinstance(model, EncoderDecoder) and sources is not None:
            source_ids, self.memory_padding = pack(sources, device)
            self.memory = model.encode(source_ids, self.memory_padding)  # (B, S, D)
        self.past = past if cache and sources is None else None
        self.state = None
        if self.past is not None:
            self.state = self.past.before(prompts[0], room, device)
            self.ids = self.ids[:, len(self.past.ids) :]
        elif cache:
            self.state = State(batch, longest + room, device)
        else:
            self.lengths = torch.tensor([len(row) for row in prompts], device=device)
            self.ids = torch.cat([self.ids, self.ids.new_zeros(batch, room)], 1)  # all it will ever hold

    def first(self) -> Tensor:
        """Feed the prompts: logits (B, V) of what follows each."""
        if self.state is None:
            return self._recompute()
        return self._run(self.ids, self.padding)

    def next(self, ids: Tensor) -> Tensor:
        """Feed one new token a row, (B,): logits (B, V) of what follows."""
        if self.state is None:
            self.ids[torch.arange(len(ids), device=ids.device), self.lengths] = ids
            self.lengths = self.lengths + 1
            return self._recompute()
        return self._run(ids[:, None], None)

    def reorder(self, index: Tensor) -> None:
        """Sequence i becomes a copy of sequence `index[i]`; there may be more or fewer afterwards."""
        if self.state is not None:
            self.state.reorder(index)
        else:
            self.ids, self.lengths = self.ids[index], self.lengths[index]
        if self.memory is not None:
            self.memory = self.memory[index]
        if self.memory_padding is not None:
            self.memory_padding = self.memory_padding[index]

    def _recompute(self) -> Tensor:
        columns = int(self.lengths.max())
        padding = torch.arange(columns, device=self.ids.device) < self.lengths[:, None]
        return self._run(self.ids[:, :columns], padding)

    def _run(self, ids: Tensor, padding: Tensor | None) -> Tensor:
        if self.memory is None:
            logits = self.model(ids, padding, state=self.state, last=True)
        else:
            model = self.model
            assert isinstance(model, EncoderDecoder)
            logits = model.decode(ids, self.memory, self.memory_padding, padding, state=self.state, last=True)
        if self.past is not None:
            self.past.ids += ids[0].tolist()
        return logits[:, -1]  # (B, V)

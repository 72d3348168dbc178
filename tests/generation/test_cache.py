"""The state under real families: whatever way tokens are fed, the logits are those of one uncached pass."""

import pytest
import torch
from tests.generation.models import pair, prompts

from cutaway.errors import CapacityError
from cutaway.parts.model import EncoderDecoder
from cutaway.parts.state import KV, State

NAMES = [
    "llama", "mistral", "gpt2", "t5", "flan", "mamba", "mamba2", "gptneox", "mpt", "bloom", "qwen2", "qwen3", "gemma2", "gpt",
    "bart", "mbart", "marian", "pegasus",
    "transformerxl", "xlnet", "linear", "performer", "performer-relu", "synthesizer", "synthesizer-both",
    "sparse", "sparse-fixed",
]  # fmt: skip


class Fed:
    """One model fed piece by piece; an encoder-decoder's decoder, over a fixed source with padding."""

    def __init__(self, name: str, rows: int = 1) -> None:
        self.model = pair(name)[1]
        if isinstance(self.model, EncoderDecoder):
            source = torch.randint(3, 90, (1, 6), generator=torch.Generator().manual_seed(1)).expand(rows, -1)
            self.source_padding = (torch.arange(6) < 5).expand(rows, -1)
            self.memory = self.model.encode(source, self.source_padding)

    @torch.no_grad()
    def __call__(self, ids, padding=None, state=None):
        if isinstance(self.model, EncoderDecoder):
            return self.model.decode(ids, self.memory, self.source_padding, padding, state=state)
        return self.model(ids, padding, state=state)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=float(expected.abs().max()) * 1e-5)


@pytest.mark.parametrize("pieces", [(1,) * 19, (19,), (7, 1, 1, 5, 1, 4), (2, 9, 8), (1, 18), (18, 1)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_pieces_equal_the_whole(name, pieces):
    fed = Fed(name)
    ids = torch.tensor(prompts(30, (19,)))
    state = State(1, 19)
    found = torch.cat([fed(piece, state=state) for piece in ids.split(pieces, 1)], 1)
    close(found, fed(ids))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_padded_rows_equal_their_rows_alone(name, side):
    """Prompts of unequal length, then single tokens, then several at once of which each row has its own number."""
    rows = prompts(31, (7, 2, 10))
    more = prompts(32, (5, 5, 5))
    later = [4, 1, 0]
    ids, padding = torch.zeros(3, 10, dtype=torch.int64), torch.zeros(3, 10, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(10 - len(row), 10)
        ids[i, place], padding[i, place] = torch.tensor(row), True
    last = (
        torch.arange(4) < torch.tensor(later)[:, None]
        if side == "right"
        else (torch.arange(4) >= 4 - torch.tensor(later)[:, None])
    )
    together, state = Fed(name, 3), State(3, 16)
    news = torch.tensor(more)
    first = together(ids, padding, state)
    single = together(news[:, :1], None, state)
    several = torch.zeros(3, 4, dtype=torch.int64)
    for i, n in enumerate(later):
        several[i, last[i]] = news[i, 1 : 1 + n]
    final = together(several, last, state)
    for i, row in enumerate(rows):
        whole = torch.tensor([[*row, *more[i][: 1 + later[i]]]])
        expected = Fed(name)(whole)[0]
        close(torch.cat([first[i][padding[i]], single[i], final[i][last[i]]]), expected)


@pytest.mark.parametrize("name", NAMES)
def test_reordered_rows_go_on_as_themselves(name):
    rows = torch.tensor(prompts(33, (6, 6, 6)))
    news = torch.tensor(prompts(34, (2, 2, 2, 2, 2)))
    index = torch.tensor([2, 0, 0, 1, 2])
    state = State(3, 8)
    Fed(name, 3)(rows, state=state)
    state.reorder(index)
    wider = Fed(name, 5)
    found = torch.cat([wider(news[:, :1], state=state), wider(news[:, 1:], state=state)], 1)
    close(found, wider(torch.cat([rows[index], news], 1))[:, 6:])


def test_a_window_bounds_the_buffers():
    """Mistral's window of 4: the ring has four slots however much comes, and forgets nothing that may be seen."""
    fed, state = Fed("mistral"), State(1, 60)
    ids = torch.tensor(prompts(35, (60,)))
    found = torch.cat([fed(piece, state=state) for piece in ids.split((9, *(1,) * 40, 3, 6, 2), 1)], 1)
    close(found, fed(ids))
    assert {held.k.shape[2] for held in state.sites.values() if isinstance(held, KV)} == {4 + 1}


def test_a_state_takes_no_more_than_it_has_room_for():
    fed, state = Fed("llama"), State(1, 5)
    ids = torch.tensor(prompts(36, (6,)))
    fed(ids[:, :5], state=state)
    with pytest.raises(CapacityError, match="room for 5 tokens"):
        fed(ids[:, 5:], state=state)

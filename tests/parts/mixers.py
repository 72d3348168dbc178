"""How the tests of mixers call them: positions with and without padding, in one pass or piece by piece."""

from typing import Any

import torch
from torch import Tensor, nn

from cutaway.attention import recording
from cutaway.parts import Context, State


def whole(tokens: int) -> Context:
    return Context(torch.arange(tokens)[None], site="mixer")


def padded(rows: list[list[int]]) -> Context:
    """1 is a token and 0 padding."""
    real = torch.tensor(rows, dtype=torch.bool)
    return Context(torch.where(real, real.cumsum(1) - 1, -1), packing="any", site="mixer")


def mixed(mixer: nn.Module, x: Tensor, ctx: Context) -> Tensor:
    """What the mixer hands its output projection, (B, H, T, E)."""
    seen: list[Tensor] = []
    hook = mixer.out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    mixer(x, ctx)
    hook.remove()
    return torch.cat(seen, 1).unflatten(2, (-1, mixer.head_width)).transpose(1, 2)  # type: ignore[arg-type]


def check_padding(mixer: nn.Module, width: int, lengths: tuple[int, ...] = (5, 9, 1), bound: float = 1e-5) -> None:
    """Left, right and in between: every row is what it is alone."""
    longest = max(lengths) + 3
    texts = [torch.randn(1, n, width) for n in lengths]
    alone = [mixer(x, whole(x.shape[1])) for x in texts]
    for side in ("left", "right", "between"):
        batch, rows = torch.randn(len(lengths), longest, width) * 5, []
        for i, n in enumerate(lengths):
            real = [False] * longest
            columns = {"left": range(longest - n, longest), "right": range(n), "between": [2 + j for j in range(n)]}[
                side
            ]
            columns = [c + 1 if side == "between" and j >= n // 2 else c for j, c in enumerate(columns)]
            for j, c in enumerate(columns):
                real[c], batch[i, c] = True, texts[i][0, j]
            rows.append(real)
        found = mixer(batch, padded([[int(r) for r in row] for row in rows]))
        for i, real in enumerate(rows):
            torch.testing.assert_close(found[i, real], alone[i][0], rtol=bound, atol=bound)


def check_pieces(mixer: nn.Module, width: int, sizes: tuple[int, ...], bound: float = 1e-5) -> State:
    """Read in pieces from a state: as in one pass."""
    x = torch.randn(2, sum(sizes), width)
    state, found = State(2, sum(sizes)), []
    for piece in x.split(sizes, 1):
        pos = state.advance(piece.shape[1], None)
        found.append(mixer(piece, Context(pos, state=state, fresh=state.calls == 1, site="mixer")))
    torch.testing.assert_close(torch.cat(found, 1), mixer(x, whole(x.shape[1])), rtol=bound, atol=bound)
    return state


def check_pattern(mixer: nn.Module, width: int, tokens: int, bound: float = 1e-5) -> Tensor:
    """Pattern times values is what goes into the output projection; recording changes nothing. Returns the pattern."""
    x = torch.randn(2, tokens, width)
    pattern: Any = None
    for ctx in (
        whole(tokens),
        padded([[1] * tokens, [0, 0] + [1] * (tokens - 3) + [0] if tokens > 3 else [1] * tokens]),
    ):
        expected = mixed(mixer, x, ctx)
        with recording() as trace:
            again = mixed(mixer, x, Context(ctx.pos, ctx.packing, site="mixer"))
        assert torch.equal(expected, again)
        record = trace["mixer"]
        real = (ctx.pos >= 0)[:, None, :, None]
        found = record.weights() @ record.v
        torch.testing.assert_close(found * real, expected * real, rtol=bound, atol=bound)
        assert not record.v.requires_grad
        assert not record.weights().requires_grad
        pattern = record.weights() if pattern is None else pattern
    return pattern


def gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return [g for g in torch.autograd.grad(loss, inputs, allow_unused=True) if g is not None]

"""Another part in a family's place, by name: `build("gpt2", mixer=["attention", "mamba"], position="rotary")`.

Each name stands for a part of `cutaway.parts`, made for the sizes of the model it goes into. `read` turns names into
the factories that every family's `compose` takes, or says why the parts cannot go together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from torch import nn

from cutaway import parts
from cutaway.attention import Full, Mask
from cutaway.errors import ConfigError
from cutaway.mixers import MIXERS, Mixer
from cutaway.parts import FeedForward, Gated, Positions

KINDS = ("norm", "position", "feedforward", "mixer", "embedding")
DEFAULT_CONTEXT = 512  # learned positions where a family has no longest context of its own


NORMS: dict[str, Callable[[Any], nn.Module]] = {
    "layer": lambda s: parts.LayerNorm(s.width, getattr(s, "eps", 1e-5)),
    "rms": lambda s: parts.RMSNorm(s.width, getattr(s, "eps", 1e-6)),
    "std": lambda s: parts.StdNorm(s.width, getattr(s, "eps", 1e-6)),
}
POSITIONS: dict[str, Callable[[Any, bool], Positions]] = {
    "none": lambda s, causal: Positions(),
    "learned": lambda s, causal: Positions([parts.LearnedPositions(_context(s), _table(s))], limit=_context(s)),
    "sinusoidal": lambda s, causal: Positions([parts.SinusoidalPositions(_table(s))]),
    "rotary": lambda s, causal: Positions(steps=[parts.Rotary(_head_width(s), getattr(s, "rotary_base", 10_000.0))]),
    "alibi": lambda s, causal: Positions(bias=parts.ALiBi(s.heads)),
    "t5": lambda s, causal: Positions(bias=parts.T5Bias(s.heads, not causal)),
}
IN_ATTENTION = {  # what a mixer without it says
    "rotary": "no queries and keys that {} positions could turn",
    **dict.fromkeys(("alibi", "t5"), "no scores that {} could add to"),
}
FEEDFORWARDS: dict[str, Callable[[Any], nn.Module]] = {
    **{
        act: lambda s, act=act: FeedForward(s.width, s.hidden, act)
        for act in ("relu", "relu2", "gelu", "gelu_tanh", "silu")
    },
    "swiglu": lambda s: Gated(s.width, s.hidden, "silu"),
    "geglu": lambda s: Gated(s.width, s.hidden, "gelu"),
    "reglu": lambda s: Gated(s.width, s.hidden, "relu"),
}
EMBEDDINGS: dict[str, str] = {"ngrams": "the last tokens together, hashed; ngrams:5 looks at five"}


def read(swaps: Mapping[str, str | Sequence[str]], sizes: Any) -> dict[str, Callable[..., Any]]:
    """The keyword arguments of `compose` that put these parts into a model of `sizes`.

    Args:
        swaps: by kind ("norm", "position", "feedforward", "mixer"; `embed` reads "embedding") the name of a part; of
            mixers there may be several, which the blocks take in turn. "window:256" gives a mixer its number.

    Raises:
        ConfigError: an unknown name, or parts that cannot go together.
    """
    for kind in swaps:
        if kind not in KINDS:
            raise ConfigError(f"no part of kind {kind!r} can be swapped; {', '.join(KINDS)} can")
    made: dict[str, Callable[..., Any]] = {}
    if "norm" in swaps:
        norm = _named("norm", swaps["norm"], NORMS)
        made["norm"] = lambda: norm(sizes)
    if "position" in swaps:
        position = _named("position", swaps["position"], POSITIONS)
        made["position"] = _Placed(str(swaps["position"]), position, sizes)
    if "feedforward" in swaps:
        if not hasattr(sizes, "hidden"):
            raise ConfigError("this family has no feed-forward network of its own to put another in place of")
        feedforward = _named("feedforward", swaps["feedforward"], FEEDFORWARDS)
        made["feedforward"] = lambda: feedforward(sizes)
    if "mixer" in swaps:
        given = swaps["mixer"]
        made["mixer"] = _InTurn(list(given) if isinstance(given, (list, tuple)) else [given], _context(sizes))
    return made


def compose(family: ModuleType, swaps: Mapping[str, str | Sequence[str]], sizes: Any) -> nn.Module:
    """The family's model with these parts in the place of its own.

    Raises:
        ConfigError: as `read` does, or positions that the model has no place for.
    """
    made = read(swaps, sizes)
    model = family.compose(sizes, **made)
    if isinstance(placed := made.get("position"), _Placed):
        placed.check(model)
    if "embedding" in swaps:
        embed(model, swaps["embedding"])
    return model


def mixer(*names: str, context: int = DEFAULT_CONTEXT) -> Callable[..., nn.Module]:
    """What makes the mixers of these names in turn, called as `Attention` is: `mixer("window:64")(256, 4, mask=Causal())`.

    `context` is the most tokens for those that have weights for each position.

    Raises:
        ConfigError: an unknown name, or a number it has no use for.
    """
    return _InTurn(names, context)


class _Placed:
    """Makes positions, and remembers them: a mixer without queries, keys or scores leaves out what is for these."""

    def __init__(self, name: str, make: Callable[[Any, bool], Positions], sizes: Any) -> None:
        self.name, self.make, self.sizes = name, make, sizes
        self.parts: list[nn.Module] = []

    def __call__(self, causal: bool) -> Positions:
        if self.name in IN_ATTENTION and not hasattr(self.sizes, "heads"):
            raise self._nowhere()
        place = self.make(self.sizes, causal)
        self.parts += [*place.embedding, *place.steps, *([] if place.bias is None else [place.bias])]
        return place

    def check(self, model: nn.Module) -> None:
        there = set(model.modules())
        if any(part not in there for part in self.parts):
            raise self._nowhere()

    def _nowhere(self) -> ConfigError:
        what = IN_ATTENTION.get(self.name, "no embeddings that {} positions could add to").format(self.name)
        return ConfigError(f"its mixer has {what}; choose another position or mixer")


def embed(model: nn.Module, name: Any) -> None:
    """Puts a part behind the look-up of the token embeddings of a model: "ngrams" or "ngrams:N", for decoders.

    Raises:
        ConfigError: an unknown name, or a model it cannot go into.
    """
    kind, _, number = name.partition(":") if isinstance(name, str) else (name, "", "")
    _named("embedding", kind, EMBEDDINGS)
    if number and (not number.isdecimal() or not 2 <= int(number) <= 16):
        raise ConfigError(
            f"embedding {kind!r} takes how many tokens at most are looked up together, 2 to 16, not {number!r}"
        )
    embedding = getattr(getattr(model, "stack", None), "embedding", None)
    if not isinstance(embedding, parts.Embedding) or not getattr(model, "causal", False):
        raise ConfigError(
            f"{kind} look back along a text: they go into a decoder with a table of its tokens, and nowhere else"
        )
    table = embedding.tokens
    made = parts.HashedNGrams(table.num_embeddings, table.embedding_dim, int(number or 5))
    parts.initialise(made)
    for weight in made.tables.parameters():
        nn.init.normal_(weight)
    embedding.steps.insert(0, made)


class _InTurn:
    """Called once a block, as `Attention` is; each call gives the next of the mixers, and after the last the first."""

    def __init__(self, names: Sequence[Any], context: int) -> None:
        self.context = context
        if not names:
            raise ConfigError("mixer needs at least one name")
        self.chosen = [_mixer(name) for name in names]
        self.calls = 0

    def __call__(self, width: int, heads: int, *rest: Any, mask: Mask = Full(), **given: Any) -> nn.Module:
        name, mixer, number = self.chosen[self.calls % len(self.chosen)]
        self.calls += 1
        given |= dict(zip(("kv_heads", "head_width"), rest, strict=False))
        if not mixer.both_ways and not mask.causal:
            raise ConfigError(f"{name} reads from left to right: it cannot stand in an encoder, which looks both ways")
        if not mixer.causal and mask.causal:
            raise ConfigError(f"{name} sums over all tokens: it cannot stand in a decoder, which looks back only")
        return mixer.make(width, heads, number, {**given, "mask": mask}, self.context)


def _mixer(given: Any) -> tuple[str, Mixer, int | None]:
    name, _, number = given.partition(":") if isinstance(given, str) else (given, "", "")
    mixer = _named("mixer", name, MIXERS)
    if not number:
        return name, mixer, None
    if mixer.number is None or not number.isdecimal() or int(number) < 1:
        takes = f"a number ({mixer.number})" if mixer.number else "no number"
        raise ConfigError(f"the mixer {name!r} takes {takes}, not {number!r}")
    return name, mixer, int(number)


def _named(kind: str, name: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(name, str) and name in known:
        return known[name]
    near = get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise ConfigError(f"no {kind} {name!r}; {hint}")


def _context(sizes: Any) -> int:
    return getattr(sizes, "context", None) or DEFAULT_CONTEXT


def _head_width(sizes: Any) -> int:
    return getattr(sizes, "head_width", None) or sizes.width // sizes.heads


def _table(sizes: Any) -> int:
    """The width of what positions are added to: that of the tables, where it is not that of the layers."""
    return getattr(sizes, "table_width", sizes.width)

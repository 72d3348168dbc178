"""Reformer. Decoder or encoder · LayerNorm before · axial positions · local and LSH attention · ReLU · reversible layers.

Kitaev et al. 2020 (arXiv:2001.04451): attention among tokens that hash alike, or within neighbouring chunks; layers whose
inputs are computed back from their outputs; the two halves of the states are joined at the end, hence a head of 2D.
Deviations: where a config leaves the number of buckets open, it follows from the longest text the model takes, not from
the first it happens to read; without a `hash_seed`, hashes are random in training and always the same in evaluation;
padding changes nothing, nor do other rows; the last layer has its published bias, which transformers 5 forgets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from math import isqrt, prod
from typing import Any

from torch import nn

from cutaway.attention import Causal, Full, Window
from cutaway.attention.chunks import Chunks, Ring
from cutaway.errors import ConfigError
from cutaway.families.names import architecture, class_heads, modules
from cutaway.families.sizes import Checked
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, ignore
from cutaway.parts import (
    Attention,
    AxialPositions,
    Branch,
    Dropout,
    Embedding,
    FeedForward,
    First,
    LanguageHead,
    LayerNorm,
    LearnedPositions,
    LSHAttention,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Model,
    Positions,
    ReversibleBlock,
    ReversibleStack,
    SequenceHead,
    TokenHead,
    choose_head,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 320
    width: int = 256
    layers: int = 6
    heads: int = 12
    hidden: int = 512
    head_width: int = 64
    context: int = 4096
    kinds: tuple[str, ...] = ("local", "lsh")  # of attention; the layers take them in turn
    grid: tuple[int, ...] | None = (64, 64)  # axial positions; None: learned ones
    grid_widths: tuple[int, ...] = (64, 192)
    local_chunk: int = 64
    local_before: int | None = 1  # neighbouring chunks; None: none
    local_after: int | None = None
    lsh_chunk: int = 64
    lsh_before: int | None = 1
    lsh_after: int | None = None
    rounds: int = 1
    hash_buckets: tuple[int, ...] | None = None  # factors of their number; None: by the longest text
    hash_seed: int | None = None
    feedforward_chunk: int | None = None  # tokens whose hidden numbers are alive at once in training; None: all
    causal: bool = False
    eps: float = 1e-12
    act: str = "relu"
    dropout: float = 0.05
    head: str = "none"
    labels: int = 2

    def __post_init__(self) -> None:
        for name in ("kinds", "grid", "grid_widths", "hash_buckets"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()
        kinds = self.kinds
        if not kinds or not set(kinds) <= {"local", "lsh"}:
            raise ConfigError(f"attention is 'local' or 'lsh' in each layer, not {kinds}")
        every = tuple(kinds[i % len(kinds)] for i in range(self.layers))  # equal models have equal sizes
        short = next(n for n in range(1, self.layers + 1) if all(every[i] == every[i % n] for i in range(self.layers)))
        object.__setattr__(self, "kinds", every[:short])
        if self.grid is None:
            object.__setattr__(self, "grid_widths", (64, 192))


_BOOK = Sizes(heads=2, context=524288, grid=(512, 1024), hash_buckets=(64, 128), causal=True, head="lm")
_WIKI = Sizes(
    vocab=258, width=1024, layers=12, heads=8, hidden=4096, head_width=128, context=65536, grid=(128, 512),
    grid_widths=(256, 768), local_chunk=128, lsh_chunk=256, rounds=4,
    hash_buckets=(512,), causal=True, dropout=0.2, head="lm",
    kinds=("local", "local", "lsh", "local", "local", "local", "lsh", "local", "local", "local", "lsh", "local"),
)  # fmt: skip
PRESETS = {"reformer-crime-and-punishment": _BOOK, "reformer-enwik8": _WIKI}
# elements of the published weights
PARAMETERS = {"reformer-crime-and-punishment": 2_748_224, "reformer-enwik8": 149_182_722}


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    position = position or (lambda causal: Positions([axial(s)], limit=longest(s)))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act, dropout=s.dropout))
    place, reach = position(s.causal), Causal() if s.causal else Full()
    around = s.local_chunk, s.local_before or 0, s.local_after or 0
    near = reach & Chunks(*around) & Window(Chunks(*around).window) if s.causal else Ring(*around)
    hashed = partial(
        LSHAttention,
        chunk=s.lsh_chunk,
        before=s.lsh_before or 0,
        after=s.lsh_after or 0,
        rounds=s.rounds,
        buckets=s.hash_buckets or buckets(longest(s), s.lsh_chunk, s.context),
        seed=s.hash_seed,
    )

    def attention(kind: str) -> nn.Module:
        make, mask = {"local": (Attention, near), "lsh": (hashed, reach)}[kind]
        given = {"mask": reach if mixer else mask, "bias": False, "dropout": s.dropout, **place.attention}
        return Branch(norm(), (mixer or make)(s.width, s.heads, None, s.head_width, **given), s.dropout)

    blocks = [
        ReversibleBlock(
            attention=attention(s.kinds[i % len(s.kinds)]),
            feedforward=Branch(norm(), feedforward(), s.dropout, s.feedforward_chunk),
        )
        for i in range(s.layers)
    ]
    table = Embedding(s.vocab, s.width, steps=[Dropout(s.dropout), *place.embedding])
    stack = ReversibleStack(table, blocks, LayerNorm(2 * s.width, s.eps), s.dropout)
    heads = {
        "lm" if s.causal else "masked-lm": lambda: LanguageHead(2 * s.width, s.vocab, bias=True),
        "none": lambda: None,
        "span": lambda: TokenHead(2 * s.width, 2),
        "sequence": lambda: SequenceHead(
            First(),
            s.width,
            s.labels,
            dropout=s.dropout,
            transform=nn.Sequential(nn.Linear(2 * s.width, s.width), nn.Tanh()),
        ),
    }
    model = Model(stack, choose_head(s.head, heads), causal=s.causal, max_positions=place.limit)
    initialise(model)
    return model


def axial(s: Sizes) -> nn.Module:
    """The published positions of these sizes."""
    if s.grid is None:
        return LearnedPositions(s.context, s.width)
    return AxialPositions(s.grid, s.grid_widths, s.width)


def longest(s: Sizes) -> int:
    """The most tokens there are positions for."""
    return s.context if s.grid is None else min(s.context, prod(s.grid))


def buckets(tokens: int, chunk: int, context: int) -> tuple[int, ...]:
    """A power of two, at most 2·T/C, in two factors where it is large (the published rule)."""
    power = max(1, (2 * (tokens // chunk)).bit_length() - 1)
    if 2**power > 2 * max(isqrt(context // chunk), chunk):
        return 2 ** (power // 2), 2 ** (power - power // 2)
    return (2**power,)


MODEL_TYPES = ("reformer",)
ARCHITECTURES = {
    "ModelWithLMHead": "lm",
    "ForMaskedLM": "masked-lm",
    "ForSequenceClassification": "sequence",
    "ForQuestionAnswering": "span",
}
CONFIG = {
    "vocab": "vocab_size", "width": "hidden_size", "heads": "num_attention_heads", "hidden": "feed_forward_size",
    "head_width": "attention_head_size", "context": "max_position_embeddings", "local_chunk": "local_attn_chunk_length",
    "lsh_chunk": "lsh_attn_chunk_length", "rounds": "num_hashes", "causal": "is_decoder", "eps": "layer_norm_eps",
    "act": "hidden_act", "dropout": "hidden_dropout_prob",
}  # fmt: skip
NEIGHBOURS = {
    "local_before": ("local_num_chunks_before", 1), "local_after": ("local_num_chunks_after", 0),
    "lsh_before": ("lsh_num_chunks_before", 1), "lsh_after": ("lsh_num_chunks_after", 0),
    "feedforward_chunk": ("chunk_size_feed_forward", 0),
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "reformer")
    given = keys.sizes(CONFIG, Sizes)
    kinds = whole_list(keys, "attn_layers", ["local", "lsh"] * 3, str)
    number, grid = keys.take("num_buckets", None), keys.take("axial_pos_embds", True)
    for name, (theirs, default) in NEIGHBOURS.items():
        given[name] = keys.take(theirs, default, int) or None
    shape, widths = whole_list(keys, "axial_pos_shape", [64, 64]), whole_list(keys, "axial_pos_embds_dim", [64, 192])
    keys.expect("tie_word_embeddings", False)
    keys.ignore("axial_norm_std", "initializer_range", "chunk_size_lm_head", "classifier_dropout", "num_hidden_layers")
    keys.ignore("local_attention_probs_dropout_prob", "lsh_attention_probs_dropout_prob")
    # left over in the published configs, where other keys replaced them
    keys.ignore("attention_probs_dropout_prob", "intermediate_size", "num_chunks_before", "num_chunks_after")
    sizes = Sizes(
        **given,
        layers=len(kinds),
        kinds=tuple(kinds),
        grid=tuple(shape) if grid else None,
        grid_widths=tuple(widths),
        hash_buckets=None if number is None else tuple(number) if isinstance(number, (list, tuple)) else (number,),
        hash_seed=keys.take("hash_seed", None),
        head=keys.head(ARCHITECTURES, "none"),
        labels=keys.labels(),
    )
    keys.finish()
    return sizes


def whole_list(keys: Keys, name: str, default: list[Any], of: type = int) -> list[Any]:
    """A key that holds a list of one type."""
    found = keys.take(name, default, None)
    found = list(found) if isinstance(found, tuple) else found
    if not isinstance(found, list) or not found or any(type(x) is not of for x in found):
        raise ConfigError(f"the reformer config has {name}: {found!r}; a list of type {of.__name__} is needed")
    return found


def single(factors: tuple[int, ...] | None) -> int | list[int] | None:
    """A number that has one factor, or the list of several."""
    if factors is None:
        return None
    return factors[0] if len(factors) == 1 else list(factors)


def write(s: Sizes) -> dict[str, Any]:
    config = {
        "model_type": "reformer",
        "architectures": [architecture("Reformer", s.head, ARCHITECTURES)],
        **published(s, CONFIG),
        "attn_layers": [s.kinds[i % len(s.kinds)] for i in range(s.layers)],
        "num_hidden_layers": s.layers,
        "axial_pos_embds": s.grid is not None,
        "axial_pos_shape": list(s.grid or (64, 64)),
        "axial_pos_embds_dim": list(s.grid_widths),
        "num_buckets": single(s.hash_buckets),
        "hash_seed": s.hash_seed,
        **{theirs: getattr(s, name) or 0 for name, (theirs, _) in NEIGHBOURS.items()},
        "local_attention_probs_dropout_prob": s.dropout,
        "lsh_attention_probs_dropout_prob": s.dropout,
        **labelled(s.head, s.labels),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    body = "(|reformer.)" if s.head == "none" else "(reformer.|)"
    layer, block = f"{body}encoder.layers.{{i}}", "stack.blocks.{i}"
    place, step = f"{body}embeddings.position_embeddings", "stack.embedding.steps.1"
    rules = [
        Rule(f"{body}embeddings.word_embeddings", "stack.embedding.tokens"),
        Rule(f"{body}encoder.layer_norm", "stack.norm"),
        *modules(
            f"{layer}.attention",
            f"{block}.attention",
            {
                "layer_norm": "norm",
                "self_attention.query_key": "inner.qk",
                "self_attention.query": "inner.q",
                "self_attention.key": "inner.k",
                "self_attention.value": "inner.v",
                "output.dense": "inner.out",
            },
        ),
        *modules(
            f"{layer}.feed_forward",
            f"{block}.feedforward",
            {"layer_norm": "norm", "dense.dense": "inner.up", "output.dense": "inner.down"},
        ),
        ignore("*mask_value_float(16|32)"),
        *class_heads(s.head, {"classifier.dense": "head.transform.0", "classifier.out_proj": "head.out"}),
    ]
    if s.grid is None:
        rules.append(Rule(f"{place}.embedding", step))
    else:
        rules += [Rule(f"{place}.weights.0", f"{step}.rows"), Rule(f"{place}.weights.1", f"{step}.columns")]
    if s.head in ("lm", "masked-lm"):
        rules += [Rule("lm_head.decoder", "head.tokens"), Rule("lm_head.(bias|decoder.bias)", "head.bias")]
    return rules

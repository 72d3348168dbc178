"""Transformer-XL. Decoder · LayerNorm after · relative positions, shifted · memory of segments · ReLU · adaptive tables.

Dai et al. 2019 (arXiv:1901.02860); adaptive tables as Baevski and Auli 2019. A `State` is the memory: segments fed one
after the other look at the `memory` tokens before them, with bounded buffers however long the text is. With
`same_length` every token sees `memory` tokens, itself included, so that segments of any length give what one long pass
gives. The head gives log-probabilities. Deviations: before the first token there is nothing to look at, as in the
authors' PyTorch code; the reference begins with `memory` vectors of zeros, which the first tokens do look at, unless it
is handed empty memories.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cutaway.attention import Causal, Full, Window
from cutaway.errors import ConfigError
from cutaway.families.names import architecture
from cutaway.families.sizes import Checked
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, ignore, split, tied
from cutaway.parts import (
    AdaptiveEmbedding,
    AdaptiveSoftmax,
    AdaptiveTokens,
    Block,
    Distances,
    Dropout,
    FeedForward,
    Last,
    LayerNorm,
    LayerPositions,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Model,
    PostNorm,
    PreNorm,
    Recall,
    RecurrentAttention,
    RelativeScores,
    SequenceHead,
    Stack,
    choose_head,
    initialise,
)
from cutaway.parts.relative_shift import vectors


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 267735
    width: int = 1024
    layers: int = 18
    heads: int = 16
    head_width: int = 64
    hidden: int = 4096
    table_width: int = 1024
    cutoffs: tuple[int, ...] = (20000, 40000, 200000)
    div: int = 4
    memory: int | None = 1600  # tokens before a segment that it looks at; None: all that a state holds
    same_length: bool = True  # every token sees `memory` tokens, its own included, wherever it stands in its segment
    clamp: int | None = 1000  # farther distances count as this one
    pre_norm: bool = False
    shared_biases: bool = False  # u and v are the same in all layers
    shared_projects: bool = True  # of the tables: the head's are the embedding's, but the first
    tied: bool = True
    eps: float = 1e-5
    dropout: float = 0.1
    attention_dropout: float = 0.0
    head: str = "lm"
    labels: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.cutoffs, list):
            object.__setattr__(self, "cutoffs", tuple(self.cutoffs))
        super().__post_init__()
        if self.same_length and self.memory is None:
            raise ConfigError("same_length needs a memory: every token sees so many")


PRESETS = {"transfo-xl-wt103": Sizes()}
# elements of the reference's model of the published configuration, tied tables counted once
PARAMETERS = {"transfo-xl-wt103": 285_205_322}


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, "relu", dropout=s.dropout))
    place = (position or (lambda causal: _positions(s)))(True)
    seen = Full() if s.memory is None else Window(s.memory) if s.same_length else Recall(s.memory)

    def attention() -> nn.Module:
        given = {"mask": Causal() & seen, "dropout": s.attention_dropout, **place.attention}
        return (mixer or RecurrentAttention)(s.width, s.heads, None, s.head_width, **given)

    def joined(inner: nn.Module) -> nn.Module:
        return PreNorm(norm(), inner, s.dropout) if s.pre_norm else PostNorm(inner, norm(), s.dropout)

    blocks = [Block(attention=joined(attention()), feedforward=joined(feedforward())) for _ in range(s.layers)]
    tokens = AdaptiveTokens(s.vocab, s.width, s.table_width, s.cutoffs, s.div)
    steps = [*place.embedding, Dropout(s.dropout)]
    embedding = AdaptiveEmbedding(tokens, s.width, scale=s.width**0.5, steps=steps)
    heads = {
        "lm": lambda: AdaptiveSoftmax(tokens, s.width, tied=s.tied, shared_projects=s.shared_projects),
        "sequence": lambda: SequenceHead(Last(), s.width, s.labels, bias=False),
        "none": lambda: None,
    }
    stack = Stack(embedding, blocks, Dropout(s.dropout))
    model = Model(stack, choose_head(s.head, heads), causal=True, max_positions=place.limit)
    initialise(model)
    return model


def _positions(s: Sizes) -> LayerPositions:
    distances = Distances(s.width, False, s.clamp, s.dropout)
    memory = None if s.same_length else s.memory
    biases = (vectors(s.heads, s.head_width), vectors(s.heads, s.head_width)) if s.shared_biases else None
    return LayerPositions(
        each=lambda: RelativeScores(distances, s.width, s.heads, s.head_width, biases=biases, memory=memory)
    )


MODEL_TYPES = ("transfo-xl",)
ARCHITECTURES = {"LMHeadModel": "lm", "ForSequenceClassification": "sequence"}
CONFIG = {
    "vocab": "vocab_size", "width": "d_model", "layers": "n_layer", "heads": "n_head", "head_width": "d_head",
    "hidden": "d_inner", "table_width": "d_embed", "div": "div_val", "same_length": "same_length",
    "pre_norm": "pre_lnorm", "shared_projects": "proj_share_all_but_first", "eps": "layer_norm_epsilon",
    "dropout": "dropout", "attention_dropout": "dropatt",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "transfo-xl")
    given = keys.sizes(CONFIG, Sizes)
    keys.expect("attn_type", 0)
    keys.expect("sample_softmax", -1, 0)
    keys.expect("n_token", given["vocab"])
    keys.expect("adaptive", True)
    # of the training, and what the reference derives from other keys
    keys.ignore("init", "init_range", "init_std", "proj_init_std", "tgt_len", "ext_len", "trainer_compatible")
    memory, clamp = keys.take("mem_len", 1600), keys.take("clamp_len", 1000)
    cutoffs = keys.take("cutoffs", [20000, 40000, 200000])
    shared = given["shared_projects"]
    if "tie_projs" in config:  # what newer configurations say instead, for each cluster
        shared = (
            keys.expect("tie_projs", [False, *[True] * len(cutoffs)], [False] * (len(cutoffs) + 1))[-1] or not cutoffs
        )
    sizes = Sizes(
        **{**given, "shared_projects": shared},
        cutoffs=tuple(cutoffs),
        memory=memory or None,
        clamp=clamp if clamp > 0 else None,
        shared_biases=not keys.take("untie_r", True),
        tied=keys.take("tie_word_embeddings", True) and keys.take("tie_weight", True),
        head=keys.head(ARCHITECTURES, "lm"),
        labels=keys.labels(),
    )
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    config = {
        "model_type": "transfo-xl",
        "architectures": [architecture("TransfoXL", s.head, ARCHITECTURES)],
        **published(s, CONFIG),
        "cutoffs": list(s.cutoffs),
        "mem_len": s.memory or 0,
        "clamp_len": s.clamp or -1,
        "tie_projs": [False, *[s.shared_projects] * len(s.cutoffs)],
        "untie_r": not s.shared_biases,
        "tie_word_embeddings": s.tied,
        **labelled(s.head, s.labels),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    body = "(|transformer.)" if s.head == "none" else "(transformer.|)"
    tables, layer, block = "stack.embedding.tokens", f"{body}layers.{{i}}", "stack.blocks.{i}"
    bias = f"{block}.attention.inner.score_bias"
    many = s.div != 1
    rules = [
        Rule(f"{body}word_emb.emb_layers.{{j}}", f"{tables}.tables.{{j}}"),
        Rule(f"{body}word_emb.emb_projs.{{j}}", f"{tables}.projects.{{j}}.weight"),
        Rule(f"{layer}.dec_attn.qkv_net", tuple(f"{block}.attention.inner.{name}" for name in "qkv"), split(3)),
        Rule(f"{layer}.dec_attn.o_net", f"{block}.attention.inner.out"),
        Rule(f"{layer}.dec_attn.r_net", f"{bias}.r"),
        Rule(f"{layer}.dec_attn.layer_norm", f"{block}.attention.norm"),
        Rule(f"{layer}.pos_ff.CoreNet.0", f"{block}.feedforward.inner.up"),
        Rule(f"{layer}.pos_ff.CoreNet.3", f"{block}.feedforward.inner.down"),
        Rule(f"{layer}.pos_ff.layer_norm", f"{block}.feedforward.norm"),
        Rule("score", "head.out"),
        ignore(f"{body}pos_emb.inv_freq"),
    ]
    for theirs, ours in (("r_w_bias", "u"), ("r_r_bias", "v")):
        if s.shared_biases:
            shared = f"stack.blocks.0.attention.inner.score_bias.{ours}"
            rules.append(Rule(f"{body}{theirs}", shared))
            # written in every layer too: the reference draws afresh what it misses there
            rules += [Rule(f"{body}layers.{i}.dec_attn.{theirs}", shared) for i in range(s.layers)]
        else:
            rules.append(Rule(f"{layer}.dec_attn.{theirs}", f"{bias}.{ours}"))
    if s.head != "lm":
        return [*rules, ignore("crit.*")]
    rules += [
        Rule("crit.cluster_weight", "head.cluster.weight"),
        Rule("crit.cluster_bias", "head.cluster.bias"),
        Rule("crit.out_layers.{j}.bias", "head.biases.{j}"),
    ]
    if s.tied:
        rules.append(tied("crit.out_layers.{j}", f"{tables}.tables.{{j}}"))
    else:
        rules.append(Rule("crit.out_layers.{j}.weight", "head.tables.{j}.weight"))
    rules.append(Rule("crit.out_projs.{j}", "head.projects.{j}.weight"))
    if s.shared_projects:
        for i in range(1, len(s.cutoffs) + 1):
            rules.append(tied(f"crit.out_projs.{i}", f"{tables}.projects.{i if many else 0}.weight"))
    return rules

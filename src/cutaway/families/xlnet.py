"""XLNet. Encoder · LayerNorm after · relative positions, shifted · relative segments · memory · two streams · GELU · biases.

Yang et al. 2019 (arXiv:1906.08237). `model(ids)` is the content stream, which sees the whole text; `model.permuted(ids,
order, targets)` adds the query stream, which guesses tokens in any order. A `State` is the memory. Deviations: a target
that nothing comes before sees nothing, where the reference has it look at all tokens alike. Texts are pooled at their
last real token (or the first, or by the mean of the real ones), where the reference takes column -1, padding or not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from cutaway.attention import Causal, Full
from cutaway.families.names import architecture, modules
from cutaway.families.sizes import Checked, divided
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, tied
from cutaway.ops import by_head
from cutaway.parts import (
    Attention,
    Block,
    Distances,
    Dropout,
    Embedding,
    FeedForward,
    First,
    LanguageHead,
    Last,
    LayerNorm,
    LayerPositions,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Mean,
    PermutedModel,
    Pooler,
    PostNorm,
    Recall,
    RelativeScores,
    SequenceHead,
    Stack,
    TokenHead,
    choose_head,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 32000
    width: int = 1024
    layers: int = 24
    heads: int = 16
    hidden: int = 4096
    memory: int | None = None  # tokens before a call's that it looks at; None: all that a state holds
    clamp: int | None = None  # farther distances count as this one
    causal: bool = False  # look at the past only, as Transformer-XL does
    eps: float = 1e-12
    act: str = "gelu"
    dropout: float = 0.1
    tied: bool = True
    pool: Literal["last", "first", "mean"] = "last"  # which token tells a text's class
    head: str = "lm"
    labels: int = 2


PRESETS = {"xlnet-base-cased": Sizes(width=768, layers=12, heads=12, hidden=3072), "xlnet-large-cased": Sizes()}
# elements of the published weights, the tied table counted once
PARAMETERS = {"xlnet-base-cased": 116_750_336, "xlnet-large-cased": 360_300_800}


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> PermutedModel:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act, dropout=s.dropout))
    place = (position or (lambda causal: _positions(s)))(s.causal)
    mask = (Causal() if s.causal else Full()) & (Full() if s.memory is None else Recall(s.memory))

    def attention() -> nn.Module:
        return (mixer or Attention)(s.width, s.heads, mask=mask, dropout=s.dropout, **place.attention)

    blocks = [
        Block(
            attention=PostNorm(attention(), norm(), s.dropout), feedforward=PostNorm(feedforward(), norm(), s.dropout)
        )
        for _ in range(s.layers)
    ]
    steps = [*place.embedding, Dropout(s.dropout)]
    stack = Stack(Embedding(s.vocab, s.width, steps=steps), blocks, Dropout(s.dropout))
    pools = {"last": Last, "first": First, "mean": Mean}
    tokens = stack.embedding.tokens if s.tied else None
    heads = {
        "lm": lambda: LanguageHead(s.width, s.vocab, tied=tokens, bias=True),
        "sequence": lambda: SequenceHead(Pooler(s.width, at=pools[s.pool]()), s.width, s.labels, dropout=s.dropout),
        "token": lambda: TokenHead(s.width, s.labels),
        "span": lambda: TokenHead(s.width, 2),
        "none": lambda: None,
    }
    model = PermutedModel(stack, choose_head(s.head, heads), causal=s.causal, max_positions=place.limit)
    initialise(model)
    return model


def _positions(s: Sizes) -> LayerPositions:
    distances = Distances(s.width, not s.causal, s.clamp, s.dropout)
    sizes = (s.width, s.heads, divided(s.width, s.heads))
    return LayerPositions(each=lambda: RelativeScores(distances, *sizes, segments=True, memory=s.memory))


MODEL_TYPES = ("xlnet",)
ARCHITECTURES = {
    "LMHeadModel": "lm",
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
    "ForQuestionAnsweringSimple": "span",
}
CONFIG = {
    "vocab": "vocab_size", "width": "d_model", "layers": "n_layer", "heads": "n_head", "hidden": "d_inner",
    "eps": "layer_norm_eps", "act": "ff_activation", "dropout": "dropout", "tied": "tie_word_embeddings",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "xlnet")
    given = keys.sizes(CONFIG, Sizes)
    keys.expect("d_head", divided(given["width"], given["heads"]))
    keys.expect("n_token", given["vocab"])
    for name, only in (("untie_r", True), ("same_length", False), ("bi_data", False), ("reuse_len", 0)):
        keys.expect(name, only)
    keys.expect("summary_use_proj", True)
    keys.expect("summary_activation", "tanh")
    # dropout, initialisation, when the reference remembers, and the search for answers
    keys.ignore("summary_last_dropout", "initializer_range", "init", "init_range", "init_std", "use_mems_eval")
    keys.ignore("use_mems_train", "start_n_top", "end_n_top")
    clamp = keys.take("clamp_len", -1)
    sizes = Sizes(
        **given,
        memory=keys.take("mem_len", 512 if "mem_len" not in config else 0) or None,
        clamp=clamp if clamp > 0 else None,
        causal=keys.expect("attn_type", "bi", "uni") == "uni",
        pool=keys.expect("summary_type", "last", "first", "mean"),
        head=keys.head(ARCHITECTURES, "lm"),
        labels=keys.labels(),
    )
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    config = {
        "model_type": "xlnet",
        "architectures": [architecture("XLNet", s.head, ARCHITECTURES)],
        **published(s, CONFIG),
        "mem_len": s.memory or 0,
        "clamp_len": s.clamp or -1,
        "attn_type": "uni" if s.causal else "bi",
        "summary_type": s.pool,
        **labelled(s.head, s.labels),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    body = "(|transformer.)" if s.head == "none" else "(transformer.|)"
    layer, block = f"{body}layer.{{i}}", "stack.blocks.{i}"
    inner, scores = f"{block}.attention.inner", f"{block}.attention.inner.score_bias"
    names = {
        "rel_attn.layer_norm": "attention.norm",
        "rel_attn.r_w_bias": "attention.inner.score_bias.u",
        "rel_attn.r_r_bias": "attention.inner.score_bias.v",
        "rel_attn.r_s_bias": "attention.inner.score_bias.segments.s",
        "rel_attn.seg_embed": "attention.inner.score_bias.segments.weight",
        "ff.layer_norm": "feedforward.norm",
        "ff.layer_1": "feedforward.inner.up",
        "ff.layer_2": "feedforward.inner.down",
    }
    heads = {
        "lm": {"lm_loss.bias": "head.bias", **({} if s.tied else {"lm_loss.weight": "head.tokens.weight"})},
        "sequence": {"sequence_summary.summary": "head.pool.dense", "logits_proj": "head.out"},
        "token": {"classifier": "head.out"},
        "span": {"qa_outputs": "head.out"},
    }
    return [
        Rule(f"{body}word_embedding", "stack.embedding.tokens"),
        Rule(f"{body}mask_emb", "query"),
        *modules(layer, block, names),
        *(Rule(f"{layer}.rel_attn.{x}", f"{inner}.{x}.weight", by_head(s.heads)) for x in "qkv"),
        Rule(f"{layer}.rel_attn.r", f"{scores}.r.weight", by_head(s.heads)),
        Rule(f"{layer}.rel_attn.o", f"{inner}.out.weight", by_head(s.heads, out=True)),
        *(Rule(theirs, ours) for theirs, ours in heads.get(s.head, {}).items()),
        *([tied("lm_loss.weight", "stack.embedding.tokens.weight")] if s.tied else []),
    ]

"""MPT. Decoder · LayerNorm before, without biases · ALiBi · multi-head · GELU · no biases · tied.

MosaicML 2023 (MPT-7B, MPT-30B; the published code is llm-foundry's), Press et al. 2022 (ALiBi). Deviations: none from that
code (`transformers` ignores `alibi_bias_max`, so that its StoryWriter is another model). What the code could besides
(`qk_ln`, `prefix_lm`, multi-query, learned positions) no published model uses, and is refused by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cutaway.attention import Causal
from cutaway.families.names import DECODER_HEADS, architecture
from cutaway.families.sizes import Checked
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, split, tied
from cutaway.parts import (
    ALiBi,
    Attention,
    Block,
    Clip,
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Model,
    Positions,
    PreNorm,
    Stack,
    decoder_head,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 50432
    width: int = 4096
    layers: int = 32
    heads: int = 32
    hidden: int = 16384
    context: int = 2048  # trained length; ALiBi works beyond it
    steepest: int = 8  # the slopes of ALiBi end at 2^-steepest
    clip: float | None = None  # bound on the numbers of queries, keys and values
    scale: float | None = None  # of the logits; None is 1/sqrt(E)
    eps: float = 1e-5
    tied: bool = True
    dropout: float = 0.0
    head: str = "lm"
    labels: int = 2


PRESETS = {
    "mpt-7b": Sizes(),
    "mpt-7b-storywriter": Sizes(context=65536, steepest=16, clip=6.0),
    "mpt-30b": Sizes(50432, 7168, 48, 64, 28672, 8192),
}
# elements of the published weights
PARAMETERS = {"mpt-7b": 6_649_286_656, "mpt-7b-storywriter": 6_649_286_656, "mpt-30b": 29_957_200_896}


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps, bias=False))
    position = position or (lambda causal: Positions(bias=ALiBi(s.heads, "last", s.steepest)))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, "gelu", bias=False))
    place = position(True)

    def attention() -> nn.Module:
        given: dict[str, Any] = {"mask": Causal(), "scale": s.scale, "dropout": s.dropout, **place.attention}
        if s.clip is not None:
            clip = Clip(s.clip)
            steps = [clip, *place.steps]
            given |= {"q_steps": steps, "k_steps": steps, "v_steps": [clip]}
        return (mixer or Attention)(s.width, s.heads, **given)

    blocks = [
        Block(attention=PreNorm(norm(), attention(), s.dropout), feedforward=PreNorm(norm(), feedforward(), s.dropout))
        for _ in range(s.layers)
    ]
    stack = Stack(Embedding(s.vocab, s.width, steps=[*place.embedding, Dropout(s.dropout)]), blocks, norm())
    head = decoder_head(s.head, stack.embedding.tokens, s.labels, tied=s.tied, dropout=s.dropout)
    model = Model(stack, head, causal=True, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("mpt",)
ARCHITECTURES = DECODER_HEADS
CONFIG = {
    "vocab": "vocab_size", "width": "d_model", "layers": "n_layers", "heads": "n_heads", "context": "max_seq_len",
    "eps": "layer_norm_epsilon", "tied": "tie_word_embeddings", "dropout": "resid_pdrop",
}  # fmt: skip
ATTENTION = {"steepest": "alibi_bias_max", "clip": "clip_qkv", "scale": "softmax_scale"}  # inside `attn_config`


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "mpt")
    given = keys.sizes(CONFIG, Sizes)
    keys.expect("no_bias", True)
    keys.expect("logit_scale", None)
    keys.expect("embedding_fraction", 1.0)
    keys.expect("norm_type", "low_precision_layernorm", "layernorm")
    # where there is ALiBi there are no learned positions; the others tell how it was trained
    keys.ignore("learned_pos_emb", "emb_pdrop", "init_device", "init_config", "initializer_range", "verbose")
    keys.ignore("tokenizer_name", "auto_map", "classifier_dropout")
    sizes = Sizes(
        **given,
        hidden=keys.size("expansion_ratio", 4) * given["width"],
        **_read_attention(keys.take("attn_config", {})),
        head=keys.head(ARCHITECTURES, "lm"),
        labels=keys.labels(),
    )
    keys.finish()
    return sizes


def _read_attention(config: Mapping[str, Any]) -> dict[str, Any]:
    keys = Keys(config, "mpt attn_config")
    given = {
        "steepest": keys.size("alibi_bias_max", 8),
        "clip": keys.take("clip_qkv", None, float) or None,  # 0 is none
        "scale": keys.take("softmax_scale", None, float),
    }
    keys.expect("attn_type", "multihead_attention")
    keys.expect("alibi", True)
    for name in ("prefix_lm", "qk_ln", "attn_uses_sequence_id"):
        keys.expect(name, False)
    keys.ignore("attn_impl", "attn_pdrop", "initializer_range")
    keys.finish()
    return given


def write(s: Sizes) -> dict[str, Any]:
    config = {
        "model_type": "mpt",
        "architectures": [architecture("Mpt", s.head, ARCHITECTURES)],
        **published(s, CONFIG),
        "expansion_ratio": max(1, s.hidden // s.width),
        "attn_config": {"alibi": True, **published(s, ATTENTION)},
        "emb_pdrop": s.dropout,
        **labelled(s.head, s.labels),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    body = "(|transformer.)" if s.head == "none" else "(transformer.|)"
    layer, block = f"{body}blocks.{{i}}", "stack.blocks.{i}"
    attention = f"{block}.attention.inner"
    return [
        Rule(f"{body}wte", "stack.embedding.tokens"),
        Rule(f"{layer}.norm_1", f"{block}.attention.norm"),
        Rule(f"{layer}.attn.Wqkv", (f"{attention}.q", f"{attention}.k", f"{attention}.v"), split(3)),
        Rule(f"{layer}.attn.out_proj", f"{attention}.out"),
        Rule(f"{layer}.norm_2", f"{block}.feedforward.norm"),
        Rule(f"{layer}.ffn.up_proj", f"{block}.feedforward.inner.up"),
        Rule(f"{layer}.ffn.down_proj", f"{block}.feedforward.inner.down"),
        Rule(f"{body}norm_f", "stack.norm"),
        tied("lm_head", "stack.embedding.tokens") if s.tied else Rule("lm_head", "head.tokens"),
        Rule("score" if s.head == "sequence" else "classifier", "head.out"),
    ]

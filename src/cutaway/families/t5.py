"""T5. Encoder-decoder · RMSNorm before · relative position bias · multi-head, unscaled · ReLU or GeGLU · no biases.

Raffel et al. 2020 (arXiv:1910.10683); 1.1: Shazeer 2020 (GeGLU, untied); Flan: Chung et al. 2022; mT5: Xue et al. 2021.
Deviations: none. The larger
checkpoints overflow float16 in the feed-forward, as they do elsewhere: load them as bfloat16 or float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from cutaway.attention import Causal, Full, Mask
from cutaway.errors import ConfigError
from cutaway.families.sizes import Checked
from cutaway.keys import Keys, faithful, published
from cutaway.layout import Rule, ignore, tied
from cutaway.parts import (
    Attention,
    Block,
    Dropout,
    Embedding,
    EncoderDecoder,
    FeedForward,
    Gated,
    LanguageHead,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Positions,
    PreNorm,
    RMSNorm,
    Stack,
    T5Bias,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int
    width: int
    layers: int
    heads: int
    hidden: int
    head_width: int = 64
    decoder_layers: int | None = None  # None: as many as the encoder
    act: str = "relu"
    gated: bool = False
    tied: bool = True  # one table for embedding and head
    scaled: bool | None = None  # states divided by sqrt(D) before the head; None: where tied
    buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6
    dropout: float = 0.1
    start: int = 0
    model_type: Literal["t5", "mt5"] = "t5"  # the same architecture, published under two names

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, same in (("decoder_layers", self.layers), ("scaled", self.tied)):
            if getattr(self, name) == same:  # equal models have equal sizes
                object.__setattr__(self, name, None)


_ORIGINAL = {
    "small": Sizes(32128, 512, 6, 8, 2048),
    "base": Sizes(32128, 768, 12, 12, 3072),
    "large": Sizes(32128, 1024, 24, 16, 4096),
    "3b": Sizes(32128, 1024, 24, 32, 16384, 128),
    "11b": Sizes(32128, 1024, 24, 128, 65536, 128),
}
_GATED = {
    "small": Sizes(32128, 512, 8, 6, 1024, act="gelu_new", gated=True, tied=False),
    "base": Sizes(32128, 768, 12, 12, 2048, act="gelu_new", gated=True, tied=False),
    "large": Sizes(32128, 1024, 24, 16, 2816, act="gelu_new", gated=True, tied=False),
    "xl": Sizes(32128, 2048, 24, 32, 5120, act="gelu_new", gated=True, tied=False),
    "xxl": Sizes(32128, 4096, 24, 64, 10240, act="gelu_new", gated=True, tied=False),
}
PRESETS = {
    **{f"t5-{name}": sizes for name, sizes in _ORIGINAL.items()},
    **{f"t5-v1.1-{name}": sizes for name, sizes in _GATED.items()},
    **{f"flan-t5-{name}": sizes for name, sizes in _GATED.items()},
    **{f"mt5-{name}": replace(sizes, vocab=250112, model_type="mt5") for name, sizes in _GATED.items()},
}
# elements of the published weights, tied tables counted once: each model's checkpoint
_GATED_COUNTS = {
    "small": 76_961_152,
    "base": 247_577_856,
    "large": 783_150_080,
    "xl": 2_849_757_184,
    "xxl": 11_135_332_352,
}
PARAMETERS = {
    "t5-small": 60_506_624, "t5-base": 222_903_552, "t5-large": 737_668_096, "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344, **{f"t5-v1.1-{name}": count for name, count in _GATED_COUNTS.items()},
    **{f"flan-t5-{name}": count for name, count in _GATED_COUNTS.items()}, "mt5-small": 300_176_768,
    "mt5-base": 582_401_280, "mt5-large": 1_229_581_312, "mt5-xl": 3_742_619_648, "mt5-xxl": 12_921_057_280,
}  # fmt: skip


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> EncoderDecoder:
    norm = norm or (lambda: RMSNorm(s.width, s.eps))
    position = position or (lambda causal: Positions(bias=T5Bias(s.heads, not causal, s.buckets, s.max_distance)))
    inner = Gated if s.gated else FeedForward
    feedforward = feedforward or (lambda: inner(s.width, s.hidden, s.act, bias=False, dropout=s.dropout))
    tokens = Embedding(s.vocab, s.width).tokens
    source, target = position(False), position(True)

    def table(place: Positions) -> Embedding:
        return Embedding(s.vocab, s.width, steps=[*place.embedding, Dropout(s.dropout)], tokens=tokens)

    def attend(make: MakeMixer, mask: Mask, **kind: Any) -> nn.Module:
        mixed = make(s.width, s.heads, head_width=s.head_width, mask=mask, scale=1.0, dropout=s.dropout, **kind)
        return PreNorm(norm(), mixed, s.dropout)

    def feed() -> nn.Module:
        return PreNorm(norm(), feedforward(), s.dropout)

    own = mixer or Attention
    encoder = [Block(attention=attend(own, Full(), **source.attention), feedforward=feed()) for _ in range(s.layers)]
    decoder = [
        Block(
            attention=attend(own, Causal(), **target.attention),
            cross=attend(Attention, Full(), cross=True),
            feedforward=feed(),
        )
        for _ in range(s.decoder_layers or s.layers)
    ]
    scaled = s.tied if s.scaled is None else s.scaled
    head = LanguageHead(s.width, s.vocab, tied=tokens if s.tied else None, scale=s.width**-0.5 if scaled else 1.0)
    stacks = Stack(table(source), encoder, norm()), Stack(table(target), decoder, norm())
    model = EncoderDecoder(*stacks, head, start=s.start, max_positions=target.limit)
    initialise(model)
    return model


MODEL_TYPES = ("t5", "mt5")


CONFIG = {
    "vocab": ("vocab_size", 32128), "width": ("d_model", 512), "layers": ("num_layers", 6), "heads": ("num_heads", 8),
    "hidden": ("d_ff", 2048), "head_width": "d_kv", "buckets": "relative_attention_num_buckets",
    "max_distance": "relative_attention_max_distance", "eps": "layer_norm_epsilon", "dropout": "dropout_rate",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "t5")
    given = keys.sizes(CONFIG, Sizes)
    published_as = keys.expect("model_type", *MODEL_TYPES)
    # Older configurations untie the head by `tie_word_embeddings`, and T5 scales where it ties. Newer ones say so by
    # `scale_decoder_outputs`, and call every model tied, even with a `lm_head` of its own. mT5 never scales.
    tied, scaled = keys.take("tie_word_embeddings", True), keys.take("scale_decoder_outputs", True)
    scaled = published_as == "t5" and tied and scaled
    alone = names is not None and "lm_head.weight" not in names
    kind = keys.take("feed_forward_proj", "relu" if published_as == "t5" else "gated-gelu")
    gate, _, act = kind.rpartition("-")
    if gate not in ("", "gated"):
        raise ConfigError(f"unknown feed_forward_proj {kind!r}; 'relu', 'gelu' and 'gated-gelu' are of the kind known")
    keys.ignore("dense_act_fn", "is_gated_act", "initializer_factor", "classifier_dropout")
    keys.ignore("n_positions", "max_position_embeddings")  # the bias is relative: there is no last position
    keys.expect("is_encoder_decoder", True)
    keys.head({"ForConditionalGeneration": "lm", "T5WithLMHeadModel": "lm"}, "lm")
    decoder_layers = keys.size("num_decoder_layers", given["layers"])
    sizes = Sizes(
        **given,
        decoder_layers=None if decoder_layers == given["layers"] else decoder_layers,
        act="gelu_new" if kind == "gated-gelu" else act,
        gated=gate == "gated",
        tied=scaled or (tied and alone),
        scaled=scaled,
        start=keys.take("decoder_start_token_id", keys.take("pad_token_id", 0)),
        model_type=published_as,
    )
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    act = "gelu" if s.gated and s.act == "gelu_new" else s.act
    config = {
        "model_type": s.model_type,
        "architectures": [f"{s.model_type.replace('t5', 'T5').replace('m', 'M')}ForConditionalGeneration"],
        "is_encoder_decoder": True,
        **published(s, CONFIG),
        "num_decoder_layers": s.decoder_layers or s.layers,
        "feed_forward_proj": f"gated-{act}" if s.gated else act,
        "tie_word_embeddings": s.tied,
        **({} if s.scaled is None else {"scale_decoder_outputs": s.scaled}),
        "decoder_start_token_id": s.start,
        "pad_token_id": 0,
    }
    return faithful(config, s, read(config, () if s.tied else ("lm_head.weight",)))


def weights(s: Sizes) -> list[Rule]:
    table = "encoder.embedding.tokens"
    rules = [
        Rule("shared", table),
        tied("encoder.embed_tokens", table),
        tied("decoder.embed_tokens", table),
        tied("lm_head", table) if s.tied else Rule("lm_head", "head.tokens"),
        # the first releases carry a bias for cross-attention that the model never used
        ignore("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"),
    ]
    for stack, layers in (
        ("encoder", ("attention", "feedforward")),
        ("decoder", ("attention", "cross", "feedforward")),
    ):
        bias = "layer.0.SelfAttention.relative_attention_bias"
        rules += [
            Rule(f"{stack}.final_layer_norm", f"{stack}.norm"),
            Rule(f"{stack}.block.0.{bias}", f"{stack}.blocks.0.attention.inner.score_bias"),
        ]
        for j, layer in enumerate(layers):
            theirs, ours = f"{stack}.block.{{i}}.layer.{j}", f"{stack}.blocks.{{i}}.{layer}"
            rules.append(Rule(f"{theirs}.layer_norm", f"{ours}.norm"))
            if layer == "feedforward":
                names = {"wi_0": "gate", "wi_1": "up", "wo": "down"} if s.gated else {"wi": "up", "wo": "down"}
                inner = "DenseReluDense"
            else:
                names = {"q": "q", "k": "k", "v": "v", "o": "out"}
                inner = {"attention": "SelfAttention", "cross": "EncDecAttention"}[layer]
            rules += [Rule(f"{theirs}.{inner}.{a}", f"{ours}.inner.{b}") for a, b in names.items()]
    return rules

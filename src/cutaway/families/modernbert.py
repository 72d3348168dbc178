"""ModernBERT. Encoder · LayerNorm before · rotary · local and global attention in turn · GeGLU · no biases.

Warner et al. 2024 (arXiv:2412.13663). Every third layer looks at the whole text, with the larger rotary base; the others
look 64 tokens to each side. The first attention has no norm, since the embeddings come from one. Deviations: none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from cutaway.attention import Full, Window
from cutaway.errors import ConfigError
from cutaway.families.names import bert_body, masked_head, read_bert, write_bert
from cutaway.families.sizes import Checked
from cutaway.keys import Keys
from cutaway.layout import Rule, ignore, split
from cutaway.parts import (
    Attention,
    Block,
    Dropout,
    Embedding,
    First,
    Gated,
    LayerNorm,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    MaskedTransform,
    Mean,
    Model,
    Positions,
    PreNorm,
    Rotary,
    SequenceHead,
    Stack,
    TokenHead,
    encoder_head,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 50368
    width: int = 768
    layers: int = 22
    heads: int = 12
    hidden: int = 1152
    context: int = 8192  # trained length; rotary works beyond it, only worse
    window: int = 65  # local layers look at tokens fewer than this away, to either side
    every: int = 3  # each so many layers one is global, beginning with the first
    rotary_base: float = 160_000.0
    local_rotary_base: float = 10_000.0
    eps: float = 1e-5
    act: str = "gelu"
    head_act: str = "gelu"
    attention_bias: bool = False
    feedforward_bias: bool = False
    norm_bias: bool = False
    head_bias: bool = False
    decoder_bias: bool = True
    dropout: float = 0.0
    tied: bool = True
    head: str = "none"
    labels: int = 2
    pooling: Literal["cls", "mean"] = "cls"  # what classes of sequences are read off
    normalise: bool = True  # embeddings ("mean", "cls") have length 1


PRESETS = {
    "modernbert-base": Sizes(pooling="mean"),
    "modernbert-large": Sizes(width=1024, layers=28, heads=16, hidden=2624, pooling="mean"),
}
# elements of the published encoders, without the pretraining head: each checkpoint as a `ModernBertModel`
PARAMETERS = {"modernbert-base": 149_014_272, "modernbert-large": 394_781_696}


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps, s.norm_bias))
    feedforward = feedforward or (lambda: Gated(s.width, s.hidden, s.act, bias=s.feedforward_bias, dropout=s.dropout))
    wide, near = (Positions(steps=[Rotary(s.width // s.heads, b)]) for b in (s.rotary_base, s.local_rotary_base))
    if position is not None:
        wide = near = position(False)

    def attention(layer: int) -> nn.Module:
        place, mask = (near, Window(s.window)) if layer % s.every else (wide, Full())
        given = {"mask": mask, "bias": s.attention_bias, "dropout": s.dropout, **place.attention}
        return (mixer or Attention)(s.width, s.heads, **given)

    blocks = [
        Block(
            attention=PreNorm(norm() if layer else nn.Identity(), attention(layer), s.dropout),
            feedforward=PreNorm(norm(), feedforward()),
        )
        for layer in range(s.layers)
    ]
    steps = [*wide.embedding, norm(), Dropout(s.dropout)]
    stack = Stack(Embedding(s.vocab, s.width, steps=steps), blocks, norm())

    def transform() -> nn.Module:
        return MaskedTransform(s.width, s.head_act, s.eps, bias=s.head_bias, norm_bias=s.norm_bias)

    pool = First if s.pooling == "cls" else Mean
    head = encoder_head(
        s.head,
        stack.embedding.tokens,
        s.width,
        s.labels,
        tied=s.tied,
        transform=transform,
        pool=pool,
        bias=s.decoder_bias,
        normalise=s.normalise,
        sequence=lambda: SequenceHead(pool(), s.width, s.labels, transform=transform()),
        token=lambda: TokenHead(s.width, s.labels, transform=transform()),
        span=lambda: TokenHead(s.width, 2, transform=transform()),
    )
    model = Model(stack, head, causal=False, max_positions=wide.limit)
    initialise(model)
    return model


MODEL_TYPES = ("modernbert",)
CONFIG = {
    "vocab": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "hidden": "intermediate_size", "context": "max_position_embeddings", "eps": "norm_eps", "act": "hidden_activation",
    "head_act": "classifier_activation", "attention_bias": "attention_bias", "feedforward_bias": "mlp_bias",
    "norm_bias": "norm_bias", "head_bias": "classifier_bias", "decoder_bias": "decoder_bias",
    "dropout": "attention_dropout", "tied": "tie_word_embeddings", "pooling": "classifier_pooling",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "modernbert")
    given = read_bert(keys, Sizes, CONFIG, names)
    keys.ignore("layer_norm_eps", "initializer_cutoff_factor", "embedding_dropout", "mlp_dropout", "cls_token_id")
    keys.ignore("deterministic_flash_attn", "reference_compile", "repad_logits_with_grad")  # how the reference computes
    keys.ignore("sparse_prediction", "sparse_pred_ignore_index")
    base, local_base = _bases(keys)
    sizes = Sizes(
        **given,
        window=keys.size("local_attention", 128) // 2 + 1,  # published: the tokens on both sides together
        every=_every(keys, given["layers"]),
        rotary_base=base,
        local_rotary_base=local_base,
    )
    keys.finish()
    return sizes


def _bases(keys: Keys) -> Iterator[float]:
    """The rotary bases of global and of local layers, each by a key of its own or in the newer `rope_parameters`."""
    newer = keys.take("rope_parameters", {}, dict)
    for kind, older, default in (
        ("full_attention", "global_rope_theta", 160_000.0),
        ("sliding_attention", "local_rope_theta", 10_000.0),
    ):
        given = Keys(newer.get(kind) or {}, f"modernbert rope_parameters, {kind}")
        given.expect("rope_type", "default")
        yield given.take("rope_theta", keys.take(older, default))
        given.finish()


def _every(keys: Keys, layers: int) -> int:
    """How often a layer is global, as a number or in the newer list of the layers' kinds."""
    stated, kinds = keys.size("global_attn_every_n_layers", 3), keys.take("layer_types", [], list)
    for every in (stated, *range(1, layers + 1)):
        if kinds in ([], [("sliding" if layer % every else "full") + "_attention" for layer in range(layers)]):
            return every
    raise ConfigError("the modernbert config has layer_types in which global layers do not come at regular intervals")


def write(s: Sizes) -> dict[str, Any]:
    more = {
        "local_attention": max(2 * (s.window - 1), 1),
        "global_attn_every_n_layers": s.every,
        "global_rope_theta": s.rotary_base,
        "local_rope_theta": s.local_rotary_base,
        **dict.fromkeys(("embedding_dropout", "mlp_dropout", "classifier_dropout"), s.dropout),
    }
    return write_bert(s, "modernbert", "ModernBert", CONFIG, read, **more)


def weights(s: Sizes) -> list[Rule]:
    body = bert_body("model", s.head)
    layer, block = f"{body}layers.{{i}}", "stack.blocks.{i}"
    attention, feedforward = f"{block}.attention.inner", f"{block}.feedforward.inner"
    rules = [
        Rule(f"{body}embeddings.tok_embeddings", "stack.embedding.tokens"),
        Rule(f"{body}embeddings.norm", "stack.embedding.steps.0"),
        Rule(f"{layer}.attn_norm", f"{block}.attention.norm"),
        Rule(f"{layer}.attn.Wqkv", (f"{attention}.q", f"{attention}.k", f"{attention}.v"), split(3)),
        Rule(f"{layer}.attn.Wo", f"{attention}.out"),
        Rule(f"{layer}.mlp_norm", f"{block}.feedforward.norm"),
        Rule(f"{layer}.mlp.Wi", (f"{feedforward}.gate", f"{feedforward}.up"), split(2)),
        Rule(f"{layer}.mlp.Wo", f"{feedforward}.down"),
        Rule(f"{body}final_norm", "stack.norm"),
    ]
    if s.head == "masked-lm":
        return rules + masked_head(s.tied, "head.dense", "head.norm", "decoder")
    return [
        *rules,
        Rule("head.dense", "head.transform.dense"),
        Rule("head.norm", "head.transform.norm"),
        Rule("classifier", "head.out"),
        ignore("decoder.(weight|bias)"),
    ]

"""GPT. Decoder · LayerNorm after · learned positions · multi-head · GELU · biases · tied.

Radford et al. 2018 (Improving Language Understanding by Generative Pre-Training, section 4.1). The first decoder alone:
GPT-2 puts the norms before the sublayers and one after the last. Deviations: none; its `gelu` is the approximation by tanh.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cutaway.attention import Causal
from cutaway.errors import ConfigError
from cutaway.families.names import architecture
from cutaway.families.sizes import Checked
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, ignore, split_transposed, tied, transpose
from cutaway.parts import (
    Attention,
    Block,
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    LearnedPositions,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Model,
    Positions,
    PostNorm,
    Stack,
    decoder_head,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 40478
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    context: int = 512
    eps: float = 1e-5
    act: str = "gelu_new"
    tied: bool = True
    dropout: float = 0.1
    head: str = "lm"
    labels: int = 2


PRESETS = {"openai-gpt": Sizes()}
PARAMETERS = {"openai-gpt": 116_534_784}  # elements of the published weights


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> Model:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))
    position = position or (lambda causal: Positions([LearnedPositions(s.context, s.width)], limit=s.context))
    feedforward = feedforward or (lambda: FeedForward(s.width, s.hidden, s.act))
    place = position(True)

    def attention() -> nn.Module:
        given = {"mask": Causal(), "bias": True, "dropout": s.dropout, **place.attention}
        return (mixer or Attention)(s.width, s.heads, **given)

    blocks = [
        Block(
            attention=PostNorm(attention(), norm(), s.dropout), feedforward=PostNorm(feedforward(), norm(), s.dropout)
        )
        for _ in range(s.layers)
    ]
    stack = Stack(Embedding(s.vocab, s.width, steps=[*place.embedding, Dropout(s.dropout)]), blocks)
    head = decoder_head(s.head, stack.embedding.tokens, s.labels, tied=s.tied, dropout=s.dropout)
    model = Model(stack, head, causal=True, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("openai-gpt",)
ARCHITECTURES = {"LMHeadModel": "lm", "ForSequenceClassification": "sequence"}
# what `afn` stands for
ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu", "silu": "silu", "swish": "silu", "gelu_new": "gelu_new"}
CONFIG = {
    "vocab": "vocab_size", "width": "n_embd", "layers": "n_layer", "heads": "n_head", "context": "n_positions",
    "eps": "layer_norm_epsilon", "tied": "tie_word_embeddings", "dropout": "resid_pdrop",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "openai-gpt")
    given = keys.sizes(CONFIG, Sizes)
    # another head's settings, and how training went: none changes what is computed here
    keys.ignore("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "n_ctx")
    keys.ignore("summary_first_dropout", "embd_pdrop", "attn_pdrop", "initializer_range")
    keys.ignore("predict_special_tokens", "n_special")
    if any(name.endswith("DoubleHeadsModel") for name in keys.take("architectures", [], list) if type(name) is str):
        raise ConfigError("GPT's head for multiple choice is not here; of its heads LMHeadModel is read")
    sizes = Sizes(
        **given,
        hidden=4 * given["width"],
        act=ACTIVATIONS[keys.expect("afn", *ACTIVATIONS)],
        head=keys.head(ARCHITECTURES, "lm"),
        labels=keys.labels(),
    )
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    config = {
        "model_type": "openai-gpt",
        "architectures": [architecture("OpenAIGPT", s.head, ARCHITECTURES)],
        **published(s, CONFIG),
        "afn": {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}.get(s.act, "gelu"),
        "embd_pdrop": s.dropout,
        "attn_pdrop": s.dropout,
        **labelled(s.head, s.labels),
    }
    return faithful(config, s, read(config))


def weights(s: Sizes) -> list[Rule]:
    body = "(|transformer.)" if s.head == "none" else "(transformer.|)"
    layer, block = f"{body}h.{{i}}", "stack.blocks.{i}"
    attention = f"{block}.attention.inner"
    return [
        Rule(f"{body}tokens_embed", "stack.embedding.tokens"),
        Rule(f"{body}positions_embed", "stack.embedding.steps.0"),
        Rule(f"{layer}.attn.c_attn", (f"{attention}.q", f"{attention}.k", f"{attention}.v"), split_transposed(3)),
        Rule(f"{layer}.attn.c_proj", f"{attention}.out", transpose),
        Rule(f"{layer}.ln_1", f"{block}.attention.norm"),
        Rule(f"{layer}.mlp.c_fc", f"{block}.feedforward.inner.up", transpose),
        Rule(f"{layer}.mlp.c_proj", f"{block}.feedforward.inner.down", transpose),
        Rule(f"{layer}.ln_2", f"{block}.feedforward.norm"),
        tied("lm_head", "stack.embedding.tokens") if s.tied else Rule("lm_head", "head.tokens"),
        Rule("score", "head.out"),
        ignore(f"{layer}.attn.(bias|masked_bias)", f"{body}position_ids"),
    ]

"""BigBird. Encoder · LayerNorm after · learned positions and segments · block-sparse: random, window, global · GELU · biases.

Zaheer et al. 2020 (arXiv:2007.14062), the internal-global form (ITC) that is published. BERT's layers, whose attention is a
few blocks of keys a query. Deviations: the reference lets the longest row of a batch say where the last, global block stands
and whether texts are long enough for the sparse form; here each row says so for itself. For answers it bars the question's
tokens and has the others be of segment B; here all tokens are scored, of the segments given. As in the reference the sparse
form has no dropout in its pattern.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from cutaway.families.names import (
    BERT_CONFIG,
    bert_body,
    bert_layers,
    class_heads,
    masked_head,
    modules,
    read_bert,
    write_bert,
)
from cutaway.families.sizes import Checked
from cutaway.keys import Keys
from cutaway.layout import Rule, ignore
from cutaway.parts import (
    Attention,
    Block,
    BlockSparseAttention,
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    LearnedPositions,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    MaskedTransform,
    Model,
    Pooler,
    Positions,
    PostNorm,
    Segments,
    Stack,
    TokenHead,
    encoder_head,
    initialise,
)


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 50358
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    attention: Literal["block_sparse", "original_full"] = "block_sparse"
    block: int = 64
    random: int = 3  # blocks
    context: int = 4096
    segments: int = 2
    scaled: bool = False  # embeddings times sqrt(D)
    attention_bias: bool = True
    eps: float = 1e-12
    act: str = "gelu_new"
    dropout: float = 0.1
    pooler: bool = True
    tied: bool = True
    head: str = "none"
    labels: int = 2
    normalise: bool = True  # embeddings ("mean", "cls") have length 1


PRESETS = {
    "bigbird-roberta-base": Sizes(),
    "bigbird-roberta-large": Sizes(width=1024, layers=24, heads=16, hidden=4096),
    "bigbird-base-trivia-itc": Sizes(head="span", segments=16),
}
# elements of the published configurations as the reference counts them: as a `BigBirdModel`, the last with its head
PARAMETERS = {
    "bigbird-roberta-base": 127_468_800, "bigbird-roberta-large": 359_123_968, "bigbird-base-trivia-itc": 131_614_466,
}  # fmt: skip


POOLING = (
    "none",
    "masked-lm",
    "sequence",
    "token",
)  # heads that are published with a pooler, which only the bare body has a use for


class AnswerHead(nn.Module):
    """W norm(x + f(x)) + b for every token: the beginnings and ends of answers, behind one more feed-forward network."""

    def __init__(self, feedforward: nn.Module, norm: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.feedforward, self.head = PostNorm(feedforward, norm, dropout), TokenHead(width, 2)

    def forward(self, x: Tensor, ctx: Any) -> Tensor:
        return self.head(self.feedforward(x, ctx))


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
    place = position(False)
    # the norm stands last here, so that dropout comes before it
    steps = [Segments(s.segments, s.width), *place.embedding, Dropout(s.dropout), norm()]

    def attention(layer: int) -> nn.Module:
        given = {"bias": s.attention_bias, "out_bias": True, **place.attention}
        if mixer is not None or s.attention == "original_full":
            return (mixer or Attention)(s.width, s.heads, dropout=s.dropout, **given)
        sparse = {"block": s.block, "random": s.random, "context": s.context, "seed": layer}
        return BlockSparseAttention(s.width, s.heads, **sparse, **given)

    blocks = [
        Block(
            attention=PostNorm(attention(layer), norm(), s.dropout),
            feedforward=PostNorm(feedforward(), norm(), s.dropout),
        )
        for layer in range(s.layers)
    ]
    scale = s.width**0.5 if s.scaled else 1.0
    stack = Stack(Embedding(s.vocab, s.width, scale=scale, steps=steps), blocks)
    head = encoder_head(
        s.head,
        stack.embedding.tokens,
        s.width,
        s.labels,
        tied=s.tied,
        transform=lambda: MaskedTransform(s.width, s.act, s.eps),
        pool=lambda: Pooler(s.width, s.act, dropout=s.dropout),
        dropout=s.dropout,
        normalise=s.normalise,
        span=lambda: AnswerHead(FeedForward(s.width, s.hidden, s.act), LayerNorm(s.width, s.eps), s.width, s.dropout),
    )
    pooler = Pooler(s.width) if s.pooler and s.head in POOLING else None
    model = Model(stack, head, causal=False, pooler=pooler, max_positions=place.limit)
    initialise(model)
    return model


MODEL_TYPES = ("big_bird",)
CONFIG = {
    **BERT_CONFIG, "attention": "attention_type", "block": "block_size", "random": "num_random_blocks",
    "scaled": "rescale_embeddings", "attention_bias": "use_bias",
}  # fmt: skip
HEADS = {
    "ForPreTraining": "masked-lm",
    "ForMaskedLM": "masked-lm",
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
    "ForQuestionAnswering": "span",
}


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "bigbird")
    given = read_bert(keys, Sizes, CONFIG, names, HEADS)
    keys.ignore("sep_token_id", "gradient_checkpointing")
    sizes = Sizes(**given)
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    more = {"attention_probs_dropout_prob": s.dropout}
    return write_bert(s, "big_bird", "BigBird", CONFIG, read, HEADS, **more)


def weights(s: Sizes) -> list[Rule]:
    body = bert_body("bert", s.head)
    steps = {"token_type_embeddings": "steps.0", "position_embeddings": "steps.1", "LayerNorm": "steps.3"}
    rules = modules(f"{body}embeddings", "stack.embedding", {"word_embeddings": "tokens", **steps})
    rules += [*bert_layers(body), ignore(f"{body}embeddings.(position_ids|token_type_ids)")]
    pooler = Rule(f"{body}pooler", "pooler.dense", optional=True)
    rules += [pooler if s.head in POOLING else ignore(f"{body}pooler.(weight|bias)")]
    if s.head == "masked-lm":
        names = [f"cls.predictions.{name}" for name in ("transform.dense", "transform.LayerNorm", "decoder", "bias")]
        return [*rules, *masked_head(s.tied, *names), ignore("cls.seq_relationship.(weight|bias)")]
    if s.head == "span":
        answers = {
            "intermediate.dense": "feedforward.inner.up",
            "output.dense": "feedforward.inner.down",
            "output.LayerNorm": "feedforward.norm",
            "qa_outputs": "head.out",
        }
        return [*rules, *modules("qa_classifier", "head", answers)]
    sequence = {"classifier.dense": "head.pool.dense", "classifier.out_proj": "head.out"}
    return [*rules, *class_heads(s.head, sequence), ignore("cls.*")]

"""BART, mBART, Marian, Pegasus. Encoder-decoder · LayerNorm after or before · learned or sinusoidal positions · biases.

Lewis et al. 2020 (BART, arXiv:1910.13461), Liu et al. 2020 (mBART, arXiv:2001.08210), Tang et al. 2020 (mBART-50,
arXiv:2008.00401), Junczys-Dowmunt et al. 2018 (Marian, arXiv:1804.00344; the models of OPUS-MT), Zhang et al. 2020
(Pegasus, arXiv:1912.08777). The 2017 Transformer four times, told apart by where the norms stand and how positions come
in. One table serves source, target and head. Classes are read off the last token of the target, which must be the end
token; those who classify give the source alone. Deviations: positions count real tokens (the reference counts columns,
so its answers change with padding on the left); no layers are dropped in training (`encoder_layerdrop`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from cutaway.attention import Causal, Full
from cutaway.families.names import architecture, bart_body
from cutaway.families.sizes import Checked, divided
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, ignore, row, tied
from cutaway.parts import (
    Attention,
    Block,
    Dropout,
    Embedding,
    EncoderDecoder,
    FeedForward,
    LanguageHead,
    Last,
    LayerNorm,
    LearnedPositions,
    MakeFeedForward,
    MakeMixer,
    MakeNorm,
    MakePosition,
    Pooler,
    Positions,
    PostNorm,
    PreNorm,
    SequenceHead,
    SinusoidalPositions,
    Stack,
    TokenHead,
    choose_head,
    initialise,
)
from cutaway.parts.position import WaveTable


@dataclass(frozen=True)
class Sizes(Checked):
    vocab: int = 50265
    width: int = 1024
    layers: int = 12
    heads: int = 16
    hidden: int = 4096
    decoder_layers: int | None = None  # None: as the encoder
    decoder_heads: int | None = None
    decoder_hidden: int | None = None
    context: int = 1024
    order: Literal["post", "pre"] = "post"
    positions: Literal["learned", "sinusoidal"] = "learned"
    table: bool = False  # the sinusoidal ones stand among the weights
    embedding_norm: bool = True
    final_norm: bool = False
    scaled: bool = False  # embeddings times sqrt(D)
    logits_bias: bool = False  # a bias of the head that is not trained, as nearly all checkpoints hold
    eps: float = 1e-5
    act: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0  # inside the feed-forward network
    start: int = 2
    head: str = "lm"
    labels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        divided(self.width, self.decoder_heads or self.heads)
        for name in ("layers", "heads", "hidden"):
            if getattr(self, f"decoder_{name}") == getattr(self, name):  # equal models have equal sizes
                object.__setattr__(self, f"decoder_{name}", None)
        object.__setattr__(self, "logits_bias", self.logits_bias and self.head == "lm")
        object.__setattr__(self, "table", self.table and self.positions == "sinusoidal")

    @property
    def decoder(self) -> tuple[int, int, int]:
        """Layers, heads and hidden of the decoder."""
        return (
            self.decoder_layers or self.layers,
            self.decoder_heads or self.heads,
            self.decoder_hidden or self.hidden,
        )


# what each published name stands for
KINDS: dict[str, dict[str, Any]] = {
    "bart": {"order": "post", "positions": "learned", "embedding_norm": True, "final_norm": False},
    "mbart": {"order": "pre", "positions": "learned", "embedding_norm": True, "final_norm": True},
    "marian": {"order": "post", "positions": "sinusoidal", "embedding_norm": False, "final_norm": False},
    "pegasus": {"order": "pre", "positions": "sinusoidal", "embedding_norm": False, "final_norm": True},
}
_LARGE = Sizes()
_MBART = Sizes(250027, **KINDS["mbart"], scaled=True, labels=2)
_PEGASUS = Sizes(96103, layers=16, **KINDS["pegasus"], table=True, scaled=True, act="relu", start=0, labels=2)
_CNN = replace(_LARGE, vocab=50264)
PRESETS = {
    "bart-base": Sizes(width=768, layers=6, heads=12, hidden=3072),
    "bart-large": _LARGE,
    "bart-large-cnn": _CNN,
    "bart-large-xsum": _CNN,
    "bart-large-mnli": replace(_LARGE, head="sequence"),
    "distilbart-cnn-12-6": replace(_CNN, decoder_layers=6),
    "mbart-large-cc25": replace(_MBART, start=0),
    "mbart-large-50": replace(_MBART, vocab=250054),
    "marian-en-de": Sizes(
        58101, 512, 6, 8, 2048, context=512, **KINDS["marian"], scaled=True, act="swish", start=58100, labels=2
    ),
    "pegasus-large": replace(_PEGASUS, attention_dropout=0.1, hidden_dropout=0.1),
}
# elements of the published weights, as the reference counts its models of the published configurations; the bias of
# the logits, which is no parameter there, left out, and so are Marian's waves, which its checkpoints do not hold
PARAMETERS = {
    "bart-base": 139_420_416, "bart-large": 406_291_456, "bart-large-cnn": 406_290_432, "bart-large-xsum": 406_290_432,
    "bart-large-mnli": 407_344_131, "distilbart-cnn-12-6": 305_510_400, "mbart-large-cc25": 610_851_840,
    "mbart-large-50": 610_879_488, "marian-en-de": 73_886_208, "pegasus-large": 570_797_056,
}  # fmt: skip


def compose(
    s: Sizes,
    *,
    norm: MakeNorm | None = None,
    position: MakePosition | None = None,
    feedforward: MakeFeedForward | None = None,
    mixer: MakeMixer | None = None,
) -> EncoderDecoder:
    norm = norm or (lambda: LayerNorm(s.width, s.eps))

    def published_position() -> nn.Module:
        if s.positions == "learned":
            return LearnedPositions(s.context, s.width, offset=2)  # rows that no token looks up, as RoBERTa has them
        return WaveTable(s.context, s.width) if s.table else SinusoidalPositions(s.width, halves=True)

    position = position or (lambda causal: Positions([published_position()], limit=s.context))
    own, source, target = mixer or Attention, position(False), position(True)
    tokens = Embedding(s.vocab, s.width).tokens

    def residual(inner: nn.Module) -> nn.Module:
        return PostNorm(inner, norm(), s.dropout) if s.order == "post" else PreNorm(norm(), inner, s.dropout)

    def stack(place: Positions, causal: bool, layers: int, heads: int, hidden: int) -> Stack:
        def attend(make: MakeMixer, **kind: Any) -> nn.Module:
            return residual(make(s.width, heads, bias=True, dropout=s.attention_dropout, **kind))

        feed = feedforward or (lambda: FeedForward(s.width, hidden, s.act, dropout=s.hidden_dropout))
        blocks = []
        for _ in range(layers):
            parts = {"attention": attend(own, mask=Causal() if causal else Full(), **place.attention)}
            if causal:
                parts["cross"] = attend(Attention, cross=True)
            blocks.append(Block(**parts, feedforward=residual(feed())))
        steps = [*place.embedding, *([norm()] if s.embedding_norm else []), Dropout(s.dropout)]
        table = Embedding(s.vocab, s.width, scale=s.width**0.5 if s.scaled else 1.0, steps=steps, tokens=tokens)
        return Stack(table, blocks, norm() if s.final_norm else None)

    heads = {
        "lm": lambda: LanguageHead(s.width, s.vocab, tied=tokens, bias=s.logits_bias),
        "sequence": lambda: SequenceHead(Pooler(s.width, at=Last()), s.width, s.labels),
        "span": lambda: TokenHead(s.width, 2),
        "none": lambda: None,
    }
    stacks = stack(source, False, s.layers, s.heads, s.hidden), stack(target, True, *s.decoder)
    model = EncoderDecoder(*stacks, choose_head(s.head, heads), start=s.start, max_positions=target.limit)
    initialise(model)
    if s.logits_bias:
        model.get_parameter("head.bias").requires_grad_(False)
    return model


_LM = {"ForConditionalGeneration": "lm"}
_CLASSES = {"ForSequenceClassification": "sequence", "ForQuestionAnswering": "span"}
HEADS = {
    "bart": ("Bart", {**_LM, **_CLASSES}),
    "mbart": ("MBart", {**_LM, **_CLASSES}),
    "marian": ("Marian", {"MTModel": "lm"}),
    "pegasus": ("Pegasus", _LM),
}
MODEL_TYPES = tuple(KINDS)
CONFIG = {
    "vocab": "vocab_size", "width": "d_model", "layers": "encoder_layers", "heads": "encoder_attention_heads",
    "hidden": "encoder_ffn_dim", "decoder_layers": ("decoder_layers", 12),
    "decoder_heads": ("decoder_attention_heads", 16), "decoder_hidden": ("decoder_ffn_dim", 4096),
    "context": "max_position_embeddings", "scaled": "scale_embedding", "act": "activation_function",
    "dropout": "dropout", "attention_dropout": "attention_dropout", "hidden_dropout": "activation_dropout",
}  # fmt: skip


def read(config: Mapping[str, Any], names: Collection[str] | None = None) -> Sizes:
    keys = Keys(config, "bart")
    kind = keys.expect("model_type", *MODEL_TYPES)
    given = keys.sizes({**CONFIG, "vocab": ("vocab_size", 58101)} if kind == "marian" else CONFIG, Sizes)
    given |= KINDS[kind]
    # the first releases spelled out what now goes without saying
    keys.expect("normalize_before", given["order"] == "pre")
    keys.expect("normalize_embedding", given["embedding_norm"])
    keys.expect("add_final_layer_norm", given["final_norm"])
    keys.expect("static_position_embeddings", given["positions"] != "learned")
    for name in ("tie_word_embeddings", "is_encoder_decoder", "share_encoder_decoder_embeddings"):
        keys.expect(name, True)
    keys.expect("decoder_vocab_size", given["vocab"])
    keys.expect("do_blenderbot_90_layernorm", False)
    keys.ignore("num_hidden_layers", "extra_pos_embeddings", "add_bias_logits", "force_bos_token_to_be_generated")
    keys.ignore("init_std", "encoder_layerdrop", "decoder_layerdrop", "classifier_dropout", "classif_dropout")
    starts = {"bart": 2, "mbart": keys.take("bos_token_id", 0), "marian": 58100, "pegasus": 0}
    sizes = Sizes(
        **given,
        table=kind == "pegasus" if names is None else any(n.endswith("embed_positions.weight") for n in names),
        logits_bias=names is not None and "final_logits_bias" in names,
        start=keys.take("decoder_start_token_id", starts[kind]),
        head=keys.head(HEADS[kind][1], "lm"),
        labels=keys.labels(3 if kind == "bart" else 2),
    )
    keys.finish()
    return sizes


def write(s: Sizes) -> dict[str, Any]:
    same = {name: getattr(s, name) for name in KINDS["bart"]}
    kind = next((kind for kind, sizes in KINDS.items() if sizes == same), "bart")
    layers, heads, hidden = s.decoder
    config = {
        "model_type": kind,
        "architectures": [architecture(HEADS[kind][0], s.head, HEADS[kind][1])],
        "is_encoder_decoder": True,
        **published(s, CONFIG),
        "decoder_layers": layers,
        "decoder_attention_heads": heads,
        "decoder_ffn_dim": hidden,
        "decoder_start_token_id": s.start,
        **labelled("sequence", s.labels),
        **({} if s.positions == "learned" else {"pad_token_id": s.start}),  # with which Marian and Pegasus begin
    }
    names = ["final_logits_bias"] * s.logits_bias + ["embed_positions.weight"] * s.table
    return faithful(config, s, read(config, names))


def weights(s: Sizes) -> list[Rule]:
    body, table = "(|model.)" if s.head == "none" else "(model.|)", "encoder.embedding.tokens"
    dense = {"classification_head.dense": "head.pool.dense", "classification_head.out_proj": "head.out"}
    heads = {"sequence": dense, "span": {"qa_outputs": "head.out"}}
    return [
        Rule(f"{body}shared", table),
        tied(f"{body}(encoder|decoder).embed_tokens", table),
        tied("lm_head", table),
        Rule("final_logits_bias", "head.bias", row) if s.head == "lm" else ignore("final_logits_bias"),
        *(Rule(theirs, ours) for theirs, ours in heads.get(s.head, {}).items()),
        *bart_body(body),
        ignore(f"{body}(encoder|decoder).version"),
    ]

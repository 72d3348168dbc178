"""What is published alike for all versions of DeBERTa: keys of the configurations, names of tensors, heads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from cutaway.errors import ConfigError
from cutaway.families.names import BERT_HEADS, POOLED, architecture, bert_body, class_heads, masked_head, modules
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, ignore
from cutaway.parts import Block, EnhancedDecoder, LearnedPositions, MaskedTransform, Pooler, encoder_head

CONFIG = {
    "vocab": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "hidden": "intermediate_size", "context": "max_position_embeddings", "eps": "layer_norm_eps", "act": "hidden_act",
    "dropout": "hidden_dropout_prob", "tied": "tie_word_embeddings", "absolute": ("position_biased_input", True),
}  # fmt: skip
ENHANCED = "enhanced-lm"  # as the weights were trained; no config says so
HEADS = BERT_HEADS


def read(keys: Keys, kind: type, names: Collection[str] | None) -> dict[str, Any]:
    """What the config says of the sizes that all versions have."""
    found = keys.sizes(CONFIG, kind)
    if not keys.take("relative_attention", False):
        raise ConfigError(f"the {keys.family} config has relative_attention: false; only true is supported")
    kinds = keys.take("pos_att_type", None) or []
    kinds = kinds.split("|") if isinstance(kinds, str) else kinds
    kinds = [str(name).strip().lower() for name in kinds]
    if not set(kinds) <= {"c2p", "p2c"}:
        raise ConfigError(f"the {keys.family} config has pos_att_type: {kinds}; only c2p and p2c are supported")
    distance, segments = keys.take("max_relative_positions", -1), keys.take("type_vocab_size", 0)
    keys.expect("embedding_size", found["width"])
    keys.expect("pooler_hidden_size", found["width"])
    keys.expect("pooler_hidden_act", "gelu")
    keys.expect("talking_head", False)
    keys.ignore("initializer_range", "attention_probs_dropout_prob", "pooler_dropout", "cls_dropout", "padding_idx")
    # the head of the published weights has names of its own; what the reference calls `legacy` has BERT's
    alone = names is not None and any(name.startswith("lm_predictions.") for name in names)
    return {
        **found,
        "c2p": "c2p" in kinds,
        "p2c": "p2c" in kinds,
        "distance": distance if distance > 0 else found["context"],
        "segments": segments or None,
        "legacy": keys.take("legacy", True) and not alone,
        "head": keys.head(HEADS, "none"),
        "labels": keys.labels(),
    }


def write(s: Any, model_type: str, classes: str, back: Callable[[dict[str, Any]], Any], **more: Any) -> dict[str, Any]:
    """The config that `back` reads as `s`. The names of its classes begin with `classes`."""
    # files beside the config say how sentences are pooled
    body = replace(s, head="none", normalise=True) if s.head in POOLED else s
    config = {
        "model_type": model_type,
        "architectures": [architecture(classes, s.head, HEADS)],
        **published(s, CONFIG),
        "attention_probs_dropout_prob": s.dropout,
        "relative_attention": True,
        "pos_att_type": [name for name in ("c2p", "p2c") if getattr(s, name)],
        "max_relative_positions": s.distance,
        "type_vocab_size": s.segments or 0,
        "legacy": s.legacy,
        "pooler_hidden_size": s.width,
        **labelled(s.head, s.labels),
        **more,
    }
    return faithful(config, body, back(config))


def heads(s: Any, tokens: nn.Embedding) -> nn.Module | None:
    """The head that `s` names."""
    return encoder_head(
        "masked-lm" if s.head == ENHANCED else s.head,
        tokens,
        s.width,
        s.labels,
        tied=s.tied or not s.legacy,
        transform=lambda: MaskedTransform(s.width, s.act, s.eps),
        pool=lambda: Pooler(s.width, "gelu"),
        dropout=s.dropout,
        normalise=s.normalise,
    )


def last_block(s: Any, own: bool) -> Callable[..., nn.Module]:
    """How the last block is made: with the enhanced mask decoder, it runs twice. `own`: by the family's own attention."""
    if s.head != ENHANCED:
        return Block
    if not own:
        raise ConfigError(f"head={ENHANCED!r} goes with the family's own attention and positions; swap neither")
    if s.absolute:
        raise ConfigError(
            f"head={ENHANCED!r} brings in absolute positions after the layers; this model has them before"
        )
    return partial(EnhancedDecoder, LearnedPositions(s.context, s.width))


def body(s: Any) -> str:
    """The prefix of the body's names."""
    return bert_body("deberta", s.head)


def weights(s: Any, attention: Mapping[str, str]) -> list[Rule]:
    """All names but those of tensors that hold several of ours; `attention` is of its projections."""
    places = {"position_embeddings": s.absolute, "token_type_embeddings": s.segments is not None}
    steps = [*(name for name, there in places.items() if there), "LayerNorm"]
    embedding = {"word_embeddings": "tokens", **{name: f"steps.{i}" for i, name in enumerate(steps)}}
    names = {
        **{f"attention.self.{theirs}": f"attention.inner.{ours}" for theirs, ours in attention.items()},
        "attention.output.dense": "attention.inner.out",
        "attention.output.LayerNorm": "attention.norm",
        "intermediate.dense": "feedforward.inner.up",
        "output.dense": "feedforward.inner.down",
        "output.LayerNorm": "feedforward.norm",
    }
    table, positions = "stack.blocks.0.attention.inner.score_bias.table", f"{body(s)}embeddings.position_embeddings"
    rules = [
        *modules(f"{body(s)}embeddings", "stack.embedding", embedding),
        *modules(f"{body(s)}encoder.layer.{{i}}", "stack.blocks.{i}", names),
        Rule(f"{body(s)}encoder.rel_embeddings", table),
        Rule(f"{body(s)}encoder.LayerNorm", f"{table}.norm"),
        ignore(f"{body(s)}embeddings.position_ids"),
        *_head(s),
    ]
    if s.head == ENHANCED:
        return [*rules, Rule(positions, f"stack.blocks.{s.layers - 1}.positions")]
    # published even where the embedding has no absolute positions: they are those of the enhanced mask decoder
    return rules if s.absolute else [*rules, ignore(f"{positions}.weight")]


def _head(s: Any) -> list[Rule]:
    old, own, detector = "cls.predictions", "lm_predictions.lm_head", "mask_predictions.*"
    if s.head not in ("masked-lm", ENHANCED):
        sequence = {"pooler.dense": "head.pool.dense", "classifier": "head.out"}
        return [*class_heads(s.head, sequence), ignore("cls.*", f"{own}.*", detector)]
    if s.legacy:
        dense, norm = f"{old}.transform.dense", f"{old}.transform.LayerNorm"
        rules = masked_head(s.tied, dense, norm, f"{old}.decoder", f"{old}.bias")
        return [*rules, ignore(f"{own}.*", detector)]
    names = {"dense": "transform.dense", "LayerNorm": "transform.norm", "bias": "bias"}
    return [*modules(own, "head", names), ignore("cls.*", detector)]

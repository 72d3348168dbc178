"""Published names that several families share: of tensors, of config keys, of classes.

The `bert_…` tables are those of BERT and of the encoders that descend from it, the `llama_…` ones those of LLaMA and of
the decoders that do, `bart_body` that of BART. `body` is the prefix of the bodies' names, as a template such as
`(roberta.|)`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from typing import Any

from cutaway.errors import ConfigError
from cutaway.keys import Keys, faithful, labelled, published
from cutaway.layout import Rule, ignore, tied

BERT_CONFIG = {
    "vocab": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "hidden": "intermediate_size", "context": "max_position_embeddings", "segments": "type_vocab_size",
    "eps": "layer_norm_eps", "act": "hidden_act", "dropout": "hidden_dropout_prob", "tied": "tie_word_embeddings",
}  # fmt: skip
BERT_HEADS = {
    "ForMaskedLM": "masked-lm",
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
    "ForQuestionAnswering": "span",
}
LLAMA_CONFIG = {
    "vocab": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "hidden": "intermediate_size", "context": "max_position_embeddings", "eps": ("rms_norm_eps", 1e-6),
    "tied": "tie_word_embeddings", "dropout": "attention_dropout",
}  # fmt: skip
DECODER_HEADS = {"ForCausalLM": "lm", "ForSequenceClassification": "sequence", "ForTokenClassification": "token"}
FULL, SLIDING = "full_attention", "sliding_attention"  # what `layer_types` holds for each layer
POOLED = ("mean", "cls")  # heads that no config names: sentence-transformers says in files beside it how it pools


def read_bert(
    keys: Keys,
    kind: type,
    table: Mapping[str, Any],
    names: Collection[str] | None,
    heads: Mapping[str, str] = BERT_HEADS,
) -> dict[str, Any]:
    """What an encoder's config says of its sizes, by the `table` of its keys, and of its head.

    No key tells a body with a pooler from one without; the `names` of its tensors do.
    """
    keys.expect("position_embedding_type", "absolute")
    keys.ignore("initializer_range", "classifier_dropout", "attention_probs_dropout_prob")
    found = {**keys.sizes(table, kind), "head": keys.head(heads, "none"), "labels": keys.labels()}
    if any(f.name == "pooler" for f in fields(kind)):
        found["pooler"] = names is None or any(n.endswith(("pooler.dense.weight", "pooler.weight")) for n in names)
    return found


def write_bert(
    s: Any,
    model_type: str,
    classes: str,
    table: Mapping[str, Any],
    read: Callable[[dict[str, Any]], Any],
    heads: Mapping[str, str] = BERT_HEADS,
    **more: Any,
) -> dict[str, Any]:
    """The config that `read` reads as `s`, with `more` keys. The names of its classes begin with `classes`: `Roberta`.

    Raises:
        ConfigError: it cannot say some of the sizes.
    """
    config = {
        "model_type": model_type,
        "architectures": [architecture(classes, s.head, dict(reversed(list(heads.items()))))],
        **published(s, table),
        **labelled(s.head, s.labels),
        **more,
    }
    # whether there is a pooler, and how sentences are pooled, stands elsewhere than in a config
    elsewhere = {"pooler": True} if hasattr(s, "pooler") else {}
    elsewhere |= {"head": "none", "normalise": True} if s.head in POOLED else {}
    return faithful(config, replace(s, **elsewhere), read(config))


def bert_body(name: str, head: str) -> str:
    """The prefix of the body's names: written where there is a published head, read in either case."""
    return f"(|{name}.)" if head in ("none", *POOLED) else f"({name}.|)"


def bert_weights(name: str, head: str, pooled: Collection[str] = ("none", "sequence")) -> list[Rule]:
    """BERT's body under the prefix `name`; the heads `pooled` keep its pooler, if it has one."""
    body = bert_body(name, head)
    return [*bert_embeddings(body), *bert_layers(body), *bert_pooler(f"{body}pooler.dense", head, pooled)]


def modules(theirs: str, ours: str, names: Mapping[str, str]) -> list[Rule]:
    """Rules for the modules inside `theirs` and `ours`."""
    return [Rule(f"{theirs}.{a}", f"{ours}.{b}") for a, b in names.items()]


def bert_embeddings(body: str, *steps: str) -> list[Rule]:
    """Tables and norm; `steps` are the published names of the embedding's steps, where they are not BERT's."""
    steps = steps or ("token_type_embeddings", "position_embeddings", "LayerNorm")
    names = {"word_embeddings": "tokens", **{name: f"steps.{i}" for i, name in enumerate(steps)}}
    buffers = ignore(f"{body}embeddings.(position_ids|token_type_ids)")
    return [*modules(f"{body}embeddings", "stack.embedding", names), buffers]


def bert_layers(body: str) -> list[Rule]:
    """The blocks: attention and feed-forward, each with the norm after it."""
    names = {
        "attention.self.query": "attention.inner.q",
        "attention.self.key": "attention.inner.k",
        "attention.self.value": "attention.inner.v",
        "attention.output.dense": "attention.inner.out",
        "attention.output.LayerNorm": "attention.norm",
        "intermediate.dense": "feedforward.inner.up",
        "output.dense": "feedforward.inner.down",
        "output.LayerNorm": "feedforward.norm",
    }
    return modules(f"{body}encoder.layer.{{i}}", "stack.blocks.{i}", names)


def bert_pooler(theirs: str, head: str, pooled: Collection[str] = ("none", "sequence")) -> list[Rule]:
    """The pooler, a part of a bare body or of the head for classes of sequences; others leave it."""
    ours = {"none": "pooler.dense", "sequence": "head.pool.dense"}
    return [Rule(theirs, ours[head], optional=True)] if head in pooled else [ignore(f"{theirs}.(weight|bias)")]


def masked_head(tie: bool, dense: str, norm: str, decoder: str, bias: str | None = None) -> list[Rule]:
    """The masked-language head: its transform, and its projection, whose `bias` may have a name of its own besides.

    Where nothing is tied the reference keeps both names of the bias, and reads the second.
    """
    return [
        Rule(dense, "head.transform.dense"),
        Rule(norm, "head.transform.norm"),
        Rule(bias or f"{decoder}.bias", "head.bias"),
        *([Rule(f"{decoder}.bias", "head.bias", written=not tie)] if bias else []),
        tied(decoder, "stack.embedding.tokens") if tie else Rule(decoder, "head.tokens"),
    ]


def class_heads(head: str, sequence: Mapping[str, str] | None = None) -> list[Rule]:
    """The heads that tell classes of tokens or of sequences, and the beginnings and ends of answers."""
    alone = {"classifier": "head.out"}
    names = {"sequence": sequence or alone, "token": alone, "span": {"qa_outputs": "head.out"}}
    return [Rule(theirs, ours) for theirs, ours in names.get(head, {}).items()]


BART_ATTENTION = {f"{name}_proj": name for name in ("q", "k", "v", "out")}


def bart_body(body: str, encoder_attention: Mapping[str, str] = BART_ATTENTION) -> list[Rule]:
    """Both stacks of BART and of what descends from it; an encoder's attention may be another (LED)."""
    rules = []
    for stack in ("encoder", "decoder"):
        own = encoder_attention if stack == "encoder" else BART_ATTENTION
        layer = {
            **{f"self_attn.{theirs}": f"attention.inner.{ours}" for theirs, ours in own.items()},
            **{f"encoder_attn.{theirs}": f"cross.inner.{ours}" for theirs, ours in BART_ATTENTION.items()},
            "self_attn_layer_norm": "attention.norm",
            "encoder_attn_layer_norm": "cross.norm",
            "fc1": "feedforward.inner.up",
            "fc2": "feedforward.inner.down",
            "final_layer_norm": "feedforward.norm",
        }
        steps = {"embed_positions": "embedding.steps.0", "layernorm_embedding": "embedding.steps.1"}
        rules += modules(f"{body}{stack}", stack, {**steps, "layer_norm": "norm"})
        rules += modules(f"{body}{stack}.layers.{{i}}", f"{stack}.blocks.{{i}}", layer)
    return rules


def architecture(classes: str, head: str, heads: Mapping[str, str]) -> str:
    """The published class of a model with this head: its names begin with `classes` and end as `heads` says."""
    return classes + {ours: theirs for theirs, ours in heads.items()}.get(head, "Model")


def read_rotary(keys: Keys, context: int, base: str = "rope_theta", share: str | None = None) -> dict[str, Any]:
    """The sizes `rotary_base`, `rotary_scaling` and, where turning is partial, `rotary_share`.

    From the newer `rope_parameters`, or `rope_scaling` and the older keys whose names are `base` and `share`.
    """
    scaling = {**keys.take("rope_scaling", {}), **keys.take("rope_parameters", {})}

    def number(newer: str, older: str, default: float) -> float:
        older_value, value = keys.take(older, default), scaling.pop(newer, None)
        if type(value) not in (int, float, type(None)):
            raise ConfigError(f"the {keys.family} config has {newer}: {value!r}; a number is needed")
        return older_value if value is None else float(value)

    found: dict[str, Any] = {"rotary_base": number("rope_theta", base, 10_000.0)}
    if share is not None:
        found["rotary_share"] = number("partial_rotary_factor", share, 0.25)
    kind = scaling.setdefault("rope_type", scaling.pop("type", "default"))
    if kind in ("yarn", "llama3"):
        scaling.setdefault("original_max_position_embeddings", context)
    elif kind == "dynamic":
        scaling["original_max_position_embeddings"] = context
    return {**found, "rotary_scaling": None if kind == "default" else scaling}


def write_rotary(s: Any) -> dict[str, Any]:
    """The `rope_parameters` that `read_rotary` reads."""
    rope = {"rope_theta": s.rotary_base, **(s.rotary_scaling or {"rope_type": "default"})}
    if hasattr(s, "rotary_share"):
        rope["partial_rotary_factor"] = s.rotary_share
    if rope["rope_type"] == "factors":
        raise ConfigError("rotary factors given one by one have no published form; save with layout='cutaway'")
    if rope["rope_type"] == "dynamic":
        del rope["original_max_position_embeddings"]
    return rope


def llama_weights(s: Any, norms: Mapping[str, str]) -> list[Rule]:
    """Everything, for sizes with `head` and `tied`; `norms` are the names of those of a layer and of a block."""
    body = "(|model.)" if s.head == "none" else "(model.|)"
    layer, block = f"{body}layers.{{i}}", "stack.blocks.{i}"
    names = {
        **norms,
        **{f"self_attn.{name}_proj": f"attention.inner.{name}" for name in "qkv"},
        "self_attn.o_proj": "attention.inner.out",
        **{f"mlp.{name}_proj": f"feedforward.inner.{name}" for name in ("gate", "up", "down")},
    }
    return [
        Rule(f"{body}embed_tokens", "stack.embedding.tokens"),
        *modules(layer, block, names),
        Rule(f"{body}norm", "stack.norm"),
        tied("lm_head", "stack.embedding.tokens") if s.tied else Rule("lm_head", "head.tokens"),
        Rule("score", "head.out"),
        ignore("*rotary_emb.inv_freq"),
    ]

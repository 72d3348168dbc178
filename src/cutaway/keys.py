"""Reading a `config.json` strictly: each key is used, irrelevant, at its default, or refused by name."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

from cutaway.errors import ConfigError

REQUIRED: Final = object()
UNPUBLISHED = ("gelu_tanh",)  # activations that have another name in configs: gelu_new or gelu_pytorch_tanh
LARGEST = 2**31 - 1  # no published size comes near; a hostile one must not overflow a shape

# Keys that any published config may hold and that change no number the model computes.
_IRRELEVANT = """
    _attn_implementation _commit_hash _flash_attn_2_enabled _model_name_or_path _name_or_path _num_labels architectures
    attn_implementation bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    decoder_start_token_id diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size
    eos_token_id experts_implementation exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label is_encoder_decoder
    is_llama_config keys_to_ignore_at_inference label2id length_penalty max_length min_length model_type
    no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences output_attentions
    output_hidden_states output_past output_scores pad_token_id prefix problem_type
    remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
    suppress_tokens task_specific_params temperature tf_legacy_loss tokenizer_class top_k top_p
    torch_dtype torchscript transformers.js_config transformers_version transformers_weights typical_p unk_token_id
    unsloth_fixed unsloth_version use_bfloat16 use_cache
"""
IRRELEVANT = frozenset(_IRRELEVANT.split())

# Keys that would change them, and that any config may spell out at the value which does not.
HARMLESS = {"add_cross_attention": False, "is_decoder": False, "tie_encoder_decoder": False}


class Keys:
    """A config whose every key must be asked for; `finish` refuses those that nobody asked for."""

    def __init__(self, config: Mapping[str, Any], family: str):
        self.config, self.family = dict(config), family
        self.asked: set[str] = set()

    def take(self, name: str, default: Any = REQUIRED, kind: type | None = None) -> Any:
        """The key's value (absent or null: `default`), which must be of `kind`, or of the default's type."""
        self.asked.add(name)
        value = self.config.get(name)
        if value is None:
            if default is REQUIRED:
                raise ConfigError(f"the {self.family} config lacks {name}")
            return default
        kind = kind or (type(default) if default is not REQUIRED and default is not None else None)
        if kind is float and type(value) is int:
            value = float(value) if abs(value) <= LARGEST else value
        if kind is not None and type(value) is not kind:
            found = f"the {self.family} config has {name}: {_short(value)}"
            raise ConfigError(f"{found}; a value of type {kind.__name__} is needed")
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise ConfigError(f"the {self.family} config has {name}: {value}; a finite number is needed")
        return value

    def size(self, name: str, default: Any = REQUIRED) -> Any:
        """A count: a positive integer (or `default`, which may be None)."""
        value = self.take(name, default, int)
        if value is not None and value != default and not 1 <= value <= LARGEST:
            raise ConfigError(
                f"the {self.family} config has {name}: {value}; a whole number from 1 to {LARGEST} is needed"
            )
        return value

    def expect(self, name: str, *allowed: Any) -> Any:
        """The key's value, which must be one of `allowed`; the first is the default."""
        value = self.take(name, None)
        if value is None:
            return allowed[0]
        if not any(value == a and isinstance(value, bool) == isinstance(a, bool) for a in allowed):
            choices = " or ".join(repr(a) for a in allowed)
            raise ConfigError(f"the {self.family} config has {name}: {_short(value)}; only {choices} is supported")
        return value

    def sizes(self, table: Mapping[str, str | tuple[str, Any]], kind: type) -> dict[str, Any]:
        """The sizes whose published keys `table` names, by their annotations in the dataclass `kind`.

        A key that is absent has the default given beside its name, or else the one in `kind`.
        """
        found = {}
        for size in fields(kind):
            if size.name not in table:
                continue
            entry = table[size.name]
            name, default = entry if isinstance(entry, tuple) else (entry, size.default)
            default = REQUIRED if default is MISSING else default
            read = self.size if str(size.type).startswith("int") else self.take
            found[size.name] = read(name, default)
        return found

    def head(self, architectures: Mapping[str, str], default: str) -> str:
        """Our name of the head that `architectures` asks for, by how the published class name ends."""
        names = self.take("architectures", [], list)
        if not all(isinstance(name, str) for name in names):
            raise ConfigError(f"the {self.family} config has architectures: {_short(names)}; a list of names is needed")
        if not names:
            return default
        for published, ours in architectures.items():
            if names[0].endswith(published):
                return ours
        if names[0].endswith("Model"):
            return "none"
        known = ", ".join(architectures)
        raise ConfigError(f"the {self.family} config is of a {names[0]}; those that end in {known} are read")

    def labels(self, default: int = 2) -> int:
        """How many classes the config names: `id2label`, or `num_labels`, or so many as the reference takes then."""
        names = self.take("id2label", {}, dict)
        return len(names) or self.size("num_labels", default)

    def ignore(self, *names: str) -> None:
        """Keys that change no number the model computes."""
        self.asked.update(names)

    def finish(self) -> None:
        """Raises `ConfigError` naming every key that holds a value and that nobody asked for."""
        unasked = {n: v for n, v in self.config.items() if n not in self.asked and n not in IRRELEVANT}
        left = {
            n: v for n, v in unasked.items() if v not in (None, {}, []) and not (n in HARMLESS and v is HARMLESS[n])
        }
        if left:
            listed = ", ".join(f"{name}: {_short(value)}" for name, value in left.items())
            raise ConfigError(f"the {self.family} config has keys that are not understood: {listed}")


def published(sizes: Any, table: Mapping[str, str | tuple[str, Any]]) -> dict[str, Any]:
    """The config keys that hold `sizes`, by the table that reads them."""
    return {entry if isinstance(entry, str) else entry[0]: getattr(sizes, ours) for ours, entry in table.items()}


def labelled(head: str, labels: int) -> dict[str, Any]:
    """How many classes there are, as the reference writes it: by naming each. Nothing where it is the default."""
    if labels == 2 and head not in ("sequence", "token"):
        return {}
    names = [f"LABEL_{i}" for i in range(labels)]
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def faithful(config: dict[str, Any], sizes: Any, back: Any) -> dict[str, Any]:
    """`config`, written for `sizes`, where it reads `back` as the same.

    Raises:
        ConfigError: the published format cannot say some of the sizes.
    """
    lost = [f.name for f in fields(sizes) if getattr(sizes, f.name) != getattr(back, f.name)]
    lost += ["act"] if getattr(sizes, "act", None) in UNPUBLISHED else []
    if lost:
        unsaid = ", ".join(f"{name}={getattr(sizes, name)!r}" for name in lost)
        raise ConfigError(
            f"a published {config['model_type']} config cannot say {unsaid} beside the rest; save with layout='cutaway'"
        )
    return config


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

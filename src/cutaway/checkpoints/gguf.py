"""GGUF files of the LLaMA and GPT-2 families: fields to a published config, tensors to published names and layouts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway import families
from cutaway.checkpoints import gguf_header
from cutaway.checkpoints.checkpoint import Checkpoint
from cutaway.checkpoints.gguf_fields import Fields, decimal, only, scaling
from cutaway.checkpoints.gguf_header import Info
from cutaway.checkpoints.gguf_quants import Quantised
from cutaway.checkpoints.stored import File, Raw, Stored, Turned
from cutaway.errors import CheckpointError, ConfigError
from cutaway.layout import permute

PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def open_file(path: Path, source: str) -> Checkpoint:
    """Opens a GGUF file.

    Raises:
        CheckpointError: it is broken.
        ConfigError: its architecture, or something it asks of it, is not read.
    """
    fields, infos, file = gguf_header.read(path)
    architecture = fields.get("general.architecture")
    if architecture not in READERS:
        raise ConfigError(f"{path} is of architecture {architecture!r}; {' and '.join(READERS)} are read")
    if fields.get("split.count", 1) != 1:
        raise CheckpointError(f"{path} is one of several parts; join them with llama.cpp's gguf-split --merge")
    stored = {name: _stored(info, file) for name, info in infos.items()}
    config, tensors = READERS[architecture](fields, stored, path)
    family = families.by_model_type(config["model_type"])
    try:
        sizes = families.get(family).read(config)
    except (ConfigError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise ConfigError(f"{path}: {error}") from error
    ends = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    ids = {ours: fields.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in ends.items()}
    generation = {name: value for name, value in ids.items() if type(value) is int}
    return Checkpoint(
        source, family, sizes, tensors, families.get(family).weights(sizes), lambda: _tokenizer(fields), generation
    )


def _tokenizer(fields: Mapping[str, Any]) -> Any:
    if not any(name.startswith("tokenizer.ggml.") for name in fields):
        return None
    from cutaway import text

    return text.from_gguf({name: value for name, value in fields.items() if name.startswith("tokenizer.")})


def _stored(info: Info, file: File) -> Stored:
    return Raw(info.shape, PLAIN[info.kind], file, info.offset) if info.kind in PLAIN else Quantised(info, file)


def _llama(
    fields: Mapping[str, Any], stored: dict[str, Stored], path: Path
) -> tuple[dict[str, Any], dict[str, Stored]]:
    own = Fields(fields, "llama", path)
    width, heads, layers = (own.take(n) for n in ("embedding_length", "attention.head_count", "block_count"))
    context, kv_heads = own.take("context_length"), own.take("attention.head_count_kv", heads)
    if not 0 < heads <= width or not 0 < kv_heads <= heads or width > 2**24:
        raise ConfigError(f"{path} has {heads} heads and {kv_heads} key/value heads in a width of {width}")
    head_width = own.take("attention.key_length", width // heads)
    window = own.take("attention.sliding_window", None)
    base, factors = own.take("rope.freq_base", 10000.0, float), stored.pop("rope_freqs.weight", None)
    only(own, "attention.value_length", head_width)
    only(own, "rope.dimension_count", head_width)
    only(own, "expert_count", 0)
    only(own, "expert_used_count", 0)
    config = {
        "model_type": "llama" if window is None else "mistral",
        "architectures": [("Llama" if window is None else "Mistral") + "ForCausalLM"],
        "vocab_size": _vocab(own, stored, path),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_width,
        "intermediate_size": own.take("feed_forward_length"),
        "max_position_embeddings": context,
        "rms_norm_eps": decimal(own.take("attention.layer_norm_rms_epsilon", kind=float)),
        "rope_theta": decimal(base),
        "rope_scaling": scaling(own, context, base, factors),
        "tie_word_embeddings": "output.weight" not in stored,
    }
    if window is not None:
        config["sliding_window"] = window
    else:
        config["attention_bias"] = "blk.0.attn_q.bias" in stored
    own.finish()
    turned = {"attn_q": permute(heads), "attn_k": permute(kv_heads)}
    return config, _renamed(stored, LLAMA, path, lambda name: turned[name].read if name in turned else None)


def _gpt2(fields: Mapping[str, Any], stored: dict[str, Stored], path: Path) -> tuple[dict[str, Any], dict[str, Stored]]:
    own = Fields(fields, "gpt2", path)
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": _vocab(own, stored, path),
        "n_embd": own.take("embedding_length"),
        "n_layer": own.take("block_count"),
        "n_head": own.take("attention.head_count"),
        "n_inner": own.take("feed_forward_length"),
        "n_positions": own.take("context_length"),
        "layer_norm_epsilon": decimal(own.take("attention.layer_norm_epsilon", kind=float)),
        "tie_word_embeddings": "output.weight" not in stored,
    }
    only(own, "attention.head_count_kv", config["n_head"])
    own.finish()
    conv1d = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")  # published as (in, out)
    return config, _renamed(stored, GPT2, path, lambda name: _transposed if name in conv1d else None)


READERS = {"llama": _llama, "gpt2": _gpt2}
LLAMA = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "model.layers.{i}.input_layernorm", "ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "attn_q": "model.layers.{i}.self_attn.q_proj", "attn_k": "model.layers.{i}.self_attn.k_proj",
    "attn_v": "model.layers.{i}.self_attn.v_proj", "attn_output": "model.layers.{i}.self_attn.o_proj",
    "ffn_gate": "model.layers.{i}.mlp.gate_proj", "ffn_up": "model.layers.{i}.mlp.up_proj",
    "ffn_down": "model.layers.{i}.mlp.down_proj",
}  # fmt: skip
GPT2 = {
    "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f",
    "output": "lm_head", "attn_norm": "transformer.h.{i}.ln_1", "ffn_norm": "transformer.h.{i}.ln_2",
    "attn_qkv": "transformer.h.{i}.attn.c_attn", "attn_output": "transformer.h.{i}.attn.c_proj",
    "ffn_up": "transformer.h.{i}.mlp.c_fc", "ffn_down": "transformer.h.{i}.mlp.c_proj",
}  # fmt: skip


def _renamed(
    stored: Mapping[str, Stored],
    names: Mapping[str, str],
    path: Path,
    turning: Callable[[str], Callable[[Tensor], Any] | None],
) -> dict[str, Stored]:
    """The tensors under their published names, laid out as published."""
    found: dict[str, Stored] = {}
    for theirs, tensor in stored.items():
        *block, name, suffix = theirs.split(".") if "." in theirs else ("", theirs)
        per_block = len(block) == 2 and block[0] == "blk" and block[1].isdecimal()
        if (
            name not in names
            or suffix not in ("weight", "bias")
            or per_block != ("{i}" in names[name])
            or len(block) == 1
        ):
            raise CheckpointError(f"{path} holds {theirs}, which the model its fields describe lacks")
        turn = turning(name)
        published = f"{names[name].replace('{i}', block[1] if per_block else '')}.{suffix}"
        try:
            found[published] = tensor if turn is None else Turned(tensor, lambda t, turn=turn: _single(turn(t)))
        except RuntimeError as error:
            raise CheckpointError(f"{path}: {theirs} has shape {list(tensor.shape)}, which fits no head") from error
    return found


def _single(turned: Any) -> Tensor:
    return turned[0] if isinstance(turned, list) else turned


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.t() if tensor.ndim == 2 else tensor


def _vocab(own: Fields, stored: Mapping[str, Stored], path: Path) -> int:
    if "token_embd.weight" not in stored:
        raise CheckpointError(f"{path} lacks token_embd.weight")
    rows = stored["token_embd.weight"].shape[0]
    only(own, "vocab_size", rows)
    return rows

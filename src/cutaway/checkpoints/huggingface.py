"""The Hugging Face layout of a checkpoint: `config.json`, weights in one file or several with an index, a tokenizer."""

import dataclasses
import json
from pathlib import Path, PurePosixPath
from typing import Any

from cutaway import families
from cutaway.checkpoints import pickled, safetensors
from cutaway.checkpoints.checkpoint import Checkpoint
from cutaway.checkpoints.stored import Stored
from cutaway.errors import CheckpointError, ConfigError, SourceError

CONFIG, SENTENCES = "config.json", "sentence_bert_config.json"
IDS = tuple(f"{name}_token_id" for name in ("bos", "eos", "pad", "decoder_start", "forced_bos", "forced_eos"))
LARGEST_JSON = 64 << 20
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def open_folder(folder: Path, source: str) -> Checkpoint:
    """Opens a folder as `save_pretrained` writes it, or as sentence-transformers does.

    Raises:
        SourceError: there is no `config.json`.
        ConfigError: a config that no family reads.
        CheckpointError: weights that are broken or not there.
    """
    if not (folder / CONFIG).is_file():
        raise SourceError(f"{folder} holds no {CONFIG} (nor a cutaway.json), so it is no checkpoint")
    config = read_json(folder / CONFIG)
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise ConfigError(f"{folder / CONFIG} names no model_type, so nobody can tell which family it is of")
    try:
        family = families.by_model_type(kind)
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from error
    module = families.get(family)
    tensors = open_tensors(folder)
    try:
        sizes = module.read(config, tensors.keys())
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from error
    except (TypeError, AttributeError, IndexError, KeyError, ZeroDivisionError, OverflowError, ValueError) as error:
        raise ConfigError(f"{folder / CONFIG} holds a value of a wrong kind: {error}") from error
    if hasattr(sizes, "normalise"):
        sizes = dataclasses.replace(sizes, **_pooling(folder))
    generation = {name: config[name] for name in (*IDS, "bad_words_ids") if config.get(name) is not None}
    if (folder / "generation_config.json").is_file():
        generation |= read_json(folder / "generation_config.json")
    rules, names = module.weights(sizes), label_names(config, sizes)
    return Checkpoint(source, family, sizes, tensors, rules, lambda: tokenizer(folder), generation, label_names=names)


def label_names(config: dict[str, Any], sizes: Any) -> tuple[str, ...]:
    """What the classes of a head are called: `id2label`, in the order of the ids. Empty where it names none."""
    names = config.get("id2label")
    if not isinstance(names, dict) or getattr(sizes, "head", None) not in ("sequence", "token"):
        return ()
    found = tuple(names.get(str(i)) for i in range(len(names)))
    return found if all(isinstance(name, str) for name in found) else ()  # type: ignore[return-value]


def tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, or None where no file of one is there."""
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return None
    from cutaway import text

    found = text.from_directory(folder)
    if (folder / SENTENCES).is_file():  # where sentence-transformers cuts a text; it comes before the tokenizer's own
        length = read_json(folder / SENTENCES).get("max_seq_length")
        found.max_length = length if type(length) is int and length > 0 else found.max_length
    return found


def _pooling(folder: Path) -> dict[str, Any]:
    """A folder of sentence-transformers says in further files how it pools: those sizes."""
    if not (folder / "modules.json").is_file() or not (folder / "1_Pooling" / CONFIG).is_file():
        return {}
    path = folder / "modules.json"
    try:
        kinds = [module["type"].rpartition(".")[2] for module in json.loads(path.read_bytes())]
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is no list of modules and their types; fetch it again") from error
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise ConfigError(f"{path} chains {', '.join(kinds)}; only Transformer, Pooling and perhaps Normalize are read")
    pooling = read_json(folder / "1_Pooling" / CONFIG)
    on = {key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True}
    mode = pooling.get("pooling_mode") or ("mean" if on == {"pooling_mode_mean_tokens"} else None)
    mode = mode or ("cls" if on == {"pooling_mode_cls_token"} else None)
    if mode not in ("mean", "cls"):
        raise ConfigError(f"{folder / '1_Pooling' / CONFIG} pools in a way other than 'mean' or 'cls'")
    return {"head": mode, "normalise": "Normalize" in kinds}


def open_tensors(folder: Path) -> dict[str, Stored]:
    """The tensors of a folder by name: safetensors where there are any, else PyTorch's `.bin`."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return open_file(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _sharded(folder, folder / f"{name}.index.json")
    raise CheckpointError(
        f"{folder} holds no weights: neither model.safetensors nor pytorch_model.bin, nor an index of either. "
        "Was the download interrupted? Fetch it again"
    )


def open_file(path: Path) -> dict[str, Stored]:
    return pickled.read(path) if path.suffix == ".bin" else dict(safetensors.read(path))


def _sharded(folder: Path, index: Path) -> dict[str, Stored]:
    """Several files, and an index that says which tensor lies in which. Both must agree."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise CheckpointError(f"{index} has no weight_map of names to files")
    tensors: dict[str, Stored] = {}
    for shard in sorted(set(places.values())):
        path = _inside(folder, shard, index)
        for name, tensor in open_file(path).items():
            if places.get(name) != shard:
                elsewhere = f"places it in {places[name]}" if name in places else "does not name it"
                raise CheckpointError(f"{path} holds {name}, but {index.name} {elsewhere}")
            tensors[name] = tensor
    for name, shard in places.items():
        if name not in tensors:
            raise CheckpointError(f"{folder / shard} lacks {name}, which {index.name} places there")
    return tensors


def _inside(folder: Path, shard: str, index: Path) -> Path:
    """The shard's path, which must be a file of this very folder (a link of the hub's cache may lead to its blobs)."""
    pure = PurePosixPath(shard)
    path = folder / shard
    if pure.name != shard or shard in ("", ".", "..") or "\\" in shard or "\0" in shard:
        raise CheckpointError(f"{index} points outside its folder: {shard!r}")
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, though {index.name} names it; fetch it again")
    homes = [
        folder.resolve(),
        *(blobs.resolve() for blobs in [folder.resolve().parents[1] / "blobs"] if blobs.is_dir()),
    ]
    if not any(path.resolve().is_relative_to(home) for home in homes):
        raise CheckpointError(f"{index} points outside its folder: {shard!r} is a link to {path.resolve()}")
    if path.suffix not in (".safetensors", ".bin"):
        raise CheckpointError(f"{index} names {shard!r}, which is no file of weights")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a small file."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise CheckpointError(f"{path} is too large for what it should be")
        return safetensors.parse_json(path.read_bytes(), path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error

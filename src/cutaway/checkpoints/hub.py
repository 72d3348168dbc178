"""Checkpoints from the Hugging Face hub, through its client and its cache."""

import re
from pathlib import Path

from cutaway.errors import SourceError

HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
# named one by one: many repositories also keep other formats of the same weights, several times as large
DESCRIPTION = [
    "config.json", "cutaway.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model",
    "spiece.model", "sentencepiece.bpe.model", "chat_template.json", "chat_template.jinja", "modules.json",
    "sentence_bert_config.json", "1_Pooling/config.json",
    "adapter_config.json", "adapter_model.safetensors",
]  # fmt: skip
SAFETENSORS = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
PICKLED = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"]


def fetch(source: str) -> Path:
    """The local folder of `owner/name[@revision]`, downloaded unless the cache has it.

    Honours the client's own settings: `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`.

    Raises:
        SourceError: no such repository, no permission, or no network.
    """
    match = HUB_ID.fullmatch(source)
    if match is None:
        raise SourceError(f"{source!r} is no hub id of the form owner/name or owner/name@revision")
    folder = _snapshot(match["repo"], match["revision"], DESCRIPTION + SAFETENSORS)
    if not any((folder / name).exists() for name in (*SAFETENSORS[:2], "adapter_model.safetensors")):
        folder = _snapshot(match["repo"], match["revision"], DESCRIPTION + PICKLED)
    return folder


def _snapshot(repo: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    name = repo if revision is None else f"{repo}@{revision}"
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        why = "its publisher asks you to accept terms first: do so on its page, then log in with `hf auth login`"
        raise SourceError(f"{name} cannot be fetched: {why}") from error
    except errors.RevisionNotFoundError as error:
        raise SourceError(f"{repo} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        why = "there is no such repository, or it is private: check the name, or log in with `hf auth login`"
        raise SourceError(f"{name} cannot be fetched: {why}") from error
    except errors.HFValidationError as error:
        raise SourceError(f"{name!r} is no valid hub id: {error}") from error
    except errors.LocalEntryNotFoundError as error:
        why = "the cache does not have all of it, and the hub cannot be reached (no network, or HF_HUB_OFFLINE is set)"
        raise SourceError(f"{name}: {why}. Go online once, or give a folder with the files") from error
    except Exception as error:  # whatever the client's transport raises: it has changed twice
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(f"{name} could not be fetched: {first}. What came so far is kept: try again") from error

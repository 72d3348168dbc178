"""The safetensors format: a JSON header of names, dtypes, shapes and offsets, then the numbers.

Read and written here in a stream, one tensor at a time, so that neither needs a second copy of the model in memory.
The reader trusts nothing: sizes are checked against the file before anything is allocated.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cutaway.checkpoints.stored import File, Raw, memory_of
from cutaway.errors import CheckpointError

LARGEST_HEADER = 100 << 20  # the reference reader's own limit
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}


def parse_json(text: bytes, path: Path) -> dict[str, Any]:
    """A JSON object without duplicate keys, or a `CheckpointError` that names the file."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"{path} names {twice!r} twice")
        return found

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {_first_line(error)}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return value


def read(path: Path) -> dict[str, Raw]:
    """The tensors of a safetensors file by name, not read yet.

    Raises:
        CheckpointError: the header is broken, or does not describe exactly this file.
    """
    file = File(path)
    start = file.bytes(0, 8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(file.size - 8, LARGEST_HEADER):
        raise CheckpointError(f"{path} is no whole safetensors file: its header claims {length} bytes of {file.size}")
    header = parse_json(file.bytes(8, length), path)
    header.pop("__metadata__", None)
    base, tensors, spans = 8 + length, {}, []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(name, entry, path)
        if end - begin != prod(shape) * dtype.itemsize:
            raise CheckpointError(f"{path}: {name} has shape {list(shape)}, but {end - begin} bytes")
        if base + end > file.size:
            raise CheckpointError(f"{path} is cut off: {name} ends at byte {base + end} of {file.size}; fetch it again")
        tensors[name] = Raw(shape, dtype, file, base + begin)
        spans.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(spans):
        if begin != reached:
            raise CheckpointError(f"{path}: {name} does not start where the tensor before it ends")
        reached = end
    if base + reached != file.size:
        raise CheckpointError(f"{path} has {file.size - base - reached} bytes that belong to no tensor")
    return tensors


def _entry(name: str, entry: Any, path: Path) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    wrong = CheckpointError(f"{path}: the header's entry for {name} makes no sense")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if any(type(n) is not int or not 0 <= n < 2**63 for n in numbers) or len(offsets) != 2 or len(shape) > 64:
        raise wrong
    if prod(shape) >= 2**63:
        raise wrong
    if not isinstance(code, str) or code not in DTYPES:
        raise CheckpointError(f"{path}: {name} is of type {code!r}, which is not supported")
    return DTYPES[code], tuple(shape), offsets[0], offsets[1]


class Part(NamedTuple):
    """A tensor to be written: its shape and dtype are known before it is made."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Any  # () -> Tensor

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def write(path: Path, parts: Iterable[Part], metadata: Mapping[str, str]) -> None:
    """Writes the tensors one after another, each made only when its turn comes."""
    parts, header, reached = list(parts), {"__metadata__": dict(metadata)}, 0
    for part in parts:
        offsets = [reached, reached := reached + part.size]
        header[part.name] = {"dtype": CODES[part.dtype], "shape": list(part.shape), "data_offsets": offsets}  # type: ignore[assignment]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for part in parts:
            tensor: Tensor = part.make()
            file.write(memory_of(tensor.detach().cpu().contiguous()))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

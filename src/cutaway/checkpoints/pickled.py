"""`pytorch_model.bin`: pickles, read only through torch's `weights_only` loader, which builds nothing but tensors."""

import ctypes
import mmap
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from cutaway.checkpoints.stored import PIECE, Stored
from cutaway.errors import CheckpointError

NAMES = 4  # that a tied table may have: T5's and BART's own files name it so often


class Held(Stored):
    """A tensor that torch has mapped from the file."""

    def __init__(self, tensor: Tensor, path: Path):
        super().__init__(tuple(tensor.shape), tensor.dtype, path)
        self.tensor = tensor

    def pieces(self) -> Iterator[Tensor]:
        if not self.tensor.is_contiguous():
            yield self.tensor.reshape(-1)
            return
        flat, step = self.tensor.view(-1), PIECE // self.dtype.itemsize
        for start in range(0, len(flat), step):
            yield flat[start : start + step]
            _forget(flat[start : start + step])


def _forget(tensor: Tensor) -> None:
    """Gives mapped pages back to the system, which would count them as ours for as long as it likes."""
    if not sys.platform.startswith("linux"):
        return
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin:
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def read(path: Path) -> dict[str, Stored]:
    """The tensors of a `.bin` file by name.

    Raises:
        CheckpointError: it is broken, holds anything but tensors, or would unpack into more than the file.
    """
    try:
        mapped = zipfile.is_zipfile(path)
        if mapped:
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch speaks about its own storages
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than plain tensors, or is broken; such a file could run code and is not opened. "
            "Ask its publisher for safetensors"
        ) from error
    except Exception as error:  # torch's reader raises nearly anything on broken bytes
        raise CheckpointError(f"{path} is no whole file of PyTorch weights ({type(error).__name__})") from error
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise CheckpointError(f"{path} does not hold a dictionary of named tensors")
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(f"{path}: {name} is no plain tensor (sparse, quantised or empty of data)")
        if tensor.nbytes > path.stat().st_size:
            raise CheckpointError(f"{path}: {name} claims more bytes than the file has")
    if sum(tensor.nbytes for tensor in found.values()) > NAMES * path.stat().st_size:
        raise CheckpointError(
            f"{path}: its tensors claim more bytes than the file has; they are the same few again and again"
        )
    return {name: (Held if mapped else InMemory)(tensor, path) for name, tensor in found.items()}


class InMemory(Held):
    """A tensor of the oldest format, which cannot be mapped: it is in memory already."""

    def pieces(self) -> Iterator[Tensor]:
        yield self.tensor.reshape(-1)


def _check_archive(path: Path) -> None:
    """PyTorch stores its records uncompressed; a compressed one could unpack into any amount of memory."""
    with zipfile.ZipFile(path) as archive:
        packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        total = sum(info.file_size for info in archive.infolist())
    if packed or total > path.stat().st_size:
        raise CheckpointError(f"{path} is packed as no file of PyTorch weights is; it is not opened")

"""Checkpoints, both ways: opened without reading a tensor, read straight to their place, written whole or not at all."""

from cutaway.checkpoints.checkpoint import Checkpoint
from cutaway.checkpoints.materialise import main_dtype, materialise
from cutaway.checkpoints.sources import PACKAGES, open_source

__all__ = ["PACKAGES", "Checkpoint", "main_dtype", "materialise", "open_source"]

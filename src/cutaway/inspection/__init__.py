"""Seeing: attention as heatmaps and as a head view, position encodings, next-token probabilities.

heatmap, heads, positions, next_tokens    pictures of plain arrays, from any model
inspect                                   run one of our models and look at all of it
Picture                                   what they return: `.save("x.png" | "x.svg" | "x.html")`, shown in notebooks
"""

from cutaway.inspection.bars import next_tokens
from cutaway.inspection.encodings import positions
from cutaway.inspection.errors import PictureError
from cutaway.inspection.headview import heads
from cutaway.inspection.heatmaps import heatmap
from cutaway.inspection.inspector import Inspection, inspect
from cutaway.inspection.picture import Picture

__all__ = ["Inspection", "Picture", "PictureError", "heads", "heatmap", "inspect", "next_tokens", "positions"]

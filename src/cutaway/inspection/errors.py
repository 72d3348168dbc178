"""The error of this package."""

from cutaway.errors import CutawayError


class PictureError(CutawayError):
    """Arrays, tokens or file names from which no picture can be drawn."""

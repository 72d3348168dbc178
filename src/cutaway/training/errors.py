"""The errors of training, each of which says what to do."""

from cutaway.errors import CutawayError


class TrainingError(CutawayError):
    """A run that cannot be what was asked: an objective, a model, data or options that do not go together."""


class DataError(TrainingError):
    """Data that cannot be read whole and exactly: the message names the file and, where it has lines, the line."""

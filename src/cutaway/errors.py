"""The errors a user meets: one message each, which says what is wrong and what to do about it."""

LONGEST = 1500  # characters of a message


class CutawayError(ValueError):
    """Base of every error that cutaway raises on purpose. The shell prints its message without a traceback.

    A message is one line that a terminal can show, whatever the file it speaks of has for names.
    """

    def __init__(self, message: object = "") -> None:
        line = " ".join(str(message).splitlines())
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
        super().__init__(line if len(line) <= LONGEST else line[: LONGEST - 1] + "…")


class ConfigError(CutawayError):
    """Sizes or a `config.json` that describe no model we can build."""


class CheckpointError(CutawayError):
    """A checkpoint that cannot be read whole and exactly: missing, extra, mis-shaped or broken tensors."""


class SourceError(CutawayError):
    """A source (path, hub id, preset name) that leads to no checkpoint."""


class TokenizerError(CutawayError):
    """A tokenizer file or a chat template that cannot be used."""


class CapacityError(CutawayError):
    """More tokens than the model or its state has room for."""

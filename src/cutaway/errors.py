"""The errors a user meets: one message each, which says what is wrong and what to do about it."""


class CutawayError(ValueError):
    """Base of every error that cutaway raises on purpose. The shell prints its message without a traceback."""


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

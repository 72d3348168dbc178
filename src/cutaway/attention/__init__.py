"""What attention is (`scores`), who looks at whom (`masks`), how to compute it (`backends`), how to watch (`record`)."""

from cutaway.attention.backends import attend, backend
from cutaway.attention.masks import Causal, Full, Mask, Padding, Prefix, Window
from cutaway.attention.record import Implied, Recorded, Trace, recording
from cutaway.attention.scores import Scores, weights
from cutaway.attention.tables import Dense, Documents

__all__ = [
    "Causal",
    "Dense",
    "Documents",
    "Full",
    "Implied",
    "Mask",
    "Padding",
    "Prefix",
    "Recorded",
    "Scores",
    "Trace",
    "Window",
    "attend",
    "backend",
    "recording",
    "weights",
]

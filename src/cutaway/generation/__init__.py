"""From a model's logits to text: sampling, the decoding loop, beam search."""

from cutaway.generation.beam import Beams
from cutaway.generation.constraints import Constraints
from cutaway.generation.decode import Generation, Stream, generate, stream
from cutaway.generation.runner import Past
from cutaway.generation.sampling import Sampling, probabilities, sample

__all__ = [
    "Beams",
    "Constraints",
    "Generation",
    "Past",
    "Sampling",
    "Stream",
    "generate",
    "probabilities",
    "sample",
    "stream",
]

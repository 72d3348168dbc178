"""Numbers that look random and are a function of what they are for: nothing to save, and every rank can compute them.

SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", figure 17) mixes 64 bits so that each
bit of the input turns about half of those of the output. Unlike a library's generator it never changes between versions.
"""

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio


def fold(seed: int, *numbers: int) -> int:
    """One seed of 63 bits from a seed and what it is for: `fold(seed, step, rank)`."""
    state = _mix(seed & _MASK)
    for number in numbers:
        state = _mix((state + _GAMMA + number) & _MASK)
    return state >> 1  # torch and numpy take both signs differently


def _mix(x: int) -> int:
    x = (x + _GAMMA) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 of each number."""
    with np.errstate(over="ignore"):  # modulo 2^64 is meant
        x = x + np.uint64(_GAMMA)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))

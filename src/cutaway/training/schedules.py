"""How the learning rate changes: each schedule is a factor from 0 to 1, a function of the step alone.

Steps count from 1, and step n is made with `factor(n)`. With W steps of warm-up and N in all:

    warm-up    n / W
    noam       √(W / n)                     Vaswani et al. 2017, equation 3; its rate is (width · W)^-½ at the highest
    cosine     f + (1 - f) (1 + cos πp) / 2, where p = (n - W) / (N - W)     Loshchilov & Hutter 2017, equation 5
    linear     1 - (1 - f) p
    wsd        1, and in the last part of the steps linearly down to f       Hu et al. 2024 (MiniCPM), section 4
    constant   1
"""

import math

from cutaway.training.recipe import Schedule


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """The part of the highest rate with which step `step` of `steps` is made."""
    warmup = min(schedule.warmup if schedule.warmup >= 1 else round(schedule.warmup * steps), steps)
    if step < warmup:
        return step / warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "noam":
        return math.sqrt(max(warmup, 1) / max(step, 1))
    if schedule.name == "wsd":
        start = max(warmup, steps - round(schedule.cooldown * steps))
    else:
        start = warmup
    progress = min(1.0, max(0, step - start) / max(1, steps - start))
    if schedule.name == "cosine":
        return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2
    return 1 - (1 - schedule.final) * progress

"""Who looks on while a run goes: a live display, other programs' logs, samples. A picture of the curves at its end."""

from cutaway.training.recipe import Watching
from cutaway.training.watch.watch import Several, Start, Watch

__all__ = ["Several", "Start", "Watch", "asked"]


def asked(settings: Watching) -> Several:
    """The onlookers that a recipe asks for, without the live display: that is the shell's."""
    watches: list[Watch] = []
    if settings.prompt is not None:
        from cutaway.training.watch.samples import Samples

        watches.append(Samples(settings.prompt, settings.tokens))
    if settings.tensorboard:
        from cutaway.training.watch.boards import TensorBoard

        watches.append(TensorBoard())
    if settings.wandb is not None:
        from cutaway.training.watch.boards import WandB

        watches.append(WandB(settings.wandb))
    return Several(*watches)

"""`cutaway train`, of which process RANK is killed before it makes step STEP, in the first life of the run."""

import os
import signal
import sys

from cutaway.cli import main
from cutaway.training.loop import Trainer

rank, number, *arguments = sys.argv[1:]
step = Trainer.step


def dying(self, n):
    if os.environ["RANK"] == rank and n == int(number) and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, n)


Trainer.step = dying  # type: ignore[method-assign]
sys.exit(main(arguments))

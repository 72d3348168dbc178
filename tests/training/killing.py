"""Runs that are killed: a program, so that its children can be forked and die without taking the tests with them.

python killing.py KIND TEXT FOLDER COUNT SETTINGS...   prints one JSON object
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from cutaway.training import train
from cutaway.training.recipe import Recipe
from cutaway.training.toml import settings

torch.set_num_threads(1)  # a child of fork has no threads but its own


def child(work) -> int:
    """A process that does `work`; its id."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    return pid


def ended(pid) -> tuple[bool, int]:
    """Whether it was killed, and its exit status where not."""
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status), os.waitstatus_to_exitcode(status)


def at_random(recipe, folder, count):
    """SIGKILL at random moments, `count` times; then it may finish. Most come while it trains, some while it begins."""
    draw, partial, reached = random.Random(0), 0, []
    log = folder / "log.jsonl"
    for _ in range(count):
        before = log.stat().st_mtime_ns if log.exists() else 0
        pid = child(lambda: train(recipe, folder))
        if draw.random() < 0.8:
            while not log.exists() or log.stat().st_mtime_ns == before or not log.stat().st_size:
                time.sleep(0.002)
        time.sleep(draw.uniform(0.0, 0.1))
        os.kill(pid, signal.SIGKILL)
        killed, _ = ended(pid)
        assert killed, "the run is too short: it was over before it was killed"
        partial += bool(list(folder.glob("checkpoints/.*")))
        reached.append(len(log.read_text().splitlines()) if log.exists() else 0)
    status = ended(child(lambda: train(recipe, folder)))[1]
    return {"kills": count, "while writing": partial, "reached": reached, "status": status}


def at_every_call(recipe, folder, count):
    """SIGKILL at the first call that touches the disk, then at the second, …: none may leave a run that cannot go on.

    Each time from where the time before had come, so that there is always something that is to be written.
    """
    kills = 0
    for after in range(count):

        def work(after=after):
            left = after

            def dying(call):
                def wrapped(*given, **named):
                    nonlocal left
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return call(*given, **named)

                return wrapped

            for module, name in ((os, "replace"), (os, "fsync"), (os, "rename"), (os, "unlink"), (os, "rmdir")):
                setattr(module, name, dying(getattr(module, name)))
            shutil.rmtree = dying(shutil.rmtree)
            train(recipe, folder)

        killed, status = ended(child(work))
        kills += killed
        if not killed:
            return {"kills": kills, "status": status}
    return {"kills": kills, "status": ended(child(lambda: train(recipe, folder)))[1]}


def on_a_full_disk(recipe, folder, count):
    """No file may become larger than `count` bytes once the first checkpoint is there."""
    from cutaway.training.watch import Watch

    class Full(Watch):
        def saved(self, step):
            resource.setrlimit(resource.RLIMIT_FSIZE, (count, resource.RLIM_INFINITY))

    full = ended(child(lambda: train(recipe, folder, watch=Full())))[1]
    left = [path.name for path in (folder / "checkpoints").iterdir()]
    loads = ended(child(lambda: __import__("cutaway").load(folder)))[1]
    return {"full": full, "left": left, "loads": loads, "status": ended(child(lambda: train(recipe, folder)))[1]}


if __name__ == "__main__":
    kind, text, folder, count, *given = sys.argv[1:]
    recipe = settings({**dict(each.split("=") for each in given), "data.path": text}, Recipe())
    kinds = {"random": at_random, "call": at_every_call, "full": on_a_full_disk}
    print(json.dumps(kinds[kind](recipe, Path(folder), int(count))))

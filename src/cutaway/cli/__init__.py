"""The shell: `cutaway COMMAND ...`. It parses, calls the package and prints; the work is done elsewhere.

Commands live in modules of their own and are imported when called, so that `cutaway --help` is instant.
"""

import difflib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from cutaway.errors import CutawayError

# command -> (module, what it does)
COMMANDS = {
    "models": ("cutaway.cli.cards", "list the families and their published sizes"),
    "card": ("cutaway.cli.cards", "what a model is, and the memory and work it takes"),
    "generate": ("cutaway.cli.talk", "let a model answer a prompt"),
    "chat": ("cutaway.cli.talk", "talk with a model"),
    "embed": ("cutaway.cli.sources", "turn sentences into vectors, and compare them"),
    "inspect": ("cutaway.cli.sources", "draw where a model looks in a text"),
    "verify": ("cutaway.cli.verify", "compare a model with transformers, number by number"),
    "train": ("cutaway.cli.train", "teach a model from text files; a run that was stopped goes on"),
    "finetune": ("cutaway.cli.tune", "tune a trained model for a task; a run that was stopped goes on"),
    "eval": ("cutaway.cli.tune", "score a model on data: its task, or perplexity"),
    "predict": ("cutaway.cli.tune", "ask a tuned model about new texts"),
    "convert": ("cutaway.cli.sources", "write a model as a folder that transformers reads"),
}

_HELP = """\
usage: cutaway COMMAND ...

Transformers with the hood off: load published models, let them answer, and see inside.

commands:
{commands}

`cutaway COMMAND --help` explains a command, with an example. A first one:

  cutaway card bert-base
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status (0 done, 2 wrong use or input, 130 Ctrl-C, 141 broken pipe)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = _warn
    for text in (sys.stdin, sys.stdout):  # characters that do not go through become ? or U+FFFD
        if isinstance(text, io.TextIOWrapper):
            text.reconfigure(errors="replace")
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except CutawayError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; whatever is still buffered must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        lines = [f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items()]
        print(_HELP.format(commands="\n".join(lines)), end="")
        return 0
    if argv[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"cutaway {version('cutaway')}")
        return 0
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else "`cutaway --help` lists them"
        return _complain(f"no command {argv[0]!r}; {hint}")
    from cutaway.cli import usage

    usage.read(getattr(importlib.import_module(COMMANDS[argv[0]][0]), argv[0]), argv[0], argv[1:])()
    return 0


def _warn(message: Warning | str, *_: object) -> None:
    print(f"cutaway: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _complain(message: str) -> int:
    rank = os.environ.get("RANK", "0")  # torchrun's, where it started several of us
    print(f"cutaway: error{'' if rank == '0' else f' of process {rank}'}: {' '.join(message.split())}", file=sys.stderr)
    return 2

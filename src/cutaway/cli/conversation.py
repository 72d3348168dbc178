"""The loop behind `cutaway chat`: read a line, answer it, remember both."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from cutaway.errors import CutawayError
from cutaway.generation import Past, stream

HELP = """\
/help          this
/reset         forget the conversation
/system TEXT   tell the model what to be, and start afresh (without TEXT: nothing)
/exit          leave, as Ctrl-D does

Ctrl-C stops an answer. Anything else is said to the model."""


class Conversation:
    """What was said so far, and how to answer it."""

    def __init__(self, loaded: Any, system: str | None, settings: dict[str, Any]) -> None:
        self.loaded, self.system, self.settings = loaded, system, settings
        self.interactive = sys.stdin.isatty()
        self.messages: list[dict[str, str]] = []
        self.past = Past()  # so that a turn reads only what is new
        self.reset()

    def reset(self) -> None:
        """Back to the beginning, where only the system's message is."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def run(self) -> None:
        """Until the input ends or somebody says /exit."""
        if self.interactive:
            with contextlib.suppress(ImportError):  # editing and recalling lines, where the platform has it
                import readline  # noqa: F401
            print("Say something; /help lists what else you can type, Ctrl-D leaves.")
        while True:
            try:
                line = self._ask()
                if line is None or line in ("/exit", "/quit"):
                    return
                if line.startswith("/"):
                    self._obey(line)
                elif line:
                    self._answer(line)
            except KeyboardInterrupt:  # at the prompt, or too late to stop an answer
                if not self.interactive:
                    raise
                print("\n(Ctrl-D or /exit leaves)")

    def _ask(self) -> str | None:
        """The next line, or None at the end of the input."""
        try:
            return input("\n> " if self.interactive else "").strip()
        except EOFError:
            if self.interactive:
                print()
            return None

    def _obey(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if command == "/help":
            print(HELP)
        elif command == "/reset":
            self.reset()
            print("(forgotten)")
        elif command == "/system":
            self.system = rest.strip() or None
            self.reset()
            print("(starting afresh)")
        else:
            print(f"no command {command}; /help lists them")

    def _answer(self, line: str) -> None:
        asked = [*self.messages, {"role": "user", "content": line}]
        said: list[str] = []
        try:
            ids = self.loaded.tokenizer.encode_chat(asked)
            pieces = stream(self.loaded, [ids], past=self.past, **self.settings)
            for piece in pieces:
                said.append(str(piece))
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            print(" …", end="")
        except CutawayError as error:  # too long, mostly: the conversation goes on without this line
            print(f"{error} (/reset forgets the conversation)", file=sys.stderr)
            return
        print()
        self.messages = [*asked, {"role": "assistant", "content": "".join(said)}]

"""A command's arguments, read by its signature; wrong use is one line, as every other error is."""

import contextlib
import functools
import inspect
import io
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from cutaway.errors import CutawayError


def _number(kind: type, metavar: str) -> PrimitiveConstructorSpec[Any]:
    """A number that need not be given, read by itself: tyro's report on `kind | None` tells of both."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda given: kind(given[0]),
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


OptionalInt = Annotated[int | None, _number(int, "INT"), arg(help_behavior_hint="")]
OptionalFloat = Annotated[float | None, _number(float, "FLOAT"), arg(help_behavior_hint="")]
PLAINER = {
    "Error parsing ": "",
    "invalid literal for int() with base 10:": "a whole number is needed, not",
    "could not convert string to float:": "a number is needed, not",
    ". Expected 1 values": "",
}


def read(command: Callable[..., None], name: str, args: Sequence[str]) -> Callable[[], None]:
    """The call that `args` ask for. Its docstring explains the command; with --help, this prints it and exits.

    Raises:
        CutawayError: wrong use.
    """

    @functools.wraps(command)
    def asked(*given: Any, **named: Any) -> Callable[[], None]:
        return functools.partial(command, *given, **named)

    about = inspect.cleandoc(command.__doc__ or "").split("\nArgs:")[0]
    takes = "settings" in inspect.signature(command).parameters
    dotted, args = _dotted(args) if takes else ({}, list(args))
    settings = {"prog": f"cutaway {name}", "description": about, "config": (tyro.conf.FlagCreatePairsOff,)}
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            call = tyro.cli(asked, args=args, **settings)
            return functools.partial(call, settings=dotted) if dotted else call
    except SystemExit as left:
        if not left.code:
            raise
    report = _Plain()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(report), contextlib.redirect_stderr(report):
        tyro.cli(asked, args=args, **settings)
    raise CutawayError(
        f"{_said(report.getvalue())}{_section(args) if takes else ''} (`cutaway {name} --help` explains)"
    )


def _dotted(args: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The `--section.key VALUE` of a command that takes open `settings`, and the other arguments."""
    found, rest, left = {}, [], iter(args)
    for each in left:
        name, equals, value = each.partition("=")
        if not (name.startswith("--") and "." in name):
            rest.append(each)
            continue
        if not equals and (value := next(left, None)) is None:
            raise CutawayError(f"{name} needs a value")
        found[name[2:]] = value
    return found, rest


def _section(args: Sequence[str]) -> str:
    """Which keys of a recipe may have been meant."""
    from cutaway.training.recipe import Recipe

    known = Recipe().flat()
    meant = [f"--{key}" for key in known for each in args if each.partition("=")[0] == f"--{key.partition('.')[2]}"]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


class _Plain(io.StringIO):
    """Where tyro reports with a frame of these characters and without colours, whatever the terminal."""

    encoding = "utf-8"


def _said(box: str) -> str:
    """What tyro's report says: without its frame, and without the explanations of arguments that it repeats."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines():
        row = line.removeprefix("│ ").removesuffix("│").rstrip()
        if set(row) == {"─"}:
            sections.append([])
        elif row.strip() and line.startswith("│") and not row.startswith(" " * 8):
            sections[-1].append(row.strip())
    asides = ("For full helptext", "Argument helptext")
    text = "; ".join(" ".join(rows).rstrip(".") for rows in sections if rows and not rows[0].startswith(asides))
    for pythons, ours in PLAINER.items():
        text = text.replace(pythons, ours)
    return text[:1].lower() + text[1:]

"""A Jinja that runs a stranger's chat template: no way to Python, and a bounded amount of work.

Jinja's own sandbox closes the way to Python's internals. What it does not bound is work and memory, so here a meter
counts both, in units of about a character: each turn of a loop, each call, each filter, each string made. The language
has no other way to loop, so a template that runs forever meets the end of the budget within seconds.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from typing import Any, ClassVar

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cutaway.errors import TokenizerError

_BUDGET = 50_000_000  # units, besides 50 for each character of the messages
_STEP = 50  # units of one turn or call: about a microsecond, as 50 characters
_LARGEST = 1_000_000  # characters of a template
_LEFT: ContextVar[int] = ContextVar("units_left", default=_BUDGET)

# Filters and methods that can make a huge string of a small number, and that no chat template needs.
_NO_FILTERS = (
    "batch",
    "center",
    "filesizeformat",
    "format",
    "pprint",
    "random",
    "slice",
    "urlize",
    "wordwrap",
    "xmlattr",
)
_NO_METHODS = frozenset(("center", "expandtabs", "format_map", "ljust", "rjust", "translate", "zfill"))
_WIDE = re.compile(r"%[^a-zA-Z%]*(\d{4,}|\*)")
_WIDE_FIELD = re.compile(r":[^}]*(\d{4,}|\{)")


def charge(units: int) -> None:
    """Takes from the budget of the template that is running; raises where it is used up."""
    left = _LEFT.get() - units
    _LEFT.set(left)
    if left < 0:
        raise SecurityError("it does more work than any conversation needs")


def _size(value: object) -> int:
    """About how many characters it takes to write the value, with all it holds; counted no further than the budget."""
    total, unseen = 0, [value]
    while unseen and total <= _LEFT.get():
        found = unseen.pop()
        total += len(found) if isinstance(found, (str, bytes, list, tuple, dict, range)) else 1
        if isinstance(found, (list, tuple)):
            unseen.extend(found)
        elif isinstance(found, dict):
            unseen.extend((*found.keys(), *found.values()))
    return total


def _check_bits(bits: int) -> None:
    if bits > 10_000:
        raise SecurityError("it computes with numbers of thousands of digits")


def _turns(items: Iterable[Any], weight: int) -> Iterator[Any]:
    for item in items:
        charge(_STEP + weight)
        yield item


def _joined(items: Iterable[Any]) -> str:
    items = list(items)
    charge(_size(items))
    return "".join(map(str, items))


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of every chat template, with the functions and whitespace rules of `transformers`."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], finalize=_written
        )
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _raise, "strftime_now": _now}
        for name in _NO_FILTERS:
            del self.filters[name]
        self.filters |= {"tojson": _tojson}
        self.filters = {name: _metered(name, function) for name, function in self.filters.items()}
        self.filters |= {"_turns": _turns, "_joined": _joined}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            weight = sum(len(data.data) for data in loop.find_all(nodes.TemplateData))
            loop.iter = nodes.Filter(loop.iter, "_turns", [nodes.Const(weight)], [], None, None, lineno=loop.lineno)
        for node in list(tree.find_all((nodes.Output, nodes.Expr, nodes.Stmt))):
            _replace_concatenations(node)
        return tree.set_environment(self)  # type: ignore[return-value]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            charge(_size(left) + _size(right))
        elif operator == "%" and isinstance(left, str):
            if _WIDE.search(left):
                raise SecurityError("it formats text thousands of characters wide")
            charge(len(left) + len(str(right)))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * abs(right))
        elif operator == "*" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())
        elif operator == "*":
            text, times = (right, left) if isinstance(left, int) else (left, right)
            charge(_size(text) * max(times, 0) if isinstance(times, int) else 1)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        charge(_STEP)
        if isinstance(__obj, Macro):
            charge(__context.get("_template_size") or 0)
        method = getattr(__obj, "__wrapped__", __obj)  # Jinja wraps str.format
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str):
            if name in _NO_METHODS:
                raise SecurityError(f"it calls str.{name}, which no chat template needs")
            _charge_text(name, owner, args)
        return super().call(__context, __obj, *args, **kwargs)


def _charge_text(name: str, text: Any, args: tuple[Any, ...]) -> None:
    """What a string method or filter that can multiply text will make, charged before it is made."""
    if name == "format":
        if _WIDE_FIELD.search(text):
            raise SecurityError("it formats text thousands of characters wide")
        charge(len(text) * (1 + max(map(_size, args), default=1)))
    elif name == "replace" and len(args) >= 2 and isinstance(args[0], str):
        charge(len(text) + str(text).count(args[0]) * _size(args[1]))
    elif name == "join" and args and isinstance(args[0], (list, tuple)):
        charge(sum(map(_size, args[0])) + len(args[0]) * len(text))
    else:
        charge(_size(text))


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        given = list(args[1:] if hasattr(function, "jinja_pass_arg") else args)
        charge(_STEP + sum(map(_size, given)))
        numbers = [*given[1:], *kwargs.values()]
        if name in ("indent", "tojson") and any(isinstance(n, int) and n > 100 for n in numbers):
            raise SecurityError("it indents by more than 100 characters")
        if name == "indent" and given:
            charge(len(str(given[0])) * (1 + max(map(_size, numbers), default=100)))
        if name == "replace" and len(given) >= 3:
            _charge_text("replace", str(given[0]), tuple(map(str, given[1:])))
        if name == "join" and given and isinstance(given[0], (list, tuple)):
            separator = kwargs.get("d", given[1] if len(given) > 1 else "")
            charge(sum(map(_size, given[0])) + len(given[0]) * _size(separator))
        return function(*args, **kwargs)

    return metered


def _replace_concatenations(node: nodes.Node) -> None:
    """`a ~ b` is no operator that the sandbox can watch, so it becomes a filter."""
    for name, value in node.iter_fields():
        if isinstance(value, nodes.Concat):
            setattr(node, name, _watched(value))
        elif isinstance(value, list):
            value[:] = [_watched(item) if isinstance(item, nodes.Concat) else item for item in value]


def _watched(concat: nodes.Concat) -> nodes.Filter:
    return nodes.Filter(nodes.List(concat.nodes), "_joined", [], [], None, None, lineno=concat.lineno)


def _written(value: Any) -> Any:
    charge(_size(value))
    return value


def _raise(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    if len(form) > 100 or re.search(r"\d{3,}", form):
        raise SecurityError("it formats the date in a way no chat template needs")
    return datetime.now().strftime(form)


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, **options: Any) -> str:
    """Unlike Jinja's own, it escapes nothing for HTML. Option: `sort_keys`."""
    options = {"ensure_ascii": ensure_ascii, "indent": indent, "separators": separators} | options
    return json.dumps(value, **options)


class _Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}` marks what the assistant says, for training; it writes its body."""

    tags: ClassVar[set[str]] = {"generation"}  # type: ignore[misc]

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def compile_template(source: str) -> Template:
    """A template ready to run; `TokenizerError` where it is no Jinja."""
    if len(source) > _LARGEST:
        raise TokenizerError(f"The chat template is {len(source)} characters long; that is no chat template.")
    environment: Environment = Sandbox()
    token = _LEFT.set(_BUDGET)  # constants are computed while compiling
    try:
        return environment.from_string(source, globals={"_template_size": len(source)})
    except (TemplateError, RecursionError, SyntaxError, MemoryError, ValueError, TypeError, OverflowError) as problem:
        raise _refused(problem) from None
    finally:
        _LEFT.reset(token)


def run(template: Template, data: dict[str, Any]) -> str:
    """What the template writes for `data`, which must be plain JSON."""
    token = _LEFT.set(_BUDGET + 50 * len(json.dumps(data)))
    try:
        return template.render(data)
    except Exception as problem:  # a template can raise anything: it is a program
        raise _refused(problem) from None
    finally:
        _LEFT.reset(token)


def _refused(problem: BaseException) -> TokenizerError:
    return TokenizerError(
        f"The chat template failed: {str(problem)[:300] or type(problem).__name__}. Check the messages it was given; if "
        "they are right, the template is broken or hostile: set another `tokenizer.chat_template`."
    )

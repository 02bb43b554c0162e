"""Where templates are carried out: Jinja2's immutable sandbox, with a limit on what a template may take. Pure.

Agents come over the API, so a prompt is a program of a stranger, and it runs where the node answers its peers. Jinja's sandbox forbids
private attributes and changes of what is given; it does not forbid `{{ 'a' * 10**9 }}`, loops that write nothing, texts that double, macros
that call themselves. So what takes time or room is counted while it is done, and what makes much out of little before it is done:

- work: nodes of the template carried out, items looked at, calls (`WORK_MAX`);
- text: characters made, also those that are thrown away (`TEXT_MAX`).

Nothing is computed while a template is compiled; otherwise the compiler would be the place to blow up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NoReturn, cast

from jinja2 import ChainableUndefined, Template, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

WORK_MAX: Final = 300_000  # half a second of CPU at the very worst; a table of two thousand rows takes a sixth of it
TEXT_MAX: Final = 4_000_000  # characters, 16 MB if each is an emoji; ten times the longest prompt
TEMPLATE_CHARACTERS_MAX: Final = 100_000  # of one prompt, as it is written; it is all in one document
TEMPLATE_NODES_MAX: Final = 5_000  # a variable is two or three; the compiler takes 70 µs for each
CALL_WORK: Final = 10  # a filter, a method, a macro: about ten times a node
CHARACTERS_A_WORK: Final = 64  # looked at as fast as one object is
NUMBER_BITS_MAX: Final = 4096  # of what `*` and `**` make: more digits than Python prints
WIDTH_MAX: Final = 10_000  # in a format, and decimals to round to


class NotATemplate(Exception):
    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(message)
        self.line = line


class TakesTooMuch(Exception):
    """The template would take more than it may."""


class Meter:
    """Of one rendering."""

    __slots__ = ("_text_left", "_work_left")

    def __init__(self) -> None:
        self._work_left = WORK_MAX
        self._text_left = TEXT_MAX

    def work(self, units: int) -> None:
        self._work_left -= units
        if self._work_left < 0:
            raise TakesTooMuch(f"it takes more than {WORK_MAX} steps")

    def text(self, characters: int) -> None:
        self._text_left -= characters
        if self._text_left < 0:
            raise TakesTooMuch(f"it makes more than {TEXT_MAX} characters on the way")
        self.work(characters // CHARACTERS_A_WORK)

    def looked_at(self, value: Any, *, indent: int = 0, depth: int = 0) -> int:
        """How many characters a value has when it is written. Something that is in it twice counts twice, as it does in writing."""
        if isinstance(value, str):
            self.work(1 + len(value) // CHARACTERS_A_WORK)
            return len(value) + indent * depth
        self.work(1)
        if isinstance(value, int):
            return value.bit_length() // 3 + 6 + indent * depth
        if isinstance(value, Mapping):
            return indent * depth + sum(
                4 + self.looked_at(key) + self.looked_at(item, indent=indent, depth=depth + 1) for key, item in value.items()
            )
        if isinstance(value, range):
            self.work(len(value))
            return 24
        if isinstance(value, Namespace):
            raise SecurityError("a namespace is no text")
        if isinstance(value, Iterable) and not isinstance(value, Iterator | Undefined):
            return indent * depth + sum(4 + self.looked_at(item, indent=indent, depth=depth + 1) for item in value)
        return 64

    def taken(self, value: Any) -> Any:
        """Something that a call is given: what is only made while it is read is counted then."""
        if isinstance(value, Iterator):
            return self.each(value)
        self.looked_at(value)
        return value

    def each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.work(1)
            yield item

    def made(self, value: Any) -> Any:
        """What a call returns."""
        if isinstance(value, str):
            self.text(len(value))
        elif isinstance(value, list | tuple | dict):
            self.work(len(value))
        return value


_meter: ContextVar[Meter] = ContextVar("meter")


@contextmanager
def metered() -> Iterator[None]:
    """One rendering, all of which has to happen within the block."""
    token = _meter.set(Meter())
    try:
        yield
    finally:
        _meter.reset(token)


# What stands between two parts of a template: at the head of everything that can be carried out again.
@pass_context
def _spend(_: Context, nodes_and_characters: tuple[int, int]) -> None:
    work, characters = nodes_and_characters
    meter = _meter.get()
    meter.work(work)
    meter.text(characters)


@pass_context
def _each(_: Context, items: Iterable[Any]) -> Iterator[Any]:
    return _meter.get().each(items)


@pass_context
def _looked_at(_: Context, value: Any) -> Any:
    return _meter.get().taken(value)


@pass_context
def _joined(_: Context, values: Sequence[Any]) -> str:
    meter = _meter.get()
    meter.text(sum(map(meter.looked_at, values)))
    return "".join(map(str, values))


@pass_context
def _written(_: Context, value: Any) -> Any:
    meter = _meter.get()
    meter.text(meter.looked_at(value))
    return value


_OURS: Mapping[str, Callable[..., Any]] = {"_spend": _spend, "_each": _each, "_looked_at": _looked_at, "_joined": _joined}
_REPEATED = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.Block, nodes.AssignBlock)


class _Counting(NodeTransformer):
    """Puts the counters in."""

    def visit_Template(self, node: nodes.Template) -> nodes.Template:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, _head(node))
        return node

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, _head(node))
        node.iter = _filtered(node.iter, "_each")
        return node

    def _repeated(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, _head(node))
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_FilterBlock = visit_Block = visit_AssignBlock = _repeated  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(list(node.nodes), lineno=node.lineno), "_joined")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "_looked_at")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "_looked_at")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filtered(node.node, "_looked_at")
        return node


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _head(node: Any) -> nodes.ExprStmt:
    """What a body takes each time, the bodies within it aside that are counted themselves; of its branches, all."""
    work, characters, waiting = 1, 0, list(node.body)
    while waiting:
        inner = waiting.pop()
        work += 1
        if isinstance(inner, nodes.TemplateData):
            characters += len(inner.data)
        waiting += inner.iter_child_nodes(exclude=("body",) if isinstance(inner, _REPEATED) else None)
    return nodes.ExprStmt(_filtered(nodes.Const((work, characters), lineno=node.lineno), "_spend"), lineno=node.lineno)


class _Code(CodeGenerator):
    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:  # noqa: N802
        super().visit_Template(_Counting().visit(node), frame)


class Sandbox(ImmutableSandboxedEnvironment):
    """Renders within `metered()` only."""

    code_generator_class = _Code
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(undefined=ChainableUndefined, autoescape=False, finalize=_written, optimized=False)
        # Neither has a place in a prompt, and both are hard to bound: one invents text, the other searches it for addresses.
        del self.globals["lipsum"], self.filters["urlize"]
        self.filters.update({name: _bounded(name, does) for name, does in self.filters.items()})
        self.filters.update(_OURS)
        self.tests.update({name: _compared(cast(Callable[..., Any], self.tests[name])) for name in _COMPARING})

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Says so: an undefined that chains would swallow the refusal, and the prompt would silently lack a part."""
        raise SecurityError(f"{attribute} of a {type(obj).__name__} is out of reach of templates")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _GROWING and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = _meter.get()
        meter.work(CALL_WORK)
        match operator:
            case "*" | "**" if isinstance(left, int) and isinstance(right, int):
                bits = left.bit_length() * max(1, right) if operator == "**" else left.bit_length() + right.bit_length()
                if bits > NUMBER_BITS_MAX and left not in (0, 1, -1):
                    raise TakesTooMuch(f"it computes a number of more than {NUMBER_BITS_MAX} bits")
            case "*":
                for many, times in ((left, right), (right, left)):
                    if isinstance(times, int) and not isinstance(many, int | float):
                        meter.text(meter.looked_at(many) * max(0, times))
            case "%" if isinstance(left, str):
                meter.text(_formatted(left, "%", meter.looked_at(right)))
            case _:
                meter.looked_at(left)
                meter.looked_at(right)
        return meter.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  as Jinja names them, which keywords must not
        meter = _meter.get()
        meter.work(CALL_WORK + len(args) + len(kwargs))
        if isinstance(__obj, LoopContext):
            args = tuple(meter.each(each) for each in args)
        elif not isinstance(__obj, Macro | BlockReference):
            owner = getattr(__obj, "__self__", None)
            if isinstance(owner, str | Sequence):
                args = _counted(f".{getattr(__obj, '__name__', '')}", (owner, *args), kwargs)[1:]
            else:
                args = tuple(map(meter.taken, args))
            for value in kwargs.values():
                meter.looked_at(value)
        return meter.made(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formats = super().wrap_str_format(value)
        if formats is None:
            return None
        text = str(value.__self__)

        def bounded(*args: Any, **kwargs: Any) -> str:
            meter = _meter.get()
            meter.text(_formatted(text, "{", meter.looked_at(args) + meter.looked_at(kwargs)))
            return formats(*args, **kwargs)

        return bounded


def compiled(environment: Sandbox, text: str) -> Template:
    """Ready to be rendered. Raises `NotATemplate`."""
    if len(text) > TEMPLATE_CHARACTERS_MAX:
        raise NotATemplate(f"it has {len(text)} characters, and a template may have {TEMPLATE_CHARACTERS_MAX}", line=1)
    try:
        tree = environment.parse(text)
        if _has_more_nodes(tree, than=TEMPLATE_NODES_MAX):
            raise NotATemplate(f"it has more than {TEMPLATE_NODES_MAX} expressions and tags", line=1)
        return environment.from_string(tree)
    except TemplateSyntaxError as mistake:
        raise NotATemplate(mistake.message or "it cannot be read", line=mistake.lineno) from mistake
    except (RecursionError, SyntaxError, MemoryError) as failure:  # of Python, whose own limits on nesting it meets
        raise NotATemplate("it is nested too deeply", line=1) from failure
    except ValueError as failure:  # the longest number that Python reads has 4,300 digits
        raise NotATemplate("it has a number that is too long", line=1) from failure


def _has_more_nodes(tree: nodes.Template, *, than: int) -> bool:
    waiting: list[nodes.Node] = [tree]
    count = 0
    while waiting and count <= than:
        waiting += waiting.pop().iter_child_nodes()
        count += 1
    return count > than


# Methods that make more than they are given, and that no prompt needs.
_GROWING = frozenset({"encode", "expandtabs", "format_map", "from_bytes", "maketrans", "to_bytes", "translate"})
_COMPARING = ("eq", "equalto", "==", "ne", "!=", "lt", "lessthan", "<", "le", "<=", "gt", "greaterthan", ">", "ge", ">=", "in")
# Filters that look at how many there are, or at one, and not at what each is.
_SHALLOW = frozenset(
    {"abs", "attr", "count", "d", "default", "first", "float", "int", "items", "last", "length", "list", "random", "round"}
)
_LAZY = frozenset({"batch", "map", "reject", "rejectattr", "select", "selectattr", "slice"})
_COMPUTED_WIDTHS = {"%": re.compile(r"%[^%\w]*(\(\w*\))?[^%a-zA-Z]*\*"), "{": re.compile(r"\{[^{}]*:[^{}]*\{")}
_NUMBERS = re.compile(r"\d+")


def _bounded(name: str, does: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is counted. What it asks of Jinja besides its value stays in front."""
    asks = getattr(does, "jinja_pass_arg", None) is not None

    def bounded(*args: Any, **kwargs: Any) -> Any:
        meter = _meter.get()
        meter.work(CALL_WORK)
        front, rest = args[:asks], args[asks:]
        return meter.made(does(*front, *_counted(name, rest, kwargs), **kwargs))

    if asks:
        bounded.jinja_pass_arg = does.jinja_pass_arg  # type: ignore[attr-defined]
    return bounded


def _compared(does: Callable[..., Any]) -> Callable[..., Any]:
    def compared(*args: Any) -> Any:
        return does(*map(_meter.get().taken, args))

    return compared


def _counted(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a filter, or a method `.name`, is given, counted with all that it makes of it. The first is what it is applied to."""
    meter = _meter.get()
    value, *more = args
    if name in _LAZY:
        value = meter.each(value)
    elif isinstance(value, Iterator):
        value = meter.each(value) if name in _SHALLOW else list(meter.each(value))
    if name == ".join" and more:
        more = [list(meter.each(more[0]))]
    others = (*more, *kwargs.values())
    numbers = [abs(other) for other in others if isinstance(other, int)]
    # An integer is a width, an amount or a number of digits: at least so much may be made.
    meter.text(sum(numbers))
    beside = sum(map(meter.looked_at, others))
    if name in _SHALLOW or name in _LAZY:
        if name == "round" and numbers and max(numbers) > WIDTH_MAX:
            raise TakesTooMuch(f"it rounds to more than {WIDTH_MAX} digits")
        return (value, *more)
    width = max(numbers, default=1)
    size = meter.looked_at(value, indent=width if name == "tojson" and others else 0)
    match name:
        case "join":
            size += beside * _length(value)
        case ".join":
            size = beside + size * (_length(more[0]) if more else 0)
        case "replace" | ".replace":
            size += beside * (str(value).count(str(others[0])) if others else 0)
        case "indent":
            size += (str(value).count("\n") + 1) * (width + beside)
        case "wordwrap":
            size *= 1 + beside
            # Of a word without an end it cuts one line after the other, each time copying the rest.
            meter.work(_length(value) ** 2 // max(1, width) // CHARACTERS_A_WORK)
        case "striptags":
            meter.work(str(value).count("<") * size // CHARACTERS_A_WORK)
        case "format":
            size = _formatted(str(value), "%", beside)
        case "sum" if any(not isinstance(other, int | float | str) for other in others):
            raise SecurityError("sum adds numbers")
    meter.text(size)
    return (value, *more)


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1


def _formatted(pattern: str, mark: str, beside: int) -> int:
    """At most so many characters are made of a format. Raises where a width in it is too large, or is not in it."""
    if _COMPUTED_WIDTHS[mark].search(pattern):
        raise SecurityError("a format whose width is computed is out of reach of templates")
    widths = [int(found) if len(found) < 6 else WIDTH_MAX + 1 for found in _NUMBERS.findall(pattern)]
    if any(width > WIDTH_MAX for width in widths):
        raise TakesTooMuch(f"it formats to a width of more than {WIDTH_MAX}")
    return len(pattern) + pattern.count(mark) * (max(widths, default=0) + beside)

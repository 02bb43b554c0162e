"""A Python function as a tool: what it takes is read from its signature, what it is for from its docstring.

Only from modules that the node's own configuration lists, or from an entry point of an installed package: an agent's document says which
function, and may have come over the API.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NotRequired, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from typing_extensions import TypedDict

from astromesh.dialogue import ToolSchema
from astromesh.specs.section import plain
from astromesh.tools.backends.threads import Threads
from astromesh.tools.docstrings import description_of, parameters_of
from astromesh.tools.port import BadArguments
from astromesh.tools.results import as_text

ENTRY_POINTS = "astromesh.tools"


class FunctionUnusable(Exception):
    """There is no such function, or no tool can be made of it. `hint`: what to do about it."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class PythonFunction:
    """Its `schema` describes the function; arguments that it gets are what its annotations say, its own defaults stay its own."""

    def __init__(self, function: Callable[..., Any], *, name: str, threads: Threads, description: str | None = None) -> None:
        """Raises `FunctionUnusable`."""
        self._function = function
        self._threads = threads
        self._arguments, parameters = _parameters(function)
        docstring = inspect.getdoc(function) or ""
        for parameter, said in parameters_of(docstring).items():
            if parameter in parameters["properties"]:
                parameters["properties"][parameter].setdefault("description", said)
        self.schema = ToolSchema(name, description or description_of(docstring) or f"Calls {name}.", parameters)

    async def call(self, arguments: Mapping[str, Any]) -> str:
        try:
            given = self._arguments.validate_python(dict(arguments))
        except ValidationError as mistakes:
            first = mistakes.errors(include_url=False, include_context=False, include_input=False)[0]
            raise BadArguments(f"not called, {'.'.join(str(step) for step in first['loc'])}: {first['msg']}") from None
        if inspect.iscoroutinefunction(self._function):
            return as_text(await self._function(**given))
        return await self._threads.run(partial(_called, self._function, given), name=self.schema.name)


def _called(function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """With its result as text: a large one is written in the thread, too."""
    return as_text(function(**given))


def find(function: str | None, name: str, *, modules: tuple[str, ...]) -> Callable[..., Any]:
    """The function `package.module:name`; where none is written, what an installed package offers under the tool's name.

    Raises `FunctionUnusable`.
    """
    if function is None:
        offered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if name not in offered:
            raise FunctionUnusable(
                f"no installed package offers a tool {name!r}",
                hint="write 'function: package.module:function', and list the module under spec.tools.modules of the node",
            )
        return _loaded(offered[name])
    check_listed(function, modules=modules)
    return _loaded(EntryPoint(name, function, ENTRY_POINTS))


def check_listed(function: str, *, modules: tuple[str, ...]) -> None:
    """Raises `FunctionUnusable` where its module may not be imported. Imports nothing."""
    module = function.partition(":")[0]
    if module not in modules and module not in {point.module for point in entry_points(group=ENTRY_POINTS)}:
        raise FunctionUnusable(
            f"functions of {module} may not be called: the module is not listed",
            hint=f"add 'spec.tools.modules: [{module}]' to the node's runtime.yaml",
        )


def _loaded(point: EntryPoint) -> Callable[..., Any]:
    module, attribute = point.module, point.attr
    try:
        found = import_module(module)
    except (Exception, SystemExit) as failure:
        said = f"{type(failure).__name__}: {failure}".partition("\n")[0]
        raise FunctionUnusable(
            f"module {module} cannot be imported: {said}", hint="is it installed beside the node, or on its PYTHONPATH?"
        ) from failure
    function = getattr(found, attribute, None)
    if not inspect.isroutine(function):
        raise FunctionUnusable(f"module {module} has no function {attribute!r}", hint="check the name behind the colon")
    return function


def _parameters(function: Callable[..., Any]) -> tuple[TypeAdapter[dict[str, Any]], dict[str, Any]]:
    """What checks and converts the arguments, and their JSON Schema."""
    where = f"{function.__module__}:{function.__qualname__}"
    try:
        signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as mistake:
        raise FunctionUnusable(f"the signature of {where} cannot be read: {mistake}", hint="check its annotations") from mistake
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise FunctionUnusable(f"{where} takes {parameter}, which has no name that a model could use", hint="name its parameters")
        kind = hints.get(name, Any)
        fields[name] = kind if parameter.default is parameter.empty else NotRequired[kind]
        if parameter.default is not parameter.empty:
            defaults[name] = parameter.default
    # A mapping and not a model: any name of a parameter will do, and where nothing is given the function's own default stands.
    make: Any = TypedDict  # of fields that are not known before
    try:
        adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(with_config(ConfigDict(extra="forbid"))(make("Arguments", fields)))
        schema = _untitled(adapter.json_schema())
    except (PydanticSchemaGenerationError, PydanticUserError) as mistake:
        said = str(mistake).partition("\n")[0]
        raise FunctionUnusable(
            f"{where} takes something that JSON has no word for: {said}",
            hint="use str, int, float, bool, list, dict, Literal or a dataclass",
        ) from mistake
    schema.setdefault("properties", {})
    for name, default in defaults.items():
        if default is None or isinstance(default, str | int | float | bool):
            schema["properties"][name].setdefault("default", plain(default))
    schema.pop("description", None)
    return adapter, schema


def _untitled(value: Any) -> Any:
    """Without the titles that pydantic makes of names: they say nothing, and cost tokens in every prompt."""
    match value:
        case dict():
            return {key: _untitled(inner) for key, inner in value.items() if key != "title" or not isinstance(inner, str)}
        case list():
            return [_untitled(inner) for inner in value]
        case _:
            return value

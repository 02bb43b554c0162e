"""What is wrong with the tools of a document, and what of them is not used. Pure.

Names, schemas and methods are looked at here, where the line is known; whether a Python function is there is known to the node alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from astromesh.specs.agent import AgentSpec, Permissions, Tool, ToolType
from astromesh.specs.findings import Caution, Mistake, Path
from astromesh.specs.honoured import BUILTIN_TOOLS, TOOL_TYPES
from astromesh.specs.keys import Places
from astromesh.specs.schemas import BadSchema, Schema, object_schema
from astromesh.specs.section import is_agent_reference

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what model servers take
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SHARED = ("type", "name", "description", "max_result_tokens", "rate_limit", "permissions")
_OWN: Mapping[ToolType, tuple[str, ...]] = {
    "builtin": (),
    "internal": ("function",),
    "webhook": ("endpoint", "method", "headers", "parameters"),
    "agent": ("agent",),
}
_OTHERS = frozenset(Tool.model_fields) - {*_SHARED, "pipeline", "top_k", "command", "args", "env", "transport"}


def tool_findings(spec: AgentSpec, places: Places) -> Iterator[Mistake | Caution]:
    names: dict[str, int] = {}
    for number, tool in enumerate(spec.tools):
        if not is_offered(tool):
            continue
        path: Path = ("spec", "tools", number)
        yield from _mistakes(tool, path, places)
        for key in sorted(_OTHERS & tool.model_fields_set - {*_OWN[tool.type]}):
            if getattr(tool, key):
                yield places.caution((*path, key), f"is not used by a tool of type {tool.type}")
        if (first := names.setdefault(tool.called, number)) != number:
            said = f"'{tool.called}' is the name of spec.tools[{first}], too, and a model calls tools by name"
            yield places.mistake((*path, "name") if tool.name else path, said, "Give it a name of its own.")
        if why := refused(tool, spec.permissions):
            yield places.caution(path, f"this tool is not offered to the model: {why}")


def is_offered(tool: Tool) -> bool:
    """Whether this version has tools of this type; of all others the table of what is honoured says so."""
    return tool.type in TOOL_TYPES and (tool.type != "builtin" or tool.name in BUILTIN_TOOLS)


def calls_the_web(tool: Tool) -> bool:
    return tool.type == "webhook" or (tool.type == "builtin" and tool.name == "http_request")


def refused(tool: Tool, permissions: Permissions | None) -> str:
    """Why an agent may not use a tool of its own; empty where it may."""
    why = refusal(permissions, (tool.called, *(tool.permissions or ())))
    if not why and calls_the_web(tool) and hosts(permissions) == ():
        return "spec.permissions.network.allowed is false"
    return why


def hosts(permissions: Permissions | None) -> tuple[str, ...] | None:
    """Patterns of the hosts that an agent may name; None: any."""
    allowed = permissions.network.allowed if permissions is not None and permissions.network is not None else None
    match allowed:
        case None | True:
            return None
        case False:
            return ()
        case _:
            return tuple(pattern.lower() for pattern in allowed)


def refusal(permissions: Permissions | None, actions: tuple[str, ...]) -> str:
    """Why an agent may not do these actions; empty where it may. The first is the tool's name.

    What is denied stays denied. Where actions are allowed by name, a tool is if its name is, or all that it says it does.
    """
    if permissions is None:
        return ""
    for action in actions:
        if any(fnmatchcase(action, pattern) for pattern in permissions.denied_actions or ()):
            return f"spec.permissions.denied_actions has {action}"
    allowed = permissions.allowed_actions
    if allowed is None:
        return ""
    name, *does = actions
    if any(fnmatchcase(name, pattern) for pattern in allowed):
        return ""
    if does and all(any(fnmatchcase(action, pattern) for pattern in allowed) for action in does):
        return ""
    return f"spec.permissions.allowed_actions has no {name}"


def _mistakes(tool: Tool, path: Path, places: Places) -> Iterator[Mistake]:
    if _NAME.fullmatch(tool.called) is None:
        said = "this cannot be the name of a tool: models would not be able to call it"
        yield places.mistake((*path, "name") if tool.name else path, said, "Use at most 64 of a-z, A-Z, 0-9, '_' and '-'.")
    if tool.rate_limit is not None and tool.rate_limit.max_calls is None:
        yield places.mistake((*path, "rate_limit"), "it limits nothing", "Add 'max_calls: 10'.")
    match tool.type:
        case "internal":
            if tool.function is not None and _FUNCTION.fullmatch(tool.function) is None:
                yield places.mistake((*path, "function"), "this names no function", "Write 'function: package.module:function'.")
        case "webhook":
            yield from _webhook_mistakes(tool, path, places)
        case "agent":
            if not tool.agent:
                yield places.mistake(path, "no agent is named", "Add 'agent: NAME'.")
            elif not is_agent_reference(tool.agent):
                remedy = "Write NAME, or NAMESPACE/NAME for one of another namespace."
                yield places.mistake((*path, "agent"), "this cannot be the name of an agent", remedy)
        case _:
            pass


def _webhook_mistakes(tool: Tool, path: Path, places: Places) -> Iterator[Mistake]:
    if tool.endpoint is None:
        yield places.mistake(path, "there is no address to call", "Add 'url: https://HOST/PATH'.")
    if tool.method is not None and tool.method.upper() not in METHODS:
        yield places.mistake((*path, "method"), "this is no method of HTTP for a webhook", f"Write one of {', '.join(METHODS)}.")
    try:
        Schema(object_schema(tool.parameters))
    except BadSchema as mistake:
        remedy = "It is JSON Schema, or {key: {type: string}}."
        yield places.mistake((*path, "parameters"), f"no arguments could be checked against this: {mistake}", remedy)

"""An agent's tools out of what its document says, on the terms of its permissions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from astromesh.dialogue import ToolSchema
from astromesh.errors import AgentUnusable
from astromesh.runtime.agent_tools import TASK, AgentTool
from astromesh.runtime.builtins import lookup
from astromesh.specs.addresses import listed_address
from astromesh.specs.agent import Agent as AgentResource
from astromesh.specs.agent import Permissions
from astromesh.specs.agent import Tool as ToolSection
from astromesh.specs.honoured import BUILTIN_TOOLS
from astromesh.specs.orchestration import Orchestration
from astromesh.specs.resource import key_of
from astromesh.specs.runtime import NodeTools
from astromesh.specs.schemas import object_schema
from astromesh.specs.tools import hosts, is_offered, refused
from astromesh.tools.backends.python_function import FunctionUnusable, PythonFunction, find
from astromesh.tools.backends.threads import Threads
from astromesh.tools.port import Tool
from astromesh.tools.reach import Reach
from astromesh.tools.terms import RESULT_TOKENS_MAX, CallRate, Terms
from astromesh.tools.toolbox import Toolbox


class Toolmaker:
    """Of one node: its agents share its threads and what its configuration lets tools reach."""

    def __init__(self, node: NodeTools) -> None:
        self._modules = node.modules
        self._listed = tuple(listed_address(entry) for entry in node.http.allow)
        self._threads = Threads()
        # What was called is not forgotten because a file was read again: the new agent is built while the old one is there.
        self._rates: WeakValueDictionary[tuple[str, str, str, int, float], CallRate] = WeakValueDictionary()

    def renewed(self, node: NodeTools) -> Toolmaker:
        """Of another configuration, with the same threads and the same counts of calls."""
        renewed = Toolmaker(node)
        renewed._threads, renewed._rates = self._threads, self._rates
        return renewed

    def toolbox(self, document: AgentResource, defaults: Orchestration) -> Toolbox:
        """Raises `AgentUnusable` with the place of a function that cannot be called."""
        permissions = document.spec.permissions
        tools: list[Tool] = []
        terms: dict[str, Terms] = {}
        for number, section in enumerate(document.spec.tools):
            if is_offered(section):
                tools.append(self._tool(section, document, number))
                limit = _result_tokens(document, defaults)
                terms[section.called] = _terms(section, permissions, result_tokens_max=limit, rate=self._rate(section, document))
        return Toolbox(tools, terms=terms)

    def builtin(self) -> Toolbox:
        """The built-in tools, for whoever calls one without an agent."""
        return Toolbox(self._built(name, Reach(self._listed)) for name in BUILTIN_TOOLS)

    def _rate(self, section: ToolSection, document: AgentResource) -> CallRate | None:
        limit = section.rate_limit
        if limit is None or limit.max_calls is None:
            return None
        key = (document.namespace, document.name, section.called, limit.max_calls, limit.window_seconds)
        rate = self._rates.get(key)
        if rate is None:
            rate = self._rates[key] = CallRate(limit.max_calls, limit.window_seconds)
        return rate

    def _tool(self, section: ToolSection, document: AgentResource, number: int) -> Tool:
        name, reach = section.called, Reach(self._listed, hosts(document.spec.permissions))
        match section.type:
            case "internal":
                try:
                    function = find(section.function, name, modules=self._modules)
                    return PythonFunction(function, name=name, threads=self._threads, description=section.description)
                except FunctionUnusable as mistake:
                    where = document.place(f"spec.tools[{number}]")
                    raise AgentUnusable(f"{where}: {mistake.message}", hint=mistake.hint) from mistake
            case "webhook":
                schema = ToolSchema(name, section.description or f"Calls {name}.", object_schema(section.parameters))
                made: Tool = lookup("tool", "webhook")(
                    schema, section.endpoint, method=section.method or "POST", headers=section.headers, reach=reach
                )
                return made
            case "agent":
                agent = key_of(section.agent or "", within=document.namespace)
                said = section.description or f"Asks the agent {agent}, who sees the task and nothing else, and returns its answer."
                return AgentTool(ToolSchema(name, said, TASK), agent)
            case _:
                return self._built(name, reach, description=section.description)

    def _built(self, name: str, reach: Reach, *, description: str | None = None) -> Tool:
        kind: Any = lookup("tool", name)
        tool: Any = kind(reach) if name == "http_request" else kind()
        if description:
            tool.schema = replace(tool.schema, description=description)
        made: Tool = tool
        return made


def _terms(section: ToolSection, permissions: Permissions | None, *, result_tokens_max: int, rate: CallRate | None) -> Terms:
    terms = Terms(
        kind=section.type,
        refused=refused(section, permissions),
        dry_run=permissions is not None and permissions.execution is not None and permissions.execution.dry_run,
        rate=rate,
        result_tokens_max=section.max_result_tokens or result_tokens_max,
    )
    return replace(terms, timeout_s=None) if section.type == "agent" else terms


def _result_tokens(document: AgentResource, defaults: Orchestration) -> int:
    return document.spec.orchestration.max_tool_result_tokens or defaults.max_tool_result_tokens or RESULT_TOKENS_MAX

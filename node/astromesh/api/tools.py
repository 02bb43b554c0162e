"""Tools: the built-in ones and those of this node's agents, listed, and called by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from astromesh.api.bodies import read
from astromesh.api.house import HOUSE, House
from astromesh.api.replies import reply
from astromesh.errors import InvalidRequest, UnknownAgent, UnknownTool
from astromesh.tools.port import BadArguments, ToolFailed
from astromesh.tools.toolbox import Toolbox


class ToolShown(BaseModel):
    name: str
    description: str
    type: str
    parameters: dict[str, Any] = Field(description="JSON Schema of its arguments")
    agents: list[str] = Field(description="of this node, that are offered it; none for a built-in tool that no agent has")


class ToolList(BaseModel):
    tools: list[ToolShown]
    count: int


class ExecuteBody(BaseModel):
    """One call. It is made on the terms of an agent where the tool is an agent's: its permissions, limits and dry run."""

    model_config = ConfigDict(extra="forbid")

    tool_name: str = Field(min_length=1)
    arguments: dict[str, Any] = Field(default_factory=dict)
    agent: str | None = Field(None, min_length=1, description="Whose tool, where several agents have one of this name.")


class Executed(BaseModel):
    tool: str
    result: str = Field(description="what a model would be told")
    status: str = Field(description="ok, dry_run, or error: then the result says what went wrong")


async def listing(request: web.Request) -> web.Response:
    return _shown(_all(request.app[HOUSE]))


async def builtin(request: web.Request) -> web.Response:
    return _shown(_builtin(request.app[HOUSE]))


async def execute(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    body = await read(request, ExecuteBody)
    name = body.tool_name
    toolbox = _toolbox(house, name, agent=body.agent)
    try:
        result, status = await toolbox.execute(name, body.arguments), "dry_run" if toolbox.terms(name).dry_run else "ok"
    except BadArguments as mistake:
        raise InvalidRequest(f"tool {name}: {mistake}", hint="GET /v1/tools shows what it takes", param="arguments") from None
    except ToolFailed as failure:
        result, status = str(failure), "error"
    return reply(Executed(tool=name, result=result, status=status).model_dump())


def _toolbox(house: House, name: str, *, agent: str | None) -> Toolbox:
    """The box that a call is made from."""
    agents = house.runtime.agents
    if agent is not None:
        if agent not in agents:
            raise UnknownAgent(f"agent {agent} is not on {house.node}", hint="tools are called on the node that holds their agent")
        if name in _names(agents[agent].toolbox):
            return agents[agent].toolbox
        raise UnknownTool(f"agent {agent} has no tool {name!r}", hint="GET /v1/tools shows whose they are")
    if name in _names(house.tools):
        return house.tools
    owners = sorted(owner for owner, its in agents.items() if name in _names(its.toolbox))
    if not owners:
        raise UnknownTool(f"no agent of {house.node} has a tool {name!r}", hint="GET /v1/tools shows what there is")
    if len(owners) > 1:
        raise InvalidRequest(f"several agents have a tool {name!r}: {', '.join(owners)}", hint="say which with 'agent'", param="agent")
    return agents[owners[0]].toolbox


def _names(toolbox: Toolbox) -> set[str]:
    return {tool.schema.name for tool in toolbox.tools}


def _builtin(house: House) -> Iterator[ToolShown]:
    for schema in house.tools.schemas:
        yield ToolShown(
            name=schema.name,
            description=schema.description,
            type="builtin",
            parameters=dict(schema.parameters),
            agents=_owners(house, schema.name),
        )


def _owners(house: House, name: str) -> list[str]:
    """The agents that are offered that built-in tool."""
    return sorted(
        key
        for key, agent in house.runtime.agents.items()
        if any(schema.name == name for schema in agent.toolbox.schemas) and agent.toolbox.terms(name).kind == "builtin"
    )


def _all(house: House) -> Iterator[ToolShown]:
    yield from _builtin(house)
    for name in sorted(house.runtime.agents):
        toolbox = house.runtime.agents[name].toolbox
        for schema in toolbox.schemas:
            kind = toolbox.terms(schema.name).kind
            if kind != "builtin":
                yield ToolShown(
                    name=schema.name, description=schema.description, type=kind, parameters=dict(schema.parameters), agents=[name]
                )


def _shown(tools: Iterator[ToolShown]) -> web.Response:
    rows = sorted((tool.model_dump() for tool in tools), key=lambda row: (row["name"], row["agents"]))
    return reply({"tools": rows, "count": len(rows)})

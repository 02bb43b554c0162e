"""Agents: listed for the whole mesh, shown, and run as JSON or as an event stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from astromesh.api import errors
from astromesh.api.bodies import read
from astromesh.api.event_stream import EventStream
from astromesh.api.house import HOUSE, House
from astromesh.api.replies import REQUEST_ID, reply
from astromesh.errors import AgentUnusable, AstromeshError, InvalidRequest, UnknownAgent
from astromesh.runtime.engine import Run
from astromesh.runtime.events import SESSION_ID_CHARACTERS_MAX, RunEvent, RunRequest


class RunBody(BaseModel):
    """A question to an agent."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, description="What to ask.")
    session_id: str | None = Field(
        None,
        min_length=1,
        max_length=SESSION_ID_CHARACTERS_MAX,
        description="A conversation to go on with. Without it a fresh one, returned.",
    )
    context: dict[str, Any] = Field(default_factory=dict, description="Variables for the agent's prompt templates.")
    stream: bool = Field(False, description="Answer as an event stream; so does Accept: text/event-stream.")


class AgentRow(BaseModel):
    name: str
    version: str
    namespace: str
    status: Literal["draft", "deployed", "paused"]
    nodes: list[str]
    warnings: list[str]
    error: str | None = None


class AgentList(BaseModel):
    agents: list[AgentRow]


class GuardrailFinding(BaseModel):
    direction: Literal["input", "output"]
    rule: str
    reason: str = Field(description="What was found, without the text of it.")


class RunResult(BaseModel):
    answer: str
    blocked: bool = Field(False, description="A guardrail blocked it; the answer is the rule's message. Absent otherwise.")
    guardrail: GuardrailFinding | None = Field(None, description="The rule that blocked it. Absent otherwise.")
    warnings: list[GuardrailFinding] = Field(default=[], description="Rules with action: warn that found something. Absent otherwise.")
    finish_reason: str = Field(
        description="Why the model stopped: stop, length where max_tokens or a cost_limit cut the answer, or content_filter."
    )
    steps: list[dict[str, Any]]
    usage: dict[str, Any]
    trace: dict[str, Any]
    data: Any
    session_id: str
    node: str = Field(description="The node that made the model's tokens.")
    home: str = Field(description="The node that conducted the run.")
    route: str
    attempts: int
    handoffs: list[dict[str, Any]]


async def listing(request: web.Request) -> web.Response:
    scope = request.query.get("scope", "mesh")
    if scope not in ("mesh", "local"):
        raise InvalidRequest(f"scope={scope} is neither mesh nor local", hint="leave it out for the whole mesh", param="scope")
    return reply({"agents": _rows(request.app[HOUSE], everywhere=scope == "mesh")})


async def show(request: web.Request) -> web.Response:
    house, name = request.app[HOUSE], request.match_info["name"]
    agent = house.runtime.agents.get(name)
    if agent is not None:
        return reply(agent.document)
    if name in house.runtime.broken:
        raise AgentUnusable(f"agent {name}: {house.runtime.broken[name]}", hint="astromesh-node config validate shows every mistake")
    if hosts := house.roster.hosting(name):
        where = ", ".join(house.roster.label(member.name) for member in hosts)
        raise UnknownAgent(
            f"agent {name} is not on {house.node}, but on {where}", hint="its document is shown there; running it works here too"
        )
    raise UnknownAgent(f"no node of this mesh has an agent named {name!r}", hint="astromesh-node agents list shows what there is")


async def run(request: web.Request) -> web.StreamResponse:
    house = request.app[HOUSE]
    body = await read(request, RunBody)
    watched = body.stream or "text/event-stream" in request.headers.get("Accept", "")
    asked = RunRequest(request.match_info["name"], body.query, session_id=body.session_id, context=body.context, watched=watched)
    under_way = house.runtime.start(asked, request_id=request[REQUEST_ID])
    try:
        return await (_stream(request, under_way) if watched else _whole(under_way))
    finally:
        # Whoever leaves cancels what was done for him, on every node.
        await under_way.close()


async def _whole(run: Run) -> web.Response:
    async for event in run.events:
        if event.kind == "done":
            return reply(event.data, headers=route_headers(event.data))
    raise AstromeshError("the run ended without a result")


async def _stream(request: web.Request, run: Run) -> web.StreamResponse:
    # The headers name the node, so they wait for the first route; a run that fails before has a status of its own.
    waiting: list[RunEvent] = []
    async for event in run.events:
        waiting.append(event)
        if event.kind in ("route", "done"):
            break
    async with EventStream(request, route_headers(waiting[-1].data)) as out:
        position = -1
        for event in waiting:
            position = event.position
            await out.event(position, event.kind, event.data)
        try:
            async for event in run.events:
                position = event.position
                await out.event(position, event.kind, event.data)
        except AstromeshError as failure:
            await out.event(position + 1, "error", errors.event(failure))
        return await out.end()


def route_headers(data: Mapping[str, Any]) -> dict[str, str]:
    """Who did it, for whoever looks at headers only."""
    return {
        "X-Astromesh-Node": str(data["node"]),
        "X-Astromesh-Home": str(data["home"]),
        "X-Astromesh-Route": str(data["route"]),
        "X-Astromesh-Attempts": str(data["attempts"]),
    }


def _rows(house: House, *, everywhere: bool) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for agent in house.runtime.agents.values():
        rows[agent.name] = {
            "name": agent.name,
            "version": agent.version,
            "namespace": agent.namespace,
            "status": "deployed",
            "nodes": [house.node],
            "warnings": list(agent.warnings),
        }
    for name, mistake in house.runtime.broken.items():
        rows[name] = {
            "name": name,
            "version": "",
            "namespace": "default",
            "status": "draft",
            "nodes": [house.node],
            "warnings": [],
            "error": mistake,
        }
    if everywhere:
        for name, hosts in house.roster.agents().items():
            for member, offered in hosts:
                row = rows.setdefault(
                    name,
                    {
                        "name": name,
                        "version": offered.version,
                        "namespace": offered.namespace,
                        "status": "deployed",
                        "nodes": [],
                        "warnings": [],
                    },
                )
                row["nodes"].append(house.roster.label(member.name))
    return [rows[name] for name in sorted(rows)]

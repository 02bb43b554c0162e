"""Agents: listed for the whole mesh, and shown."""

from __future__ import annotations

from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel

from astromesh.api.house import HOUSE, House
from astromesh.api.replies import reply
from astromesh.errors import AgentUnusable, InvalidRequest, UnknownAgent


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

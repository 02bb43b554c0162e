"""Agents: listed for the whole mesh, and shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from astromesh.api.agent_names import asked_agent, asked_namespace
from astromesh.api.house import HOUSE, House
from astromesh.api.replies import reply
from astromesh.errors import InvalidRequest
from astromesh.fleet.offers import OfferedAgent
from astromesh.fleet.versions import order
from astromesh.runtime.agent import Agent, Draft
from maia.view import MemberView


class AgentRow(BaseModel):
    name: str
    version: str
    namespace: str
    status: Literal["draft", "deployed", "paused"]
    nodes: list[str]
    warnings: list[str]
    error: str | None = Field(None, description="Why it cannot run. Absent otherwise.")
    draft: str | None = Field(None, description="The version of a draft beside the deployed document. Absent otherwise.")


class AgentList(BaseModel):
    agents: list[AgentRow]


async def listing(request: web.Request) -> web.Response:
    scope = request.query.get("scope", "mesh")
    if scope not in ("mesh", "local"):
        raise InvalidRequest(f"scope={scope} is neither mesh nor local", hint="leave it out for the whole mesh", param="scope")
    namespace, house = asked_namespace(request), request.app[HOUSE]
    rows = _own_rows(house)
    if scope == "mesh":
        _add_others(rows, house)
    chosen = [rows[key] for key in sorted(rows) if namespace in (None, rows[key]["namespace"])]
    return reply({"agents": chosen})


async def show(request: web.Request) -> web.Response:
    name, namespace = asked_agent(request)
    state = request.query.get("state", "deployed")
    if state not in ("deployed", "draft"):
        raise InvalidRequest(f"state={state[:40]} is neither deployed nor draft", hint="leave it out for deployed", param="state")
    return reply(await request.app[HOUSE].lifecycle.document(name, namespace, draft=state == "draft"))


def _own_rows(house: House) -> dict[str, dict[str, Any]]:
    """What this node has, by key."""
    runtime = house.runtime
    rows: dict[str, dict[str, Any]] = {}
    known: Sequence[tuple[str, str, Agent | Draft]] = [
        *((key, "draft", draft) for key, draft in runtime.drafts.items()),
        *((key, "paused", agent) for key, agent in runtime.paused.items()),
        *((key, "deployed", agent) for key, agent in runtime.agents.items()),
    ]
    for key, status, one in known:
        waiting = {} if status == "draft" or key not in runtime.drafts else {"draft": runtime.drafts[key].version}
        absent = runtime.absences(one) if isinstance(one, Agent) else ()
        rows[key] = _row(one.name, one.namespace, one.version, status, [house.node], (*one.warnings, *absent)) | waiting
    for key, mistake in runtime.broken.items():
        namespace, _, name = key.rpartition("/")
        row = rows.setdefault(key, _row(name, namespace or "default", "", "draft", [house.node], ()))
        row["error"] = mistake
    return rows


def _add_others(rows: dict[str, dict[str, Any]], house: House) -> None:
    """The local document counts where there is one, else the highest version that answers; who has another is named in a warning."""
    own = {agent.key: agent for agent in house.lifecycle.offered}
    for key, holders in house.roster.agents().items():
        first = own.get(key) or max((offered for _, offered in holders), key=_precedence)
        if key not in rows:
            rows[key] = _row(first.name, first.namespace, first.version, first.status, [], ())
        rows[key]["nodes"] += [house.roster.label(member.name) for member, _ in holders]
        rows[key]["warnings"] += [
            _disagreement(house, member, offered, first, here=key in own) for member, offered in holders if _differs(offered, first)
        ]


def _precedence(offered: OfferedAgent) -> tuple[bool, Any, bytes]:
    return offered.status == "deployed", order(offered.version), offered.digest


def _differs(one: OfferedAgent, other: OfferedAgent) -> bool:
    return (one.version, one.status) != (other.version, other.status) or (bool(one.digest and other.digest) and one.digest != other.digest)


def _disagreement(house: House, member: MemberView, offered: OfferedAgent, counted: OfferedAgent, *, here: bool) -> str:
    node, what = house.roster.label(member.name), "has another document of this agent"
    if offered.status != counted.status:
        what = f"has this agent {'as a draft' if offered.status == 'draft' else offered.status}"
    version = f" (version {offered.version or 'unsaid'})" if offered.version != counted.version else ""
    rule = f"the document of {house.node} counts here" if here else f"version {counted.version or 'unsaid'} counts"
    return f"{node} {what}{version}: {rule}"


def _row(name: str, namespace: str, version: str, status: str, nodes: list[str], warnings: Sequence[str]) -> dict[str, Any]:
    return {"name": name, "version": version, "namespace": namespace, "status": status, "nodes": nodes, "warnings": list(warnings)}

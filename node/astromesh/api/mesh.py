"""The mesh: who is here, what each offers; joining and leaving."""

from __future__ import annotations

from datetime import UTC, datetime
from time import time
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from astromesh.api.bodies import read
from astromesh.api.house import HOUSE, House, MeshControl
from astromesh.api.replies import reply
from astromesh.api.system import leader, services
from astromesh.errors import MeshOff
from astromesh.fleet import loads
from astromesh.fleet.loads import Load
from maia.view import MemberView


class JoinBody(BaseModel):
    """Where a member of the mesh can be found."""

    model_config = ConfigDict(extra="forbid")

    address: str = Field(min_length=1, max_length=300, description="host:port of its gossip; the port is 7946 where it is left out")


async def nodes(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    view, index = house.roster.view(), house.roster.index()
    if house.mesh is None or view is None or index is None:
        raise off()
    rows = []
    for member in view.members.values():
        mine = member.name == view.me
        offer = index.offers[member.name]
        rows.append(
            {
                "node_id": member.node_id,
                "name": house.roster.label(member.name),
                "status": member.status,
                "role": member.role,
                "devices": offer.devices.as_json() if offer.devices is not None else [],
                "gpus_known": offer.devices is not None and offer.devices.gpus is not None,
                "models": [{"name": model.name, "state": model.state} for model in offer.models],
                "agents": [agent.key for agent in offer.agents if agent.status == "deployed"],
                "load": _load(house.load() if mine else _told(member)),
                "link": {"state": "self", "rtt_ms": None} if mine else dict(house.mesh.link(member.name)),
            }
        )
    return reply({"nodes": rows})


async def state(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    view = house.roster.view()
    if house.mesh is None or view is None:
        raise off()
    leader_id = leader(house)
    return reply(
        {
            "nodes": [_member(house, house.mesh, member, leader_id=leader_id) for member in view.members.values()],
            "leader_id": leader_id,
            "version": view.version,
        }
    )


async def join(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    body = await read(request, JoinBody)
    if house.mesh is None:
        raise off()
    return reply({"status": "joined", "address": body.address, "members": await house.mesh.join(body.address)})


async def leave(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    if house.mesh is None:
        raise off()
    await house.mesh.leave()
    return reply({"status": "left"})


def _member(house: House, mesh: MeshControl, member: MemberView, *, leader_id: str | None) -> dict[str, Any]:
    index = house.roster.index()
    offer = index.offers.get(member.name) if index else None
    mine = index is not None and member.name == index.view.me
    now, clock = time(), mesh.clock()
    return {
        "node_id": member.node_id,
        "name": house.roster.label(member.name),
        "url": f"http://{member.api}" if member.api else None,
        "gossip": str(member.gossip),
        "services": services(house) if mine else {},
        "agents": [agent.key for agent in offer.agents if agent.status == "deployed"] if offer else [],
        "models": [model.name for model in offer.models] if offer else [],
        "load": _load(house.load() if mine else _told(member)),
        "leader": member.node_id == leader_id,
        "joined_at": iso(now - (clock - member.since_s)),
        "last_heartbeat": iso(now if mine else now - (clock - member.heard_s)),
        "status": member.status,
        "incarnation": member.incarnation,
    }


def _told(member: MemberView) -> Load | None:
    """What a member said last; None once that is fifteen seconds ago."""
    return loads.read(member.load.value) if member.load is not None else None


def _load(load: Load | None) -> dict[str, Any]:
    """What is unknown is absent, never 0. Of others it is told in sixteen levels."""
    if load is None:
        return {}
    return {
        "cpu_percent": load.cpu_percent,
        "memory_percent": load.memory_percent,
        "active_requests": load.active_requests,
    }


def iso(seconds: float) -> str:
    """As every answer has its times."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def off() -> MeshOff:
    return MeshOff("the mesh is switched off on this node", hint="set spec.mesh.enabled: true in runtime.yaml and start it again")

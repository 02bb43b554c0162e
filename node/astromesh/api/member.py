"""One member of the mesh, and the evidence for its last few statuses: who accused it, what our own probes said, and how well we were."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from time import time
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, Field

from astromesh.api.house import HOUSE, House
from astromesh.api.mesh import iso, off
from astromesh.api.replies import reply
from astromesh.errors import UnknownMember
from maia.view import Evidence, MemberView, MeshView

NAMES_SHOWN = 3


class Probe(BaseModel):
    """One probe of this node, and how it ended."""

    at: str
    outcome: Literal["acked", "late", "failed", "voided"] = Field(
        description="late: after others were asked to ping it, too; voided: this node stood still, so that silence proves nothing"
    )
    took_seconds: float
    how: str = Field(description="of one that failed: how long, and through how many others")


class Change(BaseModel):
    """Why a member got a status, as this node saw it at that moment."""

    status: Literal["alive", "suspect", "dead", "left"]
    at: str
    accuser: str | None = Field(description="who said so; this node itself where it found out; null for good news")
    how: str
    accusers: list[str] = Field(description="everyone who had accused it by then, as far as this node heard")
    own_health: int = Field(description="this node's own score then: 0 is well; at 7 it is starved, and its verdicts deserve less trust")
    own_lag_seconds: float = Field(description="the latest that timers of this node's mesh had come in the 10 to 20 seconds before")
    probes: list[Probe] = Field(description="this node's own last ones by then, oldest first")


class MemberShown(BaseModel):
    """One member as this node sees it."""

    name: str
    wire_name: str
    node_id: str
    status: Literal["alive", "suspect", "dead", "left"]
    incarnation: int
    generation: int
    gossip: str
    since: str = Field(description="when it got its status")
    last_heartbeat: str = Field(description="when something last proved that it lives")
    evidence: Change | None = Field(description="why it has its status; null of a node that nothing has happened to yet")
    history: list[Change] = Field(description="why it got its last few statuses, oldest first; the last one is the evidence")


async def member(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    view = house.roster.view()
    if house.mesh is None or view is None:
        raise off()
    found = _find(house, view, request.match_info["name"])
    now, clock = time(), house.mesh.clock()

    def wall(at_s: float) -> str:
        return iso(now - (clock - at_s))

    history = [_change(house, evidence, wall) for evidence in found.history]
    shown = MemberShown(
        name=house.roster.label(found.name),
        wire_name=found.name,
        node_id=found.node_id,
        status=found.status,
        incarnation=found.incarnation,
        generation=found.generation,
        gossip=str(found.gossip),
        since=wall(found.since_s),
        last_heartbeat=iso(now) if found.name == view.me else wall(found.heard_s),
        evidence=history[-1] if history else None,
        history=history,
    )
    return reply(shown.model_dump())


def _change(house: House, evidence: Evidence, wall: Callable[[float], str]) -> Change:
    return Change(
        status=evidence.status,
        at=wall(evidence.at_s),
        accuser=house.roster.label(evidence.accuser) if evidence.accuser else None,
        how=evidence.how,
        accusers=[house.roster.label(name) for name in evidence.accusers],
        own_health=evidence.own_health,
        own_lag_seconds=round(evidence.own_lag_s, 6),
        probes=[
            Probe(at=wall(probe.at_s), outcome=probe.outcome, took_seconds=round(probe.took_s, 6), how=probe.how)
            for probe in evidence.probes
        ],
    )


def _find(house: House, view: MeshView, name: str) -> MemberView:
    """By the name that people see, the one on the wire, or the whole id. Raises `UnknownMember` with the nearest ones."""
    for one in view.members.values():
        if name in (house.roster.label(one.name), one.name, one.node_id):
            return one
    labels = sorted(house.roster.label(one.name) for one in view.members.values())
    sharing = sorted(one.name for one in view.members.values() if one.title == name)
    if sharing:
        raise UnknownMember(f"{len(sharing)} members are called {name!r}", hint=f"say which: {', '.join(sharing[:NAMES_SHOWN])}")
    close = get_close_matches(name, labels, n=NAMES_SHOWN, cutoff=0.0)
    raise UnknownMember(f"this node knows no member named {name!r}", hint=f"nearest: {', '.join(close)}")

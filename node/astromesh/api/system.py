"""The node itself: alive, ready, its status, its figures, its recent runs."""

from __future__ import annotations

import os
import re
from time import time
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from astromesh.api.house import HOUSE, House
from astromesh.api.replies import reply
from astromesh.errors import InvalidRequest, UnknownTrace

TRACES_SHOWN_MAX = 256


class Health(BaseModel):
    status: Literal["ok"]
    version: str


class SpanShown(BaseModel):
    """An act of a run. Times in milliseconds from the start of the run."""

    name: str
    start_ms: float
    duration_ms: float | None = Field(description="None while it lasts.")
    attributes: dict[str, Any]
    id: str = Field("", description="Its own within the trace.")
    parent: str = Field("", description="The span that it was a part of.")
    node: str = Field("", description="Where it was performed.")


class TraceShown(BaseModel):
    trace_id: str
    agent: str
    node: str = Field(description="The node that conducted the run.")
    started_at: float = Field(description="Seconds since the epoch.")
    status: str = Field(description="running, ok, blocked, cancelled, or the code of the error.")
    duration_ms: float
    spans: list[SpanShown]
    spans_dropped: int


class TraceList(BaseModel):
    traces: list[TraceShown]


class Figure(BaseModel):
    """One figure under one set of labels: `value`, or of a histogram `sum` and `count`."""

    labels: dict[str, str]
    value: float | None = None
    sum: float | None = None
    count: float | None = None


class Figures(BaseModel):
    """By name, as in `/metrics`."""

    counters: dict[str, list[Figure]]
    gauges: dict[str, list[Figure]]
    histograms: dict[str, list[Figure]]


async def health(request: web.Request) -> web.Response:
    return reply({"status": "ok", "version": request.app[HOUSE].version})


async def ready(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    reasons = list(house.not_ready)
    if (name := request.query.get("agent")) is not None and not house.runtime.can_serve(name):
        reasons.append(f"agent {name} could not be served now, here or on a peer")
    if (name := request.query.get("model")) is not None and not house.models.ready(name):
        reasons.append(f"model {name} could not be served now, here or on a peer")
    return reply({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)


async def status(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    view = house.roster.view()
    peers: list[dict[str, object]] = [
        {"name": house.roster.label(member.name), "url": f"http://{member.api}" if member.api else None, "services": {}}
        for member in (view.peers if view else ())
        if member.usable
    ]
    return reply(
        {
            "version": house.version,
            "uptime_seconds": round(time() - house.started_at, 3),
            "mode": "dev",
            "agents_loaded": len(house.runtime.agents),
            "agents_broken": len(house.runtime.broken),
            "pid": os.getpid(),
            "services": services(house),
            "peers": peers,
            "mesh": {
                "enabled": house.mesh is not None,
                "node_id": view.myself.node_id if view else None,
                "node_name": house.node,
                "leader": leader(house) if view else None,
                "cluster_size": 1 + len(peers),
                "status": view.myself.status if view else "off",
            },
            "active_runs": house.runtime.active_runs,
            "warnings": [*house.warnings, *(house.mesh.warnings() if house.mesh is not None else ())],
        }
    )


async def figures(request: web.Request) -> web.Response:
    return reply(request.app[HOUSE].metrics.figures())


async def metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[HOUSE].metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def traces(request: web.Request) -> web.Response:
    limit = request.query.get("limit", "50")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= TRACES_SHOWN_MAX:
        raise InvalidRequest(f"limit={limit[:20]} is no number from 1 to {TRACES_SHOWN_MAX}", hint="leave it out for 50", param="limit")
    found = await request.app[HOUSE].runtime.traces.latest(agent=request.query.get("agent"), limit=int(limit))
    return reply({"traces": found})


async def trace(request: web.Request) -> web.Response:
    found = await request.app[HOUSE].runtime.traces.find(request.match_info["id"])
    if found is None:
        raise UnknownTrace(
            "this node has no such trace", hint="only runs that it conducted are kept, the last ones; GET /v1/traces lists them"
        )
    return reply(found)


def services(house: House) -> dict[str, bool]:
    return {"api": True, "agents": True, "inference": bool(house.models.local), "mesh": house.mesh is not None}


def leader(house: House) -> str | None:
    """The living node with the lowest id; it has no duties. A stock agent has no id."""
    view = house.roster.view()
    alive = sorted(member.node_id for member in view.members.values() if member.status == "alive" and member.node_id) if view else []
    return alive[0] if alive else None

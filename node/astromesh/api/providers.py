"""The model servers behind the nodes of the mesh: whether they answer, and whether other nodes may use them."""

from __future__ import annotations

from typing import Literal

from aiohttp import web
from pydantic import BaseModel, Field

from astromesh.api.house import HOUSE
from astromesh.api.replies import reply
from astromesh.specs.provider import OfferedModel


class ProviderShown(BaseModel):
    """One model server, as the node says that calls it."""

    name: str
    node: str
    type: str
    models: list[str]
    health: Literal["healthy", "degraded", "down", "unknown"] = Field(description="unknown: nobody has asked it yet, or ever will")
    breaker: str | None = Field(description="null where there is none")
    shared: bool = Field(description="whether other nodes may use it through this one")
    latency_ms: float | None = Field(description="of its last answer to a health check; null where it gave none, or of another node")
    cost_per_1k_tokens: dict[str, float] = Field(description="by model, as configured here")


class ProviderList(BaseModel):
    providers: list[ProviderShown]


async def listing(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    shown: list[ProviderShown] = []
    for watched in house.health.all():
        offered = watched.offered()
        prices = {
            model.name: model.cost_per_1k_tokens
            for model in watched.provider.spec.models
            if isinstance(model, OfferedModel) and model.cost_per_1k_tokens is not None
        }
        shown.append(
            ProviderShown(
                name=offered.name,
                node=house.node,
                type=offered.type,
                models=list(offered.models),
                health=offered.health,
                breaker=offered.breaker or None,
                shared=offered.shared,
                latency_ms=round(watched.latency_ms, 1) if watched.latency_ms is not None else None,
                cost_per_1k_tokens=prices,
            )
        )
    index = house.roster.index()
    for member in index.view.peers if index is not None else ():
        if not member.usable or index is None:
            continue
        shown += [
            ProviderShown(
                name=one.name,
                node=house.roster.label(member.name),
                type=one.type,
                models=list(one.models),
                health=one.health,
                breaker=one.breaker or None,
                shared=one.shared,
                latency_ms=None,
                cost_per_1k_tokens={},
            )
            for one in index.offers[member.name].providers
        ]
    shown.sort(key=lambda one: (one.name, one.node))
    return reply(ProviderList(providers=shown).model_dump())

"""The model servers behind the nodes of the mesh: whether they answer, how fast and at what price, and whether other nodes may use them."""

from __future__ import annotations

from typing import Literal, cast, get_args

from aiohttp import web
from pydantic import BaseModel, Field

from astromesh.api.house import HOUSE
from astromesh.api.replies import reply
from astromesh.specs.provider import OfferedModel

BreakerShown = Literal["closed", "open", "half_open"]


class ProviderShown(BaseModel):
    """One model server, as the node says that calls it."""

    name: str
    node: str
    type: str
    models: list[str]
    health: Literal["healthy", "degraded", "down", "unknown"] = Field(description="unknown: nobody has asked it yet, or ever will")
    breaker: BreakerShown | None = Field(
        description="open: it failed too often and is left alone; half_open: the next call tries it. null where this node never calls it"
    )
    shared: bool = Field(description="whether other nodes may use it through this one")
    latency_ms: float | None = Field(
        description="moving average of its answers to health checks; null where it gave none, or of another node"
    )
    first_token_ms: dict[str, float] = Field(description="by model: moving average of the time to the first token of streamed answers")
    total_ms: dict[str, float] = Field(description="by model: moving average of the time to the end of an answer")
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
        latencies = sorted(watched.endpoint.latencies.items()) if watched.endpoint is not None else []
        shown.append(
            ProviderShown(
                name=offered.name,
                node=house.node,
                type=offered.type,
                models=list(offered.models),
                health=offered.health,
                breaker=_known(offered.breaker),
                shared=offered.shared,
                latency_ms=_ms(None if watched.latency_ms is None else watched.latency_ms / 1e3),
                first_token_ms={model: ms for model, seen in latencies if (ms := _ms(seen.first_token_s)) is not None},
                total_ms={model: ms for model, seen in latencies if (ms := _ms(seen.total_s)) is not None},
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
                breaker=_known(one.breaker),
                shared=one.shared,
                latency_ms=None,
                first_token_ms={},
                total_ms={},
                cost_per_1k_tokens={},
            )
            for one in index.offers[member.name].providers
        ]
    shown.sort(key=lambda one: (one.name, one.node))
    return reply(ProviderList(providers=shown).model_dump())


def _known(breaker: str) -> BreakerShown | None:
    """Another node may say what this version has no word for."""
    return cast("BreakerShown", breaker) if breaker in get_args(BreakerShown) else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 1)

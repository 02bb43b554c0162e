"""The engine of this node: what was built, for what, and what somebody should do about it."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, Field

from astromesh.api.house import HOUSE
from astromesh.api.replies import reply


class InstalledEngine(BaseModel):
    name: str
    version: str


class ProcessorShown(BaseModel):
    name: str
    cores: int
    threads: int
    features: list[str] = Field(description="those that decide how fast a model runs")


class EngineModel(BaseModel):
    name: str
    state: str
    kernel: str | None = Field(description="nodes that claim the same kernel make the same greedy text; null where none is claimed")


class EngineStatus(BaseModel):
    node: str
    installed: list[InstalledEngine]
    backends: list[str] = Field(description="what it was built to compute with, as the engine calls it")
    built_for: list[str] = Field(description="features of processors that it was built for, as the engine calls them")
    processor: ProcessorShown
    cached: dict[str, str] = Field(description="wheels that were compiled for this machine, by backend")
    models: list[EngineModel]
    warnings: list[str] = Field(description="what somebody should do, with the command")


async def status(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    told = await house.engine()
    own = [row for row in house.model_rows() if row["state"] != "remote"]
    models = [EngineModel(name=row["name"], state=row["state"], kernel=row.get("kernel")) for row in own]
    return reply(EngineStatus(node=house.node, models=models, **told).model_dump())

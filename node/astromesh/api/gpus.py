"""The cards of the mesh, node by node."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, Field

from astromesh.api.house import HOUSE
from astromesh.api.replies import reply
from astromesh.fleet.devices import Devices


class GpuShown(BaseModel):
    """What its driver does not tell is null, never 0. Of another node free memory is told in sixteenths and utilisation in tenths."""

    id: str
    name: str
    total_bytes: int | None
    free_bytes: int | None
    utilisation_percent: int | None
    usable: bool | None = Field(description="whether the engine of its node can put a model there; null where that is not told")
    note: str | None


class NodeGpus(BaseModel):
    node: str
    known: bool = Field(description="false: nobody has looked yet, or nobody could tell; troubles says why")
    gpus: list[GpuShown]
    troubles: list[str] = Field(description="what somebody should look after: a driver that does not answer, or of another version")


class GpuList(BaseModel):
    nodes: list[NodeGpus]


async def listing(request: web.Request) -> web.Response:
    house = request.app[HOUSE]
    shown = [_shown(house.node, house.devices())]
    if (index := house.roster.index()) is not None:
        others = [member for member in index.view.peers if member.usable]
        shown += [_shown(house.roster.label(member.name), index.offers[member.name].devices or Devices()) for member in others]
    shown.sort(key=lambda one: one.node)
    return reply(GpuList(nodes=shown).model_dump())


def _shown(node: str, devices: Devices) -> NodeGpus:
    gpus = [
        GpuShown(
            id=gpu.id,
            name=gpu.name,
            total_bytes=gpu.total_bytes,
            free_bytes=gpu.free_bytes,
            utilisation_percent=gpu.utilisation_percent,
            usable=gpu.usable,
            note=gpu.note or None,
        )
        for gpu in devices.gpus or ()
    ]
    return NodeGpus(node=node, known=devices.gpus is not None, gpus=gpus, troubles=list(devices.troubles))

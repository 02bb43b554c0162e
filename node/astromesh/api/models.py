"""The models of the node that is asked: pulled, loaded, unloaded, removed. For another node's, ask that node."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from astromesh.api import errors
from astromesh.api.bodies import read
from astromesh.api.event_stream import EventStream
from astromesh.api.house import HOUSE, House, PullProgress
from astromesh.api.model_list import known_models
from astromesh.api.replies import reply
from astromesh.errors import AstromeshError, InvalidRequest, UnknownModel


class PullBody(BaseModel):
    """What to pull."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(min_length=1, max_length=4096, description="a registered name, hf:OWNER/REPO:FILE, an address, a path")
    name: str | None = Field(default=None, max_length=64, description="what it is called there; otherwise as its file")
    sha256: str = Field(default="", max_length=80, description="what the file has to be")


class LoadBody(BaseModel):
    """How to load."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(default=False, description="only say what it would take, and whether it fits")
    context: int | None = Field(default=None, ge=1, description="tokens of context to reckon with; for a dry run")


class UnloadBody(BaseModel):
    """Whether to do it although somebody is reading."""

    model_config = ConfigDict(extra="forbid")

    force: bool = False


async def model(request: web.Request) -> web.Response:
    """One model of the mesh, and what this node knows of it if it is here."""
    house, name = request.app[HOUSE], request.match_info["name"]
    found, here = known_models(house).get(house.models.named(name)[0]), await house.shelf.show(name)
    if found is None:
        if here is None:
            raise UnknownModel(f"no node of this mesh offers a model named {name!r}", hint="GET /v1/models lists them")
        # Installed, and not among those that the configuration names.
        found = {"id": name, "object": "model", "created": 0, "owned_by": "astromesh", "identity": here.get("sha256"), "nodes": []}
    return reply(found | ({"here": here} if here is not None else {}))


async def pull(request: web.Request) -> web.StreamResponse:
    house = request.app[HOUSE]
    body = await read(request, PullBody)
    async with aclosing(house.shelf.pull(body.source, name=body.name, sha256=body.sha256)) as steps:
        first = await anext(steps)  # what is refused at once is an error, and no stream
        async with EventStream(request, {}) as stream:
            position = 0
            try:
                await stream.event(position, *_told(first, house))
                async for step in steps:
                    position += 1
                    await stream.event(position, *_told(step, house))
            except AstromeshError as failure:
                await stream.event(position + 1, "error", errors.event(failure))
            return await stream.end()


async def load(request: web.Request) -> web.Response:
    house, name = request.app[HOUSE], request.match_info["name"]
    body = await read(request, LoadBody) if request.body_exists else LoadBody()
    if body.dry_run:
        return reply({"node": house.node, **await house.shelf.plan(name, context=body.context)})
    if body.context is not None:
        raise InvalidRequest("context is for a dry run", hint="its context is spec.inference.models[].context of the node", param="context")
    return reply({"node": house.node, "model": house.shelf.load(name)}, status=202)


async def unload(request: web.Request) -> web.Response:
    house, name = request.app[HOUSE], request.match_info["name"]
    body = await read(request, UnloadBody) if request.body_exists else UnloadBody()
    return reply({"node": house.node, "model": await house.shelf.unload(name, force=body.force)})


async def remove(request: web.Request) -> web.Response:
    house, name = request.app[HOUSE], request.match_info["name"]
    force = request.query.get("force", "false")
    if force not in ("true", "false"):
        raise InvalidRequest(f"force is {force[:20]!r}", hint="write ?force=true", param="force")
    await house.shelf.remove(name, force=force == "true")
    return reply({"node": house.node, "name": name, "status": "removed"})


def _told(step: PullProgress | dict[str, Any], house: House) -> tuple[str, dict[str, Any]]:
    return ("progress", asdict(step)) if isinstance(step, PullProgress) else ("done", {"node": house.node, "model": step})

"""What becomes of agents: drafts, deployed, paused, removed; and the files read again."""

from __future__ import annotations

from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from astromesh.api.agent_names import asked_agent, asked_namespace
from astromesh.api.bodies import read
from astromesh.api.house import HOUSE
from astromesh.api.replies import reply
from astromesh.errors import BodyTooLarge
from astromesh.runtime.agent import AgentChange, ChangeVerb

DOCUMENT_BYTES_MAX = 2**20  # as much as a file of the configuration may hold


class AgentBody(BaseModel):
    """An Agent document, as a file of the configuration holds it. Its mistakes are told all at once, so nothing is checked here."""

    model_config = ConfigDict(extra="allow")

    apiVersion: Any = Field(None, description="astromesh/v1")  # noqa: N815  the format's own spelling
    kind: Any = Field(None, description="Agent")
    metadata: Any = Field(None, description="{name, version, namespace, labels, annotations}")
    spec: Any = Field(None, description="What the agent is.")


class Failure(BaseModel):
    node: str
    code: str
    message: str
    hint: str


class AgentRegistered(BaseModel):
    name: str
    namespace: str
    version: str
    status: Literal["registered"]
    warnings: list[str]


class AgentChanged(BaseModel):
    agent: str
    name: str
    namespace: str
    status: Literal["updated", "removed", "deployed", "paused"]
    nodes: list[str] = Field(description="Where it was done.")
    failures: list[Failure] = Field(description="Nodes that hold the agent and where it was not done.")
    warnings: list[str]


class FilesReloaded(BaseModel):
    """What is another than before, by name."""

    status: Literal["reloaded"]
    agents: dict[str, list[str]] = Field(description="added, changed, removed")
    providers: dict[str, list[str]] = Field(description="added, changed, removed")
    restart_needed: list[str] = Field(description="What changed in the files and counts from the next start of the node.")
    mistakes: list[str] = Field(description="Of files that were broken before and have not changed.")
    warnings: list[str]


async def create(request: web.Request) -> web.Response:
    made = await request.app[HOUSE].lifecycle.create(await _document(request), namespace=asked_namespace(request))
    return reply(made, status=201)


async def update(request: web.Request) -> web.Response:
    return await _change(request, "update", document=await _document(request))


async def remove(request: web.Request) -> web.Response:
    return await _change(request, "remove")


async def deploy(request: web.Request) -> web.Response:
    return await _change(request, "deploy")


async def pause(request: web.Request) -> web.Response:
    return await _change(request, "pause")


async def reload(request: web.Request) -> web.Response:
    return reply(await request.app[HOUSE].reload())


async def _change(request: web.Request, verb: ChangeVerb, *, document: dict[str, Any] | None = None) -> web.Response:
    name, namespace = asked_agent(request)
    return reply(await request.app[HOUSE].lifecycle.change(AgentChange(verb, name, namespace, document)))


async def _document(request: web.Request) -> dict[str, Any]:
    body = await read(request, AgentBody)
    if len(await request.read()) > DOCUMENT_BYTES_MAX:
        raise BodyTooLarge(
            f"the document is larger than {DOCUMENT_BYTES_MAX // 2**20} MiB", hint="no agent needs that: what makes it so long?"
        )
    return body.model_dump(exclude_unset=True)

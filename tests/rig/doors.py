"""The API of a node over its rooms, on a real port: what a test of the doors knocks at."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai
import orjson
from aiohttp import web
from tests.rig.key_members import KeyMembers
from tests.rig.rooms import Rooms

from astromesh.api.app import build
from astromesh.api.house import House, ModelControl, PullProgress
from astromesh.errors import AstromeshError, StoreError, UnknownAgent, UnknownModel, UnsafeAgentName
from astromesh.runtime.agent import AgentChange
from astromesh.service.keys import ClusterKeys
from maia.view import MeshEvent

REQUEST_S = 60.0


class Membership:
    """A mesh that does what it is told and remembers what it was told."""

    def __init__(self, *, refuses: AstromeshError | None = None, keys: ClusterKeys | None = None) -> None:
        """`keys`: those of a mesh in the clear, where none are given."""
        self.keys = keys or ClusterKeys(None, driver=lambda: KeyMembers({}, me=""), label=str, members=str)
        self.warned: tuple[str, ...] = ()
        self.joined: list[str] = []
        self.left = 0
        self.listening: list[Callable[[MeshEvent], None]] = []
        self._refuses = refuses

    async def join(self, address: str) -> int:
        self.joined.append(address)
        if self._refuses is not None:
            raise self._refuses
        return 2

    async def leave(self) -> None:
        self.left += 1

    def warnings(self) -> tuple[str, ...]:
        return self.warned

    def clock(self) -> float:
        return 100.0

    def listen(self, hear: Callable[[MeshEvent], None]) -> Callable[[], None]:
        self.listening.append(hear)
        return lambda: self.listening.remove(hear)

    def say(self, event: MeshEvent) -> None:
        """The mesh saw something."""
        for hear in list(self.listening):
            hear(event)

    def link(self, name: str) -> Mapping[str, Any]:
        return {"state": "open", "rtt_ms": 0.5}


class NoModels:
    """A node that has no models of its own."""

    async def pull(self, source: str, *, name: str | None, sha256: str) -> AsyncGenerator[PullProgress | dict[str, Any], None]:
        raise StoreError(f"{source!r} is neither a file nor a registered model")
        yield {}

    async def show(self, name: str) -> dict[str, Any] | None:
        return None

    async def plan(self, name: str, *, context: int | None = None) -> dict[str, Any]:
        raise self._unknown(name)

    def load(self, name: str) -> dict[str, Any]:
        raise self._unknown(name)

    async def unload(self, name: str, *, force: bool) -> dict[str, Any]:
        raise self._unknown(name)

    async def remove(self, name: str, *, force: bool) -> None:
        raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownModel:
        return UnknownModel(f"this node has no model {name!r} of its own")


class NoChanges:
    """Agents as they are in the rooms, which nobody changes over the API."""

    offered = ()

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def create(self, document: Mapping[str, Any], *, namespace: str | None) -> dict[str, Any]:
        raise UnsafeAgentName("no agent is kept here")

    async def change(self, change: AgentChange) -> dict[str, Any]:
        raise UnknownAgent(f"there is no agent {change.key!r}", hint="this is a test")

    async def document(self, name: str, namespace: str, *, draft: bool) -> Mapping[str, Any]:
        if (agent := self._rooms.runtime.agents.get(name)) is None:
            raise UnknownAgent(f"there is no agent {name!r}", hint="this is a test")
        return agent.document


async def no_files() -> Mapping[str, Any]:
    """A reload where there is nothing to be read."""
    nothing: dict[str, list[str]] = {"added": [], "changed": [], "removed": []}
    return {"status": "reloaded", "agents": nothing, "providers": nothing, "restart_needed": [], "mistakes": [], "warnings": []}


@dataclass(frozen=True, slots=True)
class SentEvent:
    """One server-sent event. `id` and `event` are empty where the stream does not say them."""

    id: str
    event: str
    data: Any


class Doors:
    def __init__(self, house: House, url: str, http: aiohttp.ClientSession) -> None:
        self.house = house
        self.url = url
        self.http = http

    def openai(self) -> openai.AsyncOpenAI:
        """Their own client, such that every failure is seen as it comes."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=REQUEST_S)

    async def run(self, body: Mapping[str, Any], *, agent: str = "desk", **how: Any) -> tuple[int, Any, Mapping[str, str]]:
        """Status, JSON and headers of a run that is not streamed."""
        async with self.http.post(f"/v1/agents/{agent}/run", json=body, **how) as response:
            return response.status, orjson.loads(await response.read()), response.headers

    async def get(self, path: str, **how: Any) -> tuple[int, Any]:
        async with self.http.get(path, **how) as response:
            return response.status, orjson.loads(await response.read())


@asynccontextmanager
async def open_doors(rooms: Rooms, *, mesh: Membership | None = None, shelf: ModelControl | None = None) -> AsyncIterator[Doors]:
    house = House(
        node=rooms.node,
        version="1.2.3",
        started_at=0.0,
        runtime=rooms.runtime,
        models=rooms.models,
        encoder=rooms.encoder,
        roster=rooms.roster,
        metrics=rooms.metrics,
        mesh=mesh,
        model_rows=lambda: [{"name": name, "state": "loaded", "identity": "ab" * 32, "created": 1700000000} for name in rooms.models.local],
        shelf=shelf or NoModels(),
        lifecycle=NoChanges(rooms),
        reload=no_files,
        load=lambda: rooms.load,
        devices=lambda: rooms.devices,
        engine=rooms.engine,
        health=rooms.health,
        hosts_allowed=frozenset({"Lab", rooms.node}),
    )
    runner = web.AppRunner(build(house), handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(base_url=url, timeout=aiohttp.ClientTimeout(total=REQUEST_S)) as http:
            yield Doors(house, url, http)
    finally:
        await runner.cleanup()


async def sent_events(response: aiohttp.ClientResponse) -> AsyncIterator[SentEvent]:
    """The events of a stream as they come; comments are left out, as browsers do."""
    fields: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\r\n")
        if not line:
            if "data" in fields:
                data = fields["data"]
                yield SentEvent(fields.get("id", ""), fields.get("event", ""), data if data == "[DONE]" else orjson.loads(data))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")

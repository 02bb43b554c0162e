"""A node that is asked over its doors, and what was seen of the contract meanwhile.

Whatever goes through a `Witness` is taken down as items of `surface` and `files`: routes with their codes and the keys of their answers,
headers, events, keys of the documents that a node ran on. What a test is said to show, it must have seen.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
from tests.contracts.files import written
from tests.contracts.surface import ASKED_HEADERS, HEADERS, ROUTES, RUN
from tests.rig.documents import Documents, write_documents
from tests.rig.doors import SentEvent, sent_events
from tests.rig.ports import LOOPBACK, free_node_ports

from astromesh.cli import surroundings
from astromesh.service.node import open_node

REQUEST_S = 30.0
STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any  # JSON where it is some, else text
    events: Sequence[SentEvent] = ()

    def told(self, kind: str) -> list[Any]:
        """The data of the events of a kind."""
        return [event.data for event in self.events if event.event == kind]


@dataclass
class Witness:
    """What one test has seen so far, as items."""

    folder: Path
    seen: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def node(
        self, documents: Documents, *, name: str = "solo", mesh: bool = True, said_by_files: Sequence[str] = ()
    ) -> AsyncIterator[Running]:
        """A node on these documents. `said_by_files`: settings that are not given as flags, since a document says them."""
        config = self.folder / name / "config"
        config.mkdir(parents=True, exist_ok=True)
        write_documents(config, documents)
        for document in documents.values():
            self.seen.update(written(document))
        configuration = surroundings.configuration(str(config))
        ports = free_node_ports()
        flags: dict[str, Any] = {door: f"{LOOPBACK}:{getattr(ports, door)}" for door in ("api", "gossip", "link")}
        flags |= {"name": name, "mesh": mesh, "data": str(self.folder / name / "data")}
        settings = surroundings.settled(configuration, {key: flag for key, flag in flags.items() if key not in said_by_files}).values
        async with (
            open_node(settings, configuration, doors=True),
            aiohttp.ClientSession(base_url=f"http://{settings.api}", timeout=aiohttp.ClientTimeout(total=REQUEST_S)) as http,
        ):
            yield Running(self, settings.name, f"http://{settings.api}", str(settings.gossip), config, http)

    def sent(self, method: str, path: str, *, query: str = "", body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """A request went out."""
        route = route_of(method, path)
        self.seen.update(f"{route} ?{pair.partition('=')[0]}" for pair in query.split("&"))
        self.seen.update(f"asked header {name}" for name in ASKED_HEADERS if name in (headers or {}))
        if isinstance(body, dict):
            self.seen.update(f"{route} asked {{{key}}}" for key in body)
            if route in ("POST /v1/agents", "PUT /v1/agents/{name}"):
                self.seen.update(written(body))

    def answered(self, method: str, path: str, *, status: int, headers: Mapping[str, str], body: Any) -> None:
        """An answer came back; `body` is None where it was a stream."""
        route = route_of(method, path)
        self.seen.add(f"{route} {status}")
        self.seen.update(f"header {name}" for name in HEADERS if name in headers)
        self.seen.add(f"route {headers.get('X-Astromesh-Route')}")
        if headers.get("Content-Type", "").startswith("application/problem+json"):
            self.seen.update(f"problem {{{key}}}" for key in paths(body))
            self.seen.update(f"problem {status} {{{key}}}" for key in paths(body))
            self.seen.add(f"failure {status} {body['code']}")
        elif isinstance(body, dict) and "error" in body:
            self.seen.add(f"failure {status} {body['error']['code']}")
        else:
            self.seen.update(f"{route} {{{key}}}" for key in paths(body))
            self.seen.update(f"span {span['name']}" for span in spans(body))

    def heard(self, transport: str, kind: str, data: Any) -> None:
        """An event of a run came, over a stream or a socket."""
        self.seen.update(f"{transport} event {kind} {{{key}}}" for key in paths(data))
        if kind == "done":
            self.seen.update(f"{RUN} {{{key}}}" for key in paths(data))
            self.seen.update(f"span {span['name']}" for span in spans(data))


@dataclass
class Running:
    """A node that runs, as a client sees it."""

    witness: Witness
    name: str
    url: str
    gossip: str
    config: Path
    http: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, raw: bytes | None = None
    ) -> Answer:
        """One request; an event stream is read to its end."""
        headers = dict(headers or {})
        place, _, query = path.partition("?")
        self.witness.sent(method, place, query=query, body=body, headers=headers)
        how: dict[str, Any] = {"data": raw} if raw is not None else {"json": body} if body is not None else {}
        async with self.http.request(method, path, headers=headers, allow_redirects=False, **how) as response:
            if response.content_type == STREAM:
                events = [event async for event in sent_events(response)]
                for event in events:
                    self.witness.heard("stream", event.event, event.data)
                said: Any = None
            else:
                events, text = [], await response.text()
                said = orjson.loads(text) if response.content_type.endswith("json") and text else text
            self.witness.answered(method, place, status=response.status, headers=response.headers, body=said)
            return Answer(response.status, response.headers, said, events)

    async def get(self, path: str) -> Any:
        """The body of an answer that is fine."""
        answer = await self.ask("GET", path)
        assert answer.status == 200, answer.body
        return answer.body

    async def run(self, agent: str = "desk", query: str = "Hello", *, namespace: str = "", **more: Any) -> Answer:
        where = f"?namespace={namespace}" if namespace else ""
        return await self.ask("POST", f"/v1/agents/{agent}/run{where}", {"query": query, **more})

    async def answer(self, agent: str = "desk", query: str = "Hello", **more: Any) -> Any:
        """The result of a run that went well."""
        ran = await self.run(agent, query, **more)
        assert ran.status == 200, ran.body
        return ran.body

    async def warnings(self, agent: str = "desk") -> str:
        """What the node says of an agent's document."""
        rows = (await self.get("/v1/agents"))["agents"]
        return "\n".join(next(row["warnings"] for row in rows if row["name"] == agent))

    @asynccontextmanager
    async def talk(self, agent: str = "desk", *, query: str = "") -> AsyncIterator[Talk]:
        path = f"/v1/ws/agent/{agent}"
        self.witness.sent("GET", path, query=query)
        async with self.http.ws_connect(f"{path}?{query}") as socket:
            self.witness.answered("GET", path, status=101, headers={}, body=None)
            yield Talk(self.witness, socket)

    def openai(self) -> openai.AsyncOpenAI:
        """Their own client, such that every failure is seen as it comes."""
        client = openai.DefaultAsyncHttpxClient(event_hooks={"response": [self._overheard]})
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=REQUEST_S, http_client=client)

    async def _overheard(self, response: Any) -> None:
        request = response.request
        body = orjson.loads(request.content) if request.content else None
        given = {name.title(): value for name, value in request.headers.items()}
        self.witness.sent(request.method, request.url.path, body=body, headers=given)
        headers = {name: response.headers[name] for name in HEADERS if name in response.headers}
        said = orjson.loads(await response.aread()) if "json" in response.headers["content-type"] else None
        self.witness.answered(request.method, request.url.path, status=response.status_code, headers=headers, body=said)


@dataclass
class Talk:
    """A WebSocket to an agent."""

    witness: Witness
    socket: aiohttp.ClientWebSocketResponse[bool]

    async def say(self, message: Mapping[str, Any] | str) -> None:
        await self.socket.send_str(message if isinstance(message, str) else orjson.dumps(message).decode())

    async def until(self, *kinds: str) -> list[dict[str, Any]]:
        """Everything up to the first message of one of these types."""
        told: list[dict[str, Any]] = []
        while not told or told[-1]["type"] not in kinds:
            told.append(orjson.loads(await self.socket.receive_str(timeout=REQUEST_S)))
            self.witness.heard("socket", told[-1]["type"], told[-1])
        return told


def route_of(method: str, path: str) -> str:
    """The route of the contract that a path means, or the path itself."""
    path = path.rstrip("/") or "/"
    return next((route for route, pattern in _patterns() if pattern.fullmatch(f"{method} {path}")), f"{method} {path}")


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    # Those without a name in them first: /v1/traces is no trace.
    routes = sorted((promise.route for promise in ROUTES), key=lambda route: route.count("{"))
    return tuple((route, re.compile(re.sub(r"\\\{[a-z_]+\\\}", "[^/]+", re.escape(route)))) for route in routes)


def paths(value: Any, above: str = "") -> Iterator[str]:
    """The keys of a JSON value, from the top."""
    if isinstance(value, dict):
        for key, inner in value.items():
            path = f"{above}.{key}" if above else key
            yield path
            yield from paths(inner, path)
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{above}[]")


def spans(body: Any) -> Iterator[Mapping[str, Any]]:
    """Those of a trace, or of the trace of a run."""
    if isinstance(body, dict):
        trace = body.get("trace") or body
        if isinstance(trace, dict):
            yield from trace.get("spans", ())

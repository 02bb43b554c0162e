"""A conversation with an agent over one WebSocket: questions in, the events of their runs out, one run at a time.

The connection is a session: a question that follows another goes on with it. What cannot be meant is answered by an `error` and changes
nothing; an `error` with a `run_id` is the end of that run. A client that closes, or does not answer pings, cancels its run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal
from weakref import WeakSet

import orjson
from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import BaseModel, ConfigDict, Field

from astromesh.api import errors
from astromesh.api.agent_names import asked_key
from astromesh.api.bodies import BODY_BYTES_MAX, parsed
from astromesh.api.event_stream import HEARTBEAT_S
from astromesh.api.house import HOUSE, House
from astromesh.api.replies import REQUEST_ID
from astromesh.errors import AstromeshError, InvalidRequest, MalformedBody, Overloaded, RunUnderWay
from astromesh.runtime.engine import Run
from astromesh.runtime.events import SESSION_ID_CHARACTERS_MAX, RunRequest

TALKS_MAX = 512  # as many as runs: each costs a connection, its buffers and two tasks
GOODBYE_S = 2.0  # for the other side to answer the end of a connection


class Said(BaseModel):
    """A message of the client's: a question, or the wish to end the answer that is under way."""

    model_config = ConfigDict(extra="forbid")

    query: str | None = Field(None, min_length=1, description="What to ask.")
    context: dict[str, Any] = Field(default_factory=dict, description="Variables for the agent's prompt templates; with a query.")
    cancel: Literal[True] | None = Field(None, description="End the run that is under way.")


class Talks:
    """Everyone who talks to agents over a connection of his own."""

    def __init__(self) -> None:
        self._sockets: WeakSet[web.WebSocketResponse] = WeakSet()

    def admit(self, socket: web.WebSocketResponse) -> None:
        """Raises `Overloaded` where there are too many."""
        if len(self._sockets) >= TALKS_MAX:
            raise Overloaded(f"{TALKS_MAX} connections talk to agents through this node", hint="close one, or ask another node")
        self._sockets.add(socket)

    def dismiss(self, socket: web.WebSocketResponse) -> None:
        self._sockets.discard(socket)

    async def close(self, _app: web.Application) -> None:
        """The doors close: whoever is idle would hold them open."""
        leaving = [socket.close(code=WSCloseCode.GOING_AWAY, message=b"the node is shutting down") for socket in list(self._sockets)]
        await asyncio.gather(*leaving, return_exceptions=True)


TALKS = web.AppKey("talks", Talks)


async def talk(request: web.Request) -> web.StreamResponse:
    house, talks = request.app[HOUSE], request.app[TALKS]
    agent, session_id = asked_key(request), request.query.get("session_id")
    if session_id is not None and not 0 < len(session_id) <= SESSION_ID_CHARACTERS_MAX:
        raise InvalidRequest(
            f"session_id must have 1 to {SESSION_ID_CHARACTERS_MAX} characters", hint="leave it out for a fresh one", param="session_id"
        )
    # Text stays bytes: what is not UTF-8 is bad JSON like any other, and no reason to hang up.
    socket = web.WebSocketResponse(timeout=GOODBYE_S, heartbeat=HEARTBEAT_S, compress=False, max_msg_size=BODY_BYTES_MAX, decode_text=False)
    if not socket.can_prepare(request):
        raise web.HTTPUpgradeRequired
    house.runtime.must_exist(agent)
    talks.admit(socket)
    try:
        await socket.prepare(request)
        talking = Talking(house, socket, agent=agent, session_id=session_id, request_id=request[REQUEST_ID])
        try:
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
                await talking.hear(message.data if message.type is WSMsgType.TEXT else None)
        except ConnectionError:
            pass  # he has left while he was told something
        finally:
            await talking.end()
    finally:
        talks.dismiss(socket)
    return socket


class Talking:
    """One connection: what was asked over it, and what is told."""

    def __init__(self, house: House, socket: web.WebSocketResponse[bool], *, agent: str, session_id: str | None, request_id: str) -> None:
        self._house = house
        self._socket = socket
        self._agent = agent
        self._session_id = session_id
        self._request_id = request_id
        self._asked = 0
        self._run: Run | None = None
        self._telling: asyncio.Task[None] | None = None

    async def hear(self, text: bytes | None) -> None:
        """None: a message that is no text."""
        try:
            if text is None:
                raise MalformedBody("the message is binary", hint='send text: {"query": "…"}')
            said = await parsed(text, Said)
            if (said.query is None) == (said.cancel is None):
                raise InvalidRequest("a message is a query or a cancel", hint='send {"query": "…"} or {"cancel": true}', param="query")
            if said.cancel is not None:
                await self._cancel()
            elif said.query is not None:
                await self._ask(said.query, said.context)
        except AstromeshError as refusal:
            await self._say("error", errors.event(refusal))

    async def end(self) -> None:
        """Whoever leaves cancels what was done for him, on every node."""
        if self._run is not None and self._telling is not None:
            self._run.cancel()  # the telling would do it, had it taken its first step; and nobody may be left to wait for it
            self._telling.cancel()
            await asyncio.wait([self._telling])

    async def _ask(self, query: str, context: Mapping[str, Any]) -> None:
        if self._telling is not None and not self._telling.done():
            raise RunUnderWay("the answer to the last query is under way", hint='wait for its done, or send {"cancel": true}')
        asked = RunRequest(self._agent, query, session_id=self._session_id, context=context, watched=True)
        run = self._house.runtime.start(asked, request_id=f"{self._request_id}.{self._asked}")
        self._asked += 1
        self._run = run
        self._telling = asyncio.create_task(self._tell(run), name=f"telling of run {run.id}")

    async def _cancel(self) -> None:
        if self._run is None or self._run.told.over:
            await self._say("status", {"state": "idle"})  # it ended while this was on its way
        else:
            self._run.cancel()

    async def _tell(self, run: Run) -> None:
        try:
            await self._say("status", {"state": "started", "run_id": run.id})
            async for event in run.events:
                if event.kind == "done":
                    self._session_id = event.data["session_id"]
                await self._say(event.kind, event.data)
        except AstromeshError as failure:
            await self._say("error", {**errors.event(failure), "run_id": run.id})
        except ConnectionError:
            pass  # he has left; whoever hears him knows
        finally:
            await run.close()

    async def _say(self, kind: str, data: Mapping[str, Any]) -> None:
        await self._socket.send_frame(orjson.dumps({"type": kind, **data}), WSMsgType.TEXT)

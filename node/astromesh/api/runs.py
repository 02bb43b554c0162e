"""Runs: begun as JSON or as an event stream, read again after a lost connection, and cancelled."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from astromesh.api import errors, event_stream
from astromesh.api.agent_names import asked_key
from astromesh.api.bodies import read
from astromesh.api.event_stream import EventStream
from astromesh.api.house import HOUSE
from astromesh.api.replies import REQUEST_ID, reply
from astromesh.errors import AstromeshError, InvalidRequest
from astromesh.runtime.engine import Run
from astromesh.runtime.events import SESSION_ID_CHARACTERS_MAX, RunEvent, RunRequest

RESUMABLE = "X-Astromesh-Resume"  # "true": whoever asks may come back to his stream
_POSITION = re.compile(r"[0-9]{1,9}")


class RunBody(BaseModel):
    """A question to an agent."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, description="What to ask.")
    session_id: str | None = Field(
        None,
        min_length=1,
        max_length=SESSION_ID_CHARACTERS_MAX,
        description="A conversation to go on with. Without it a fresh one, returned.",
    )
    context: dict[str, Any] = Field(default_factory=dict, description="Variables for the agent's prompt templates.")
    stream: bool = Field(False, description="Answer as an event stream; so does Accept: text/event-stream.")


class GuardrailFinding(BaseModel):
    direction: Literal["input", "output"]
    rule: str
    reason: str = Field(description="What was found, without the text of it.")


class RunResult(BaseModel):
    answer: str
    blocked: bool = Field(False, description="A guardrail blocked it; the answer is the rule's message. Absent otherwise.")
    guardrail: GuardrailFinding | None = Field(None, description="The rule that blocked it. Absent otherwise.")
    warnings: list[GuardrailFinding] = Field(default=[], description="Rules with action: warn that found something. Absent otherwise.")
    finish_reason: str = Field(
        description="Why the model stopped: stop, length where max_tokens or a cost_limit cut the answer, or content_filter."
    )
    steps: list[dict[str, Any]]
    usage: dict[str, Any]
    trace: dict[str, Any]
    data: Any
    session_id: str
    node: str = Field(description="The node that made the model's tokens.")
    home: str = Field(description="The node that conducted the run.")
    route: str
    attempts: int
    handoffs: list[dict[str, Any]]


class CancelBegun(BaseModel):
    run_id: str
    status: Literal["cancelling"]


async def run(request: web.Request) -> web.StreamResponse:
    house = request.app[HOUSE]
    body = await read(request, RunBody)
    watched = body.stream or "text/event-stream" in request.headers.get("Accept", "")
    resumable = _resumable(request, watched=watched)
    asked = RunRequest(asked_key(request), body.query, session_id=body.session_id, context=body.context, watched=watched)
    under_way = house.runtime.start(asked, request_id=request[REQUEST_ID])
    if resumable:
        with house.runtime.recent.attend(under_way):
            return await _stream(request, under_way)
    try:
        return await (_stream(request, under_way) if watched else _whole(under_way))
    finally:
        # Whoever leaves for good cancels what was done for him, on every node.
        await under_way.close()


async def events(request: web.Request) -> web.StreamResponse:
    """What a run told, from behind `Last-Event-ID` on; 204, which ends a browser's asking again, where there will be nothing more."""
    runtime, run_id, after = request.app[HOUSE].runtime, request.match_info["id"], _after(request)
    if not runtime.recent.knows(run_id) and (peer := await runtime.elsewhere.find(run_id)) is not None:
        async with aclosing(runtime.elsewhere.follow(peer, run_id, after=after)) as told:
            return await _again(request, told, after=after) if await anext(told) else web.Response(status=204)
    found = runtime.recent.find(run_id)
    if not runtime.recent.follows(found, after):
        return web.Response(status=204)
    with runtime.recent.follow(found, after=after) as following:
        return await _again(request, following, after=after)


async def cancel(request: web.Request) -> web.Response:
    runtime, run_id = request.app[HOUSE].runtime, request.match_info["id"]
    if not runtime.recent.knows(run_id) and (peer := await runtime.elsewhere.find(run_id)) is not None:
        await runtime.elsewhere.cancel(peer, run_id)
    else:
        runtime.recent.cancel(run_id)
    return reply({"run_id": run_id, "status": "cancelling"}, status=202)


async def _again(request: web.Request, events: AsyncIterator[Any], *, after: int) -> web.StreamResponse:
    async with EventStream(request, {}) as out:
        await out.retry()
        await tell(out, events, after=after)
        return await out.end()


async def tell(out: EventStream, events: AsyncIterator[RunEvent], *, after: int = -1) -> None:
    """All of them, and what ended the run as the last, numbered behind them."""
    position = after
    try:
        async for event in events:
            position = event.position
            await out.event(position, event.kind, event.data)
    except AstromeshError as failure:
        await out.event(position + 1, "error", errors.event(failure))


async def _whole(run: Run) -> web.Response:
    async for event in run.events:
        if event.kind == "done":
            return reply(event.data, headers=route_headers(event.data))
    raise AstromeshError("the run ended without a result")


async def _stream(request: web.Request, run: Run) -> web.StreamResponse:
    # The headers name the node, so they wait for the first route; a run that fails before has a status of its own. They do not wait for
    # longer than a connection may be silent: then `route` says it, and `done`.
    first = await run.told.seen(("route", "done"), within_s=event_stream.HEARTBEAT_S)
    async with EventStream(request, route_headers(first.data) if first is not None else {}) as out:
        await tell(out, run.events)
        return await out.end()


def route_headers(data: Mapping[str, Any]) -> dict[str, str]:
    """Who did it, for whoever looks at headers only."""
    return {
        "X-Astromesh-Node": str(data["node"]),
        "X-Astromesh-Home": str(data["home"]),
        "X-Astromesh-Route": str(data["route"]),
        "X-Astromesh-Attempts": str(data["attempts"]),
    }


def _resumable(request: web.Request, *, watched: bool) -> bool:
    said = request.headers.get(RESUMABLE)
    if said not in (None, "true", "false"):
        raise InvalidRequest(f"{RESUMABLE} is {said[:20]!r}", hint="send true, or leave it out", param=RESUMABLE)
    if said == "true" and not watched:
        raise InvalidRequest(f"{RESUMABLE} is for event streams", hint="ask with stream: true, or leave it out", param=RESUMABLE)
    return said == "true"


def _after(request: web.Request) -> int:
    """The position in `Last-Event-ID`, -1 without one."""
    said = request.headers.get("Last-Event-ID", "")
    if said and not _POSITION.fullmatch(said):
        raise InvalidRequest(f"Last-Event-ID is {said[:20]!r}", hint="send the id of an event of that run", param="Last-Event-ID")
    return int(said) if said else -1

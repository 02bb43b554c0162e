"""What an agent remembers of a session: shown, which is also its export, and deleted."""

from __future__ import annotations

from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from astromesh.api.agent_names import asked_key
from astromesh.api.house import HOUSE
from astromesh.api.replies import reply
from astromesh.errors import InvalidRequest
from astromesh.memory.port import TURNS_KEPT_MAX
from astromesh.memory.stored import as_json


class HistoryShown(BaseModel):
    agent: str
    session_id: str
    history: list[dict[str, Any]] = Field(
        description="Messages, oldest first: role, content, ts (seconds since the epoch), turn (an id), tool_calls, tool_call_id."
    )
    limit: int = Field(description="How many turns at most, the newest.")
    summary: str | None = Field(description="What stands in prompts for the turns that were folded into it.")


class HistoryCleared(BaseModel):
    agent: str
    session_id: str
    status: Literal["cleared"]
    turns: int = Field(description="How many there were.")


async def show(request: web.Request) -> web.Response:
    """By the session's home, whichever node is asked."""
    agent, session_id = asked_key(request, variable="agent"), request.match_info["session"]
    limit = _limit(request.query.get("limit"))
    kept = await request.app[HOUSE].runtime.histories.recall(agent, session_id, turns_max=limit)
    history = [{**as_json(message), "ts": turn.at, "turn": turn.id} for turn in kept.turns for message in turn.said]
    summary = kept.summary.text if kept.summary is not None else None
    return reply({**_named(request), "history": history, "limit": limit, "summary": summary})


async def clear(request: web.Request) -> web.Response:
    """A run that is under way in the session keeps its turn when it ends."""
    agent, session_id = asked_key(request, variable="agent"), request.match_info["session"]
    turns = await request.app[HOUSE].runtime.histories.forget(agent, session_id)
    return reply({**_named(request), "status": "cleared", "turns": turns})


def _named(request: web.Request) -> dict[str, str]:
    return {"agent": request.match_info["agent"], "session_id": request.match_info["session"]}


def _limit(said: str | None) -> int:
    if said is None:
        return TURNS_KEPT_MAX
    if not said.isascii() or not said.isdigit() or not 1 <= int(said[:6]) <= TURNS_KEPT_MAX:
        raise InvalidRequest(f"limit={said[:40]} is not a number of turns", hint=f"1 to {TURNS_KEPT_MAX}", param="limit")
    return int(said)

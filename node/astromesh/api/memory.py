"""What an agent remembers of a session: shown, which is also its export, and deleted."""

from __future__ import annotations

from time import time
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from astromesh.api.agent_names import asked_key
from astromesh.api.house import HOUSE
from astromesh.api.replies import reply
from astromesh.errors import InvalidRequest, NothingRemembered, UnknownAgent
from astromesh.memory.port import TURNS_KEPT_MAX, Conversation, ConversationMemory
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
    memory, conversation = _conversation(request)
    limit = _limit(request.query.get("limit"))
    kept = await memory.recall(conversation, now=time(), turns_max=limit)
    history = [{**as_json(message), "ts": turn.at, "turn": turn.id} for turn in kept.turns for message in turn.said]
    summary = kept.summary.text if kept.summary is not None else None
    named = {"agent": conversation.agent, "session_id": conversation.session_id}
    return reply({**named, "history": history, "limit": limit, "summary": summary})


async def clear(request: web.Request) -> web.Response:
    """A run that is under way in the session keeps its turn when it ends."""
    memory, conversation = _conversation(request)
    turns = await memory.forget(conversation)
    return reply({"agent": conversation.agent, "session_id": conversation.session_id, "status": "cleared", "turns": turns})


def _conversation(request: web.Request) -> tuple[ConversationMemory, Conversation]:
    house, name = request.app[HOUSE], asked_key(request, variable="agent")
    agent = house.runtime.agents.get(name) or house.runtime.paused.get(name)
    if agent is None:
        if hosts := house.roster.hosting(name):
            where = ", ".join(house.roster.label(member.name) for member in hosts)
            raise UnknownAgent(
                f"agent {name} is not on {house.node}, but on {where}",
                hint="a history is on the node that conducted the session: ask there",
            )
        raise UnknownAgent(f"no node of this mesh has an agent named {name!r}", hint="astromesh-node agents list shows what there is")
    if agent.memory is None:
        raise NothingRemembered(f"agent {name} remembers nothing", hint="give its document spec.memory.conversational")
    return agent.memory, Conversation(agent.name, request.match_info["session"], agent.namespace)


def _limit(said: str | None) -> int:
    if said is None:
        return TURNS_KEPT_MAX
    if not said.isascii() or not said.isdigit() or not 1 <= int(said[:6]) <= TURNS_KEPT_MAX:
        raise InvalidRequest(f"limit={said[:40]} is not a number of turns", hint=f"1 to {TURNS_KEPT_MAX}", param="limit")
    return int(said)

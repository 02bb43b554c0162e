"""What agents remember of sessions, to be shown and to be forgotten: by the session's home, whichever node is asked.

A question that came over a link is answered here or refused, never passed on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from time import time
from typing import Any

from astromesh.errors import AstromeshError, MalformedBody, NothingRemembered, PeerLost, SessionHomeUnreachable, UnknownAgent
from astromesh.fleet.roster import Roster
from astromesh.memory.port import TURNS_KEPT_MAX, Conversation, ConversationMemory, History
from astromesh.routing.rendezvous import chosen
from astromesh.runtime.agent import Agent
from astromesh.runtime.bodies import from_error, from_history, to_history, to_history_request
from astromesh.runtime.peers import PeerCalls
from astromesh.runtime.session_homes import SessionHomes
from astromesh.telemetry.metrics import Metrics
from maia.drivers.link import IncomingCall
from maia.errors import CallFailed
from maia.view import MemberView

HISTORY = "agent.history"
TIMEOUT_S = 30.0  # sixteen megabytes read from a disk that is busy, and sent over a link that is


class Histories:
    def __init__(
        self,
        *,
        node: str,
        here: Callable[[str], Agent | None],
        homes: SessionHomes,
        roster: Roster,
        peers: PeerCalls,
        metrics: Metrics,
    ) -> None:
        """`here`: an agent of this node by its key, whether it answers or is paused."""
        self._node = node
        self._here = here
        self._homes = homes
        self._roster = roster
        self._peers = peers
        self._metrics = metrics

    async def recall(self, agent: str, session_id: str, *, turns_max: int = TURNS_KEPT_MAX) -> History:
        home = self._home(agent, session_id)
        if home is not None:
            told = await self._asked(home, {"agent": agent, "session_id": session_id, "turns_max": turns_max})
            try:
                return to_history(told)
            except MalformedBody as mistake:
                raise PeerLost(f"{self._roster.label(home.name)} cannot be understood: {mistake.message}", hint=mistake.hint) from mistake
        memory, conversation = self._kept_here(agent, session_id)
        return await memory.recall(conversation, now=time(), turns_max=turns_max)

    async def forget(self, agent: str, session_id: str) -> int:
        """How many turns that were. A run that is under way in the session keeps its turn when it ends."""
        home = self._home(agent, session_id)
        if home is not None:
            told = await self._asked(home, {"agent": agent, "session_id": session_id, "forget": True})
            return sum(int(body.get("forgotten", 0)) for body in told)
        memory, conversation = self._kept_here(agent, session_id)
        return await memory.forget(conversation)

    async def serve(self, call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        """For another node, that takes this one for the session's home."""
        outcome = "cancelled"
        try:
            agent, session_id, turns_max, forget = to_history_request(call.body)
            memory, conversation = self._kept_here(agent, session_id)
            if forget:
                yield {"forgotten": await memory.forget(conversation)}
            else:
                for body in from_history(await memory.recall(conversation, now=time(), turns_max=turns_max)):
                    yield body
            outcome = "ok"
        except AstromeshError as error:
            outcome = error.code
            raise CallFailed(from_error(error), definite=error.definite) from error
        finally:
            self._metrics.served.labels(HISTORY, outcome).inc()

    def _home(self, agent: str, session_id: str) -> MemberView | None:
        """Whom to ask; None: this node, or nobody. Who has the agent knows what there is to say of it, be it paused or without memory."""
        here = self._here(agent)
        home = self._homes.elsewhere(agent, session_id, keeps=None if here is None else here.keeps_sessions)
        if home is not None or here is not None:
            return home
        able = {member.name: member for member, offered in self._roster.holding(agent) if offered.status != "draft"}
        return able[chosen(f"{agent} {session_id}", able)] if able else None

    async def _asked(self, home: MemberView, body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        try:
            told = self._peers.ask_each(home, HISTORY, body, dict, timeout_s=TIMEOUT_S, unreachable=SessionHomeUnreachable)
            async with aclosing(told) as bodies:
                return [reply async for reply in bodies]
        except SessionHomeUnreachable as gone:
            raise self._homes.unreachable(home.name, gone.message) from gone

    def _kept_here(self, name: str, session_id: str) -> tuple[ConversationMemory, Conversation]:
        agent = self._here(name)
        if agent is None:
            if hosts := self._roster.hosting(name):
                where = ", ".join(self._roster.label(member.name) for member in hosts)
                raise UnknownAgent(
                    f"agent {name} is not on {self._node}, but on {where}",
                    hint="a history is on the node that conducted the session: ask there",
                )
            raise UnknownAgent(f"no node of this mesh has an agent named {name!r}", hint="astromesh-node agents list shows what there is")
        if agent.memory is None:
            raise NothingRemembered(f"agent {name} remembers nothing", hint="give its document spec.memory.conversational")
        return agent.memory, Conversation(agent.name, session_id, agent.namespace)

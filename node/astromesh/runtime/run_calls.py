"""Runs that another node was asked for: looked for among the peers, read and cancelled over a link.

A run's id says nothing of where it is, so all living peers are asked whether they know it, at once; then one of them is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from astromesh.errors import AstromeshError, Overloaded, UnknownRun
from astromesh.fleet.roster import Roster
from astromesh.runtime.bodies import from_error, from_run_event, to_run_event
from astromesh.runtime.events import RunEvent
from astromesh.runtime.peers import PeerCalls
from astromesh.runtime.recent_runs import RecentRuns
from astromesh.telemetry.metrics import Metrics
from maia.drivers.link import IncomingCall
from maia.errors import CallFailed
from maia.view import MemberView

FIND = "run.find"
FOLLOW = "run.follow"
CANCEL = "run.cancel"

FIND_S = 2.0  # a peer knows at once; one that does not answer by then is treated as one that does not know
PEERS_ASKED_MAX = 64  # each costs a call, and at first a link
SEARCHES_MAX = 8  # at once: whoever makes ids up shall not keep the links of the mesh busy
FOLLOWED_S = 86_400.0  # as long as a run may last


class RunsElsewhere:
    def __init__(self, *, peers: PeerCalls, roster: Roster) -> None:
        self._peers = peers
        self._roster = roster
        self._searches = 0

    async def find(self, run_id: str) -> MemberView | None:
        """The peer that was asked for that run; None where nobody says so."""
        view = self._roster.view()
        asked = [member for member in (view.peers if view else ()) if member.usable and member.link is not None]
        asked = sorted(asked, key=lambda member: member.name)[:PEERS_ASKED_MAX]
        if self._searches >= SEARCHES_MAX:
            raise Overloaded("this node looks for several runs among its peers already", hint="ask the node that was asked for the run")
        self._searches += 1
        try:
            knows = await asyncio.gather(*(self._knows(member, run_id) for member in asked))
        finally:
            self._searches -= 1
        return next((member for member, known in zip(asked, knows, strict=True) if known), None)

    async def follow(self, member: MemberView, run_id: str, *, after: int) -> AsyncGenerator[bool | RunEvent, None]:
        """Whether anything is still to come, then that. Raises what ended the run."""
        calls = self._peers.call_on(member, FOLLOW, {"run_id": run_id, "after": after}, lambda body: body, timeout_s=FOLLOWED_S)
        async with aclosing(calls) as bodies:
            yield bool((await anext(bodies)).get("follows"))
            async for body in bodies:
                yield to_run_event(body)

    async def cancel(self, member: MemberView, run_id: str) -> None:
        """Raises `UnknownRun` where it is not under way there any more."""
        await self._peers.ask_once(member, CANCEL, {"run_id": run_id}, lambda _: None, timeout_s=FIND_S)

    async def _knows(self, member: MemberView, run_id: str) -> bool:
        try:
            return await self._peers.ask_once(member, FIND, {"run_id": run_id}, lambda body: body.get("knows") is True, timeout_s=FIND_S)
        except AstromeshError:
            return False  # gone, or of a version that has no such calls


class RunCallServing:
    """The handlers of the link door."""

    def __init__(self, recent: RecentRuns, metrics: Metrics) -> None:
        self._recent = recent
        self._metrics = metrics

    async def find(self, call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        self._metrics.served.labels(FIND, "ok").inc()
        yield {"knows": self._recent.knows(str(call.body.get("run_id")))}

    async def follow(self, call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        outcome = "cancelled"
        try:
            after = call.body.get("after")
            run, position = self._recent.find(str(call.body.get("run_id"))), after if isinstance(after, int) else -1
            with self._recent.follow(run, after=position) as events:
                yield {"follows": self._recent.follows(run, position)}
                async for event in events:
                    yield from_run_event(event)
            outcome = "ok"
        except AstromeshError as error:
            outcome = error.code
            raise CallFailed(from_error(error), definite=error.definite) from error
        finally:
            self._metrics.served.labels(FOLLOW, outcome).inc()

    async def cancel(self, call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        outcome = "ok"
        try:
            self._recent.cancel(str(call.body.get("run_id")))
            yield {}
        except UnknownRun as error:
            outcome = error.code
            raise CallFailed(from_error(error), definite=error.definite) from error
        finally:
            self._metrics.served.labels(CANCEL, outcome).inc()

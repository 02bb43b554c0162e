"""Performs what an agent's run asks of other agents: here where they are here, else on a peer that hosts them.

Only the home of a run does this. What a peer performs for it starts nothing by itself: it asks the home (`runtime.served_acts`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from typing import Any, assert_never
from uuid import uuid4

from astromesh.dialogue import Answer, Outcome
from astromesh.effects import Delegate, TakeOver
from astromesh.errors import AstromeshError, CallersMistake, PeerLost
from astromesh.guardrails.rails import Rails, rails_from
from astromesh.runtime.acts import ActAsks, ActBegan, ActEnded, ActFrame, ActReply, ActRequest, Asked, refuse_circles
from astromesh.runtime.agent import Agent
from astromesh.runtime.allowance import Allowance
from astromesh.runtime.course import Used
from astromesh.runtime.events import RunEvent
from astromesh.runtime.guarding import Guarding
from astromesh.runtime.peers import PeerCalls
from astromesh.runtime.performing import perform_act
from astromesh.runtime.stage import LAST_WORD_S, Place, Services
from maia.view import MemberView

ASKS_MAX = 64  # of one act at once: four times what its agent may call side by side
REPLY_S = 10.0  # for a small body over an open link; who does not take it in that time has other troubles


class Conductor:
    """Of one node. Each of its calls is told in which run, and where in it."""

    def __init__(
        self,
        *,
        here: Callable[[str], Agent | None],
        hosts: Callable[[str], tuple[MemberView, ...]],
        nobody: Callable[[str], AstromeshError],
        asking: Callable[[MemberView], AbstractContextManager[None]],
        label: Callable[[str], str],
        peers: PeerCalls,
        services: Services,
    ) -> None:
        """`here`: an agent of this node. `hosts`: who else has it, in the order in which to ask. `nobody`: why nobody can."""
        self._here = here
        self._hosts = hosts
        self._nobody = nobody
        self.asking = asking
        self.label = label
        self.peers = peers
        self._services = services

    async def delegate(self, effect: Delegate, place: Place, guarding: Guarding) -> Answer:
        """A block there is an answer for whoever asked, as what a tool says is."""
        refuse_circles(place.path, effect.agent)
        outcome, found = await self._act(effect, replace(place, path=(*place.path, effect.agent)))
        guarding.join_warnings(found)
        if not isinstance(outcome, Answer):
            raise PeerLost(f"agent {effect.agent} handed on a task that it had to answer", hint="do both nodes run the same version?")
        return outcome

    async def take_over(self, effect: TakeOver, place: Place, guarding: Guarding) -> Outcome:
        """Who handed over waits for nothing any more, so the path begins anew."""
        outcome, found = await self._act(effect, replace(place, path=(effect.agent,)))
        guarding.join(found)
        return outcome

    async def begins(self, asked: Asked, place: Place, *, node: str) -> None:
        """It is known who performs it, and nothing of it was told yet."""
        assert place.span is not None, "an effect has a span"
        place.span.attributes["node"] = node
        if isinstance(asked, Delegate):
            await place.course.events.tell("status", {"state": "delegated", "agent": asked.agent, "node": node})
            return
        handoff = {"from": asked.by, "to": asked.agent, "node": node}
        place.span.attributes.update(handoff)
        place.course.tally.handoffs.append(handoff)
        await place.course.events.tell("handoff", handoff)

    async def _act(self, asked: Asked, place: Place) -> tuple[Outcome, Guarding]:
        assert place.span is not None, "an effect has a span"
        place.span.attributes["to"] = asked.agent
        agent = self._here(asked.agent)
        if agent is not None:
            await self.begins(asked, place, node=place.course.node)
            speaks = isinstance(asked, TakeOver)
            return await perform_act(agent, asked, place, services=self._services, company=self, speaks=speaks)
        failure: AstromeshError | None = None
        for host in self._hosts(asked.agent):
            elsewhere = _Elsewhere(self, host, asked, place)
            try:
                return await elsewhere.perform()
            except AstromeshError as error:
                if elsewhere.began or not error.definite or isinstance(error, CallersMistake):
                    raise
                failure = error
        raise failure or self._nobody(asked.agent)


class _Elsewhere:
    """One act, performed by a peer: its events become the run's own, what it uses counts here, and what it asks for is done here."""

    def __init__(self, conductor: Conductor, host: MemberView, asked: Asked, place: Place) -> None:
        self.began = False
        self._conductor = conductor
        self._host = host
        self._asked = asked
        self._place = place
        self._act_id = uuid4().hex
        self._guarding = Guarding(Rails())
        self._allowance = Allowance(self._guarding, within=place.within)
        self._replying: set[asyncio.Task[None]] = set()  # to what it asks
        self._ended: ActEnded | None = None

    async def perform(self) -> tuple[Outcome, Guarding]:
        conductor, course = self._conductor, self._place.course
        label = conductor.label(self._host.name)
        with course.span("peer.call", under=self._place.span, node=label) as span, conductor.asking(self._host):
            at = replace(self._place, span=span, within=self._allowance)
            try:
                async with asyncio.TaskGroup() as asked_for:
                    calls = conductor.peers.act_on(self._host, self._request(), timeout_s=course.remaining_s + LAST_WORD_S)
                    async with aclosing(calls) as frames:
                        async for frame in frames:
                            await self._take(frame, at, asked_for, label=label)
                    for task in self._replying:
                        task.cancel()  # it is over, by its own limit perhaps, and waits for no answer any more
            except BaseExceptionGroup as several:
                raise _first(several) from several
            if self._ended is None:
                raise PeerLost(f"{label} ended the act of agent {self._asked.agent} without a word of what came of it", hint="ask again")
            if isinstance(self._ended.outcome, AstromeshError):
                raise self._ended.outcome
            return self._ended.outcome, self._guarding

    def _request(self) -> ActRequest:
        place, course = self._place, self._place.course
        return ActRequest(
            act=self._asked,
            act_id=self._act_id,
            run_id=course.trace.id,
            home=course.home,
            session_id=course.session_id,
            path=place.path,
            watched=course.events.watched,
            budgets=self._allowance.budgets(),
            rules=tuple(rule for rails in place.callers for rule in rails.written),
        )

    async def _take(self, frame: ActFrame, at: Place, asked_for: asyncio.TaskGroup, *, label: str) -> None:
        course = at.course
        match frame:
            case ActBegan():
                self.began = True
                assert at.span is not None
                at.span.attributes["pid"] = frame.pid
                await self._conductor.begins(self._asked, self._place, node=label)
            case Used():
                self._allowance.use(frame.usage.tokens_in + frame.usage.tokens_out)
                await course.used(frame)
            case ActAsks():
                if len(self._replying) >= ASKS_MAX:
                    raise PeerLost(f"{label} asks for more than {ASKS_MAX} agents at once", hint="do both nodes run the same version?")
                name = f"what {self._asked.agent} on {label} asks of {frame.asked.agent}"
                task = asked_for.create_task(self._reply(frame, at), name=name)
                self._replying.add(task)
                task.add_done_callback(self._replying.discard)
            case ActEnded():
                self._end(frame, at)
            case RunEvent():
                await self._retell(frame)
            case _:
                assert_never(frame)

    async def _retell(self, event: RunEvent) -> None:
        """An event of the act as one of the run's own."""
        course, seen = self._place.course, isinstance(self._asked, TakeOver)
        match event.kind:
            case "token":
                await course.show(str(event.data.get("content", "")) if seen else "")
                return
            case "route":
                course.tally.routed(event.data, seen=seen)
            case "step":
                course.tally.steps.append(dict(event.data))
        await course.events.tell(event.kind, event.data)

    def _end(self, ended: ActEnded, at: Place) -> None:
        course = at.course
        assert at.span is not None
        course.trace.graft(ended.spans, under=at.span, dropped=ended.spans_dropped)
        self._guarding.block = None if ended.block is None else dict(ended.block)
        self._guarding.warnings.extend(dict(warning) for warning in ended.warnings)
        if isinstance(self._asked, TakeOver):
            course.tally.finish_reason = ended.finish_reason
        self._ended = ended

    async def _reply(self, asks: ActAsks, at: Place) -> None:
        own = Allowance(Guarding(Rails(budgets=asks.budgets)), within=at.within)
        callers = (rails_from(asks.rules), *at.callers)
        outcome: Outcome | AstromeshError
        with at.course.span("delegate", under=at.span, agent=self._asked.agent) as span:
            try:
                outcome = await self._conductor.delegate(asks.asked, replace(at, span=span, within=own, callers=callers), self._guarding)
            except AstromeshError as failure:
                span.attributes["error"] = failure.code
                outcome = failure
        await self._conductor.peers.reply_to(self._host, ActReply(self._act_id, asks.number, outcome, own.tokens), timeout_s=REPLY_S)


def _first(several: BaseExceptionGroup[Any]) -> BaseException:
    """What ended an act: the error that a script may catch, if there is one."""
    errors = [error for error in several.exceptions if isinstance(error, AstromeshError)]
    return errors[0] if errors else several.exceptions[0]

"""Acts that this node performs for runs of other homes. They start no other agent: what they ask of one goes to the home, which replies.

So one node has client, session and budgets of a run, no call nests in another, and this node may die without taking the run along.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from time import perf_counter, time
from typing import Any

from astromesh.dialogue import Answer, Outcome
from astromesh.effects import Delegate, TakeOver
from astromesh.errors import AstromeshError, DelegationRefused, Overloaded
from astromesh.guardrails.rails import Rails, rails_from
from astromesh.runtime.act_bodies import from_act_asks, from_act_began, from_act_ended, from_used, to_act_reply
from astromesh.runtime.acts import ActAsks, ActBegan, ActEnded, ActReply, ActRequest, refuse_circles
from astromesh.runtime.agent import Agent
from astromesh.runtime.allowance import Allowance
from astromesh.runtime.course import Course, Used
from astromesh.runtime.events import RunEvents
from astromesh.runtime.guarding import Guarding
from astromesh.runtime.performing import perform_act
from astromesh.runtime.stage import Place, Services
from astromesh.telemetry.traces import Trace

REPLIES_AWAITED_MAX = 4096  # of all acts together; each is one future


@dataclass(frozen=True, slots=True)
class _Key:
    """One question to a home. The caller is part of it: nobody replies for another node."""

    home: str
    act_id: str
    number: int


class ServedActs:
    def __init__(self, *, node: str, services: Services) -> None:
        self._node = node
        self._services = services
        self._awaited: dict[_Key, asyncio.Future[ActReply]] = {}

    async def perform(self, agent: Agent, request: ActRequest, events: RunEvents, *, caller: str, timeout_s: float) -> None:
        """Tells everything by `events`, its outcome last. `caller`: the wire name of the home."""
        trace = Trace(request.run_id, request.act.agent, time(), self._node)
        began_at = perf_counter()
        course = _ServedCourse(
            events, trace, home=request.home, session_id=request.session_id, began_at=began_at, deadline=began_at + timeout_s
        )
        await events.tell(*from_act_began(ActBegan(os.getpid())))
        guarding, callers = Guarding(agent.rails), Guarding(Rails(budgets=request.budgets))
        called = Allowance(callers)
        place = Place(course, request.path, within=called, callers=(rails_from(request.rules),))
        home = _Home(self, request, events, caller, called=called)
        outcome: Outcome | AstromeshError
        try:
            refuse_circles(request.path[:-1], request.act.agent)
            outcome, guarding = await perform_act(
                agent, request.act, place, services=self._services, company=home, speaks=isinstance(request.act, TakeOver)
            )
        except AstromeshError as error:
            outcome = error
        ended = ActEnded(
            outcome=outcome,
            spans=tuple(trace.spans),
            spans_dropped=trace.spans_dropped,
            block=guarding.block or callers.block,
            warnings=tuple(guarding.warnings),
            finish_reason=course.tally.finish_reason,
        )
        await events.tell(*from_act_ended(ended))

    def take_reply(self, body: Mapping[str, Any], caller: str) -> None:
        """What the home has found out. Nobody may wait for it any more; then it is nothing."""
        reply = to_act_reply(body)
        awaited = self._awaited.get(_Key(caller, reply.act_id, reply.number))
        if awaited is not None and not awaited.done():
            awaited.set_result(reply)

    @property
    def awaited(self) -> int:
        return len(self._awaited)

    async def ask(self, key: _Key, asks: ActAsks, events: RunEvents) -> ActReply:
        if len(self._awaited) >= REPLIES_AWAITED_MAX:
            raise Overloaded(f"{REPLIES_AWAITED_MAX} questions to other nodes are open on {self._node} already", hint="ask again soon")
        awaited: asyncio.Future[ActReply] = asyncio.get_running_loop().create_future()
        self._awaited[key] = awaited
        try:
            await events.tell(*from_act_asks(asks))
            return await awaited
        finally:
            del self._awaited[key]


class _ServedCourse(Course):
    """What is used here counts there."""

    async def used(self, used: Used) -> None:
        self.tally.add(used)
        await self.events.tell(*from_used(used))


class _Home:
    """The company of an act: whoever conducts its run."""

    def __init__(self, acts: ServedActs, request: ActRequest, events: RunEvents, caller: str, *, called: Allowance) -> None:
        """`called`: under the limits that the home brought along."""
        self._acts = acts
        self._request = request
        self._events = events
        self._caller = caller
        self._called = called
        self._numbers = count()

    async def delegate(self, effect: Delegate, place: Place, guarding: Guarding) -> Answer:
        """What its guards find is told to the home, which has it done."""
        number = next(self._numbers)
        # The last of its callers are those that the home itself has named.
        rules = tuple(rule for rails in place.callers[:-1] for rule in rails.written)
        budgets = () if place.within is None else place.within.budgets(below=self._called)
        asks = ActAsks(number, effect, budgets=budgets, rules=rules)
        reply = await self._acts.ask(_Key(self._caller, self._request.act_id, number), asks, self._events)
        if place.within is not None:
            place.within.use(reply.tokens)
        if isinstance(reply.outcome, Answer):
            return reply.outcome
        raise reply.outcome if isinstance(reply.outcome, AstromeshError) else DelegationRefused("the home replied with a hand-off", hint="")

    async def take_over(self, effect: TakeOver, place: Place, guarding: Guarding) -> Outcome:
        """No script that is performed here asks for it: a hand-off is an act's outcome."""
        raise DelegationRefused(f"agent {effect.agent} takes over at the home of the run only", hint="update the node that hosts it")

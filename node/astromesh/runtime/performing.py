"""Performs an act that another agent's run asks for, on the node that hosts the agent.

It runs with that agent's own prompt, model, tools and guardrails, remembers nothing, and has what is left: of the run's time and of its own
`timeout_seconds` the less, and of tokens what every `cost_limit` on the way to it leaves.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from astromesh.dialogue import Outcome
from astromesh.effects import Delegate, Script
from astromesh.errors import DeadlineExceeded
from astromesh.orchestration.plan import Part
from astromesh.orchestration.run import delegated, taken_over
from astromesh.runtime.acts import Asked
from astromesh.runtime.agent import Agent
from astromesh.runtime.course import Course
from astromesh.runtime.guarding import Guarding
from astromesh.runtime.stage import Company, Place, Services, Stage


async def perform_act(
    agent: Agent, asked: Asked, place: Place, *, services: Services, company: Company, speaks: bool
) -> tuple[Outcome, Guarding]:
    """The outcome, and what the agent's guards found."""
    who = {"agent": asked.agent}
    with place.course.span("agent.run", under=place.span, pid=os.getpid(), **who) as span:
        stage = Stage(agent, replace(place, span=span), services=services, company=company, speaks=speaks, who=who)
        try:
            async with _own_time(agent, place.course):
                outcome: Outcome = await stage.perform(_script(agent.part, asked))
                # What its tools said is kept by the agent that was asked, whose rules are others. Of a task nobody wants to know it.
                work = () if isinstance(asked, Delegate) else await stage.guarding.handed(outcome.work)
                return replace(outcome, work=work), stage.guarding
        finally:
            stage.account()


def _script(part: Part, asked: Asked) -> Script[Any]:
    return delegated(part, asked.task) if isinstance(asked, Delegate) else taken_over(part, asked)


@asynccontextmanager
async def _own_time(agent: Agent, course: Course) -> AsyncIterator[None]:
    """The run's own end is seen to where the run is conducted."""
    if agent.timeout_s >= course.remaining_s:
        yield
        return
    try:
        async with asyncio.timeout(agent.timeout_s):
            yield
    except TimeoutError:
        raise DeadlineExceeded(
            f"agent {agent.name} did not finish its part within {agent.timeout_s:g} s",
            hint=f"raise spec.orchestration.timeout_seconds of agent {agent.name}, or give it a faster model",
            details={"error": "timeout", "agent": agent.name, "timeout_seconds": agent.timeout_s, "steps": course.tally.steps},
        ) from None

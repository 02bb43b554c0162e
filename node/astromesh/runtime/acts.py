"""An act of an agent that another agent's run asks for: what is asked, and what is told of it where it is performed by another node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from astromesh.dialogue import FinishReason, Outcome
from astromesh.effects import Delegate, TakeOver
from astromesh.errors import AstromeshError, DelegationRefused
from astromesh.guardrails.budget import Budget
from astromesh.runtime.course import Used
from astromesh.runtime.events import RunEvent
from astromesh.specs.agent import Guardrail
from astromesh.telemetry.traces import Span

PATH_MAX = 5  # agents that wait for each other: who needs more has a circle that nobody sees through

Asked = Delegate | TakeOver


@dataclass(frozen=True, slots=True)
class ActRequest:
    """What the home of a run asks of a node that hosts the agent. The last of `path` is that agent; the others wait for it."""

    act: Asked
    act_id: str
    run_id: str
    home: str  # its label
    session_id: str
    path: tuple[str, ...]
    watched: bool  # somebody wants the tokens as they come
    budgets: tuple[Budget, ...] = ()
    rules: tuple[Guardrail, ...] = ()  # of those for whom the agent acts: what is told of it is theirs


@dataclass(frozen=True, slots=True)
class ActBegan:
    """The first that is told of an act: from now on it may have happened."""

    pid: int


@dataclass(frozen=True, slots=True)
class ActAsks:
    """An agent there asks for another one's answer. Who conducts the run sees to it, and replies under that number.

    `budgets`: what is left of the asker's own limits; those of its callers are known at home.
    """

    number: int
    asked: Delegate
    budgets: tuple[Budget, ...] = ()
    rules: tuple[Guardrail, ...] = ()  # of the agents there that ask


@dataclass(frozen=True, slots=True)
class ActEnded:
    """The last that is told of an act, however it ended."""

    outcome: Outcome | AstromeshError
    spans: tuple[Span, ...] = ()
    spans_dropped: int = 0
    block: Mapping[str, str] | None = None
    warnings: tuple[Mapping[str, str], ...] = ()
    finish_reason: FinishReason = "stop"


@dataclass(frozen=True, slots=True)
class ActReply:
    """What came of what an act on another node asked for, and what that took."""

    act_id: str
    number: int
    outcome: Outcome | AstromeshError
    tokens: int


ActFrame = ActBegan | ActAsks | ActEnded | Used | RunEvent


def refuse_circles(path: tuple[str, ...], agent: str) -> None:
    """Raises `DelegationRefused` where the agent would wait for itself, or too many wait already."""
    way = " → ".join((*path, agent))
    if agent in path:
        raise DelegationRefused(
            f"agent {path[-1]} asks {agent}, which waits for its answer: {way}",
            hint=f"take {agent} out of the workers and tools of {path[-1]}, or let it hand off instead",
        )
    if len(path) >= PATH_MAX:
        raise DelegationRefused(
            f"{len(path)} agents wait for each other already: {way}", hint="let the first one ask the last one itself, or hand off"
        )

"""An agent's part of a run: the pattern that its document names. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from astromesh.dialogue import Answer, Outcome, Transcript
from astromesh.effects import Say, Script
from astromesh.orchestration.decision import Stopped
from astromesh.orchestration.opening import Variables
from astromesh.orchestration.patterns.parallel_fan_out import parallel_fan_out
from astromesh.orchestration.patterns.pipeline import pipeline
from astromesh.orchestration.patterns.plan_and_execute import plan_and_execute
from astromesh.orchestration.patterns.react import last_step, react
from astromesh.orchestration.patterns.supervisor import supervisor
from astromesh.orchestration.patterns.swarm import swarm
from astromesh.orchestration.patterns.team import team
from astromesh.orchestration.plan import Part
from astromesh.orchestration.shaped import reread, shaped


def act(part: Part, opening: Transcript, variables: Variables, *, may_hand_off: bool, handed_by: str = "") -> Script[Outcome]:
    """From an opening to an answer, or to a hand-off where that is allowed. `handed_by`: who went on with the conversation before."""
    try:
        outcome = yield from _by_pattern(part, opening, variables, may_hand_off=may_hand_off, handed_by=handed_by)
        if part.output is None or not isinstance(outcome, Answer):
            return outcome
        text, data = yield from shaped(part, part.output, opening, outcome.text)
    except Stopped as stopped:
        text = yield from Say(str(stopped))
        yield from last_step(text)
        return Answer(text, by=part.agent)
    # Nothing was shown yet: an answer that has to be mended could not have been taken back.
    shown = yield from Say(text)
    yield from last_step(shown)
    return replace(outcome, text=shown, data=data if shown == text else reread(shown, part.output))


def _by_pattern(part: Part, opening: Transcript, variables: Variables, *, may_hand_off: bool, handed_by: str) -> Script[Outcome]:
    match part.pattern:
        case "react":
            return (yield from react(part, opening))
        case "swarm":
            return (yield from swarm(part, opening, may_hand_off=may_hand_off, handed_by=handed_by))
        case "supervisor":
            return (yield from supervisor(part, opening, variables))
        case "pipeline":
            return (yield from pipeline(part, opening, variables))
        case "plan_and_execute":
            return (yield from plan_and_execute(part, opening))
        case "parallel_fan_out":
            return (yield from parallel_fan_out(part, opening, variables))
        case "team":
            return (yield from team(part, opening, variables))
        case _:
            assert_never(part.pattern)

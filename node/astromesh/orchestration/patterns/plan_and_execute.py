"""A plan first, then its steps, then an answer out of their results. Pure.

Wang et al., "Plan-and-Solve Prompting", 2023. The plan says which step needs which, and what does not is done side
by side, as in Kim et al., "An LLM Compiler for Parallel Function Calling", 2024. Where a step fails, what is left is planned anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from astromesh.dialogue import Answer, Message, Transcript
from astromesh.effects import Script, Together, Work
from astromesh.errors import AstromeshError
from astromesh.orchestration import members
from astromesh.orchestration.decision import PLAN_TOKENS_MAX, Misfit, bounded_text, decided, mapping, text_of, told
from astromesh.orchestration.opening import asked, question_of, system_of
from astromesh.orchestration.patterns.react import react
from astromesh.orchestration.plan import Part

STEPS_MAX = 32  # of one plan: a longer one is a list of everything that comes to mind
PLANS_MAX = 3  # of one run: what failed under three plans fails under a fourth
ID_CHARACTERS_MAX = 40

_PLAN = """\
---
You do not answer yet. Make a plan: at most {most} steps that together bring what the answer needs. Write JSON: "steps" is a list, each \
with "id" (a short name), "task" (what to do, complete in itself), and "after" (the ids of the steps whose results it needs, often none). \
For example: {example}"""
# Without it, SmolLM2 135M made 2 plans of 6 that can be carried out; with it, 6. It likes to copy one, so this serves any question.
_EXAMPLE = (
    '{"steps": [{"id": "facts", "task": "Write down what is known about it.", "after": []}, '
    '{"id": "check", "task": "Look for mistakes in the facts.", "after": ["facts"]}]}'
)
_REPLAN = """\
---
Done so far:

{results}

Some steps failed. Plan what is left to do, in at most {most} new steps; "after" may also name steps that are done."""
_STEP = "{task}\n\nIt is a part of the work on this question: {question}"
_STEP_AFTER = "{step}\n\nWhat is known already:\n\n{results}"
_SYNTHESIS = "---\nThis was worked out for you:\n\n{results}\n\nWrite the answer for the user."


@dataclass(frozen=True, slots=True)
class Step:
    id: str
    task: str
    after: tuple[str, ...]


Done = dict[str, tuple[Step, members.Reply]]
"""What came of the steps, by their ids, in the order in which they were done."""


def plan_and_execute(part: Part, opening: Transcript) -> Script[Answer]:
    done: Done = {}
    left = min(part.turns, STEPS_MAX)
    for number in range(1, PLANS_MAX + 1):
        steps = yield from _planned(part, opening, done, steps_max=left)
        left -= yield from _carried_out(steps, done, opening, to_the_end=number == PLANS_MAX)
        failures = _failures(done)
        if left < 1 or not any(step.id in failures for step in steps):
            break
    if len(_failures(done)) == len(done):
        raise members.all_failed(part, list(done), [reply for _, reply in done.values()])
    return (yield from react(part, asked(opening, _SYNTHESIS.format(results=_results(done))), role="synthesizer"))


def _carried_out(steps: tuple[Step, ...], done: Done, opening: Transcript, *, to_the_end: bool) -> Script[int]:
    """Wave after wave, until one has a failure: what is left is planned anew. `to_the_end`: what can be done still is.

    How many were done.
    """
    waiting = list(steps)
    while waiting:
        failures = _failures(done)
        wave = [step for step in waiting if all(need in done and need not in failures for need in step.after)][: members.AT_ONCE_MAX]
        if not wave:
            break
        replies = yield from Together(tuple(_order(step, done, opening) for step in wave))
        for step, reply in zip(wave, replies, strict=True):
            done[step.id] = (step, reply)
            waiting.remove(step)
            yield from told(action=f"step {step.id}", given={"task": step.task, "after": list(step.after)}, seen=members.said(reply))
        if not to_the_end and any(isinstance(reply, AstromeshError) for reply in replies):
            break
    return len(steps) - len(waiting)


def _order(step: Step, done: Done, opening: Transcript) -> Work:
    text = _STEP.format(task=step.task, question=question_of(opening))
    if step.after:
        text = _STEP_AFTER.format(step=text, results=_results({need: done[need] for need in step.after}))
    return Work((*system_of(opening), Message("user", text)), role="worker", label=step.id)


def _planned(part: Part, opening: Transcript, done: Done, *, steps_max: int) -> Script[tuple[Step, ...]]:
    settled = [id_ for id_ in done if id_ not in _failures(done)]
    request = _REPLAN.format(results=_results(done), most=steps_max) if done else _PLAN.format(most=steps_max, example=_EXAMPLE)
    steps, _ = yield from decided(
        part,
        asked(opening, request),
        _shape(steps_max),
        lambda value: read_plan(value, steps_max=steps_max, settled=settled),
        what="a plan",
        role="planner",
        tokens_max=PLAN_TOKENS_MAX,
    )
    plan = [{"id": step.id, "task": step.task, "after": list(step.after)} for step in steps]
    yield from told(action="plan anew" if done else "plan", given={"steps": plan})
    return steps


def _shape(steps_max: int) -> dict[str, Any]:
    step = {
        "type": "object",
        "properties": {
            "id": bounded_text(ID_CHARACTERS_MAX),
            "task": bounded_text(members.TASK_CHARACTERS_MAX),
            "after": {"type": "array", "items": bounded_text(ID_CHARACTERS_MAX), "maxItems": steps_max},
        },
        "required": ["id", "task", "after"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"steps": {"type": "array", "items": step, "minItems": 1, "maxItems": steps_max}},
        "required": ["steps"],
        "additionalProperties": False,
    }


def read_plan(value: Any, *, steps_max: int, settled: Sequence[str] = ()) -> tuple[Step, ...]:
    """Raises `Misfit` unless its steps can be done in some order. `settled`: what is done and may be needed, and not done again."""
    wanted = mapping(value).get("steps")
    if not isinstance(wanted, list) or not wanted:
        raise Misfit('there are no "steps"')
    if len(wanted) > steps_max:
        raise Misfit(f"there are {len(wanted)} steps, and {steps_max} are possible")
    steps: dict[str, Step] = {}
    for number, one in enumerate(wanted, start=1):
        step = _step(mapping(one), number)
        if step.id in steps or step.id in settled:
            raise Misfit(f"step {number} has the id of another one")
        steps[step.id] = step
    for number, step in enumerate(steps.values(), start=1):
        if not all(need in steps or need in settled for need in step.after):
            raise Misfit(f'step {number} has an id in "after" that no step has')
    reached = set(settled)
    while ready := [step for step in steps.values() if step.id not in reached and all(need in reached for need in step.after)]:
        reached.update(step.id for step in ready)
    if stuck := [number for number, step in enumerate(steps.values(), start=1) if step.id not in reached]:
        raise Misfit(f"steps {', '.join(map(str, stuck))} wait for each other")
    return tuple(steps.values())


def _step(said: Mapping[str, Any], number: int) -> Step:
    id_, task, after = said.get("id"), text_of(said, "task"), said.get("after")
    # Models like to number their steps, whatever they were told.
    id_ = str(id_) if isinstance(id_, int) and not isinstance(id_, bool) else text_of(said, "id")
    if not 0 < len(id_) <= ID_CHARACTERS_MAX:
        raise Misfit(f'step {number} has no "id" of at most {ID_CHARACTERS_MAX} characters')
    if not task:
        raise Misfit(f'step {number} has no "task"')
    needs = [] if after is None else after
    if not isinstance(needs, list) or not all(isinstance(need, str | int) for need in needs):
        raise Misfit(f'"after" of step {number} is not a list of ids')
    return Step(id_, task, tuple(dict.fromkeys(str(need).strip() for need in needs)))


def _failures(done: Done) -> list[str]:
    return [id_ for id_, (_, reply) in done.items() if isinstance(reply, AstromeshError)]


def _results(done: Done) -> str:
    return "\n\n".join(f"{id_} ({step.task}):\n{members.said(reply)}" for id_, (step, reply) in done.items())

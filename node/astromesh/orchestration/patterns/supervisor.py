"""One agent that gives tasks to others, judges what they bring, and writes the answer itself. Pure.

It decides under a schema, so that small models do, too; independent tasks are given side by side. One that never concludes is made to when
its turns are used up: what its workers found is worth an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from astromesh.dialogue import Answer, Message, Transcript
from astromesh.effects import Script, Together
from astromesh.orchestration import members
from astromesh.orchestration.decision import PLAN_TOKENS_MAX, Misfit, bounded_text, decided, mapping, text_of, told
from astromesh.orchestration.opening import Variables, asked
from astromesh.orchestration.patterns.react import react
from astromesh.orchestration.plan import Part

ROLE = "supervisor"
DELEGATIONS_MAX = 4  # in one decision: what comes back has to be judged

_WORKERS = """\
---
You do not answer yet. You give tasks to workers, read what they bring, and conclude when it is enough:
{roster}
Write JSON. "judgement": what the work so far is worth, in one sentence. "next": "delegate" or "conclude". "delegations": with "delegate", \
up to {most} tasks that do not need each other; a worker knows nothing but its task, so say in it all that matters."""
_BROUGHT = "{work}\n---\nDecide again: delegate, or conclude?"
_CONCLUDE = "---\nNow write the answer for the user, as text."


@dataclass(frozen=True, slots=True)
class Decision:
    judgement: str
    delegations: tuple[tuple[str, str], ...]  # worker and task; none: conclude


def supervisor(part: Part, opening: Transcript, variables: Variables) -> Script[Answer]:
    workers = {worker.name: worker for worker in part.workers}
    transcript = asked(opening, _WORKERS.format(roster=members.roster(part.workers), most=DELEGATIONS_MAX))
    for turn in range(1, part.turns + 1):
        decision, text = yield from decided(
            part,
            transcript,
            _shape(list(workers)),
            lambda value: _read(value, list(workers)),
            what="a decision",
            role=ROLE,
            tokens_max=PLAN_TOKENS_MAX,
        )
        transcript = (*transcript, Message("assistant", text))
        if not decision.delegations:
            yield from told(decision.judgement, action="conclude")
            break
        orders = [members.order(workers[name], task, opening=opening, variables=variables) for name, task in decision.delegations]
        replies = yield from Together(tuple(orders))
        brought = []
        for (name, task), reply in zip(decision.delegations, replies, strict=True):
            yield from told(decision.judgement, action="delegate", given={"worker": name, "task": task}, seen=members.said(reply))
            brought.append(f"{name}, asked: {task}\n{members.said(reply)}")
        work = "\n\n".join(brought)
        if turn == part.turns:
            yield from told(f"{part.turns} decisions are as many as it has: it concludes", action="conclude")
            transcript = (*transcript, Message("user", work))
        else:
            transcript = (*transcript, Message("user", _BROUGHT.format(work=work)))
    return (yield from react(part, asked(transcript, _CONCLUDE), role=ROLE))


def _shape(names: list[str]) -> dict[str, Any]:
    delegation = {
        "type": "object",
        "properties": {"worker": {"type": "string", "enum": names}, "task": bounded_text(members.TASK_CHARACTERS_MAX)},
        "required": ["worker", "task"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "judgement": bounded_text(200),
            "next": {"type": "string", "enum": ["delegate", "conclude"]},
            "delegations": {"type": "array", "items": delegation, "maxItems": DELEGATIONS_MAX},
        },
        "required": ["judgement", "next", "delegations"],
        "additionalProperties": False,
    }


def _read(value: Any, names: list[str]) -> Decision:
    said = mapping(value)
    judgement = text_of(said, "judgement")
    if said.get("next") == "conclude":
        return Decision(judgement, ())
    if said.get("next") != "delegate":
        raise Misfit('"next" is neither "delegate" nor "conclude"')
    wanted = said.get("delegations")
    if not isinstance(wanted, list) or not wanted:
        raise Misfit('"next" is "delegate", and there is nothing in "delegations"')
    if len(wanted) > DELEGATIONS_MAX:
        raise Misfit(f"it delegates {len(wanted)} tasks at once, and {DELEGATIONS_MAX} are possible")
    delegations = []
    for number, one in enumerate(wanted, start=1):
        worker, task = text_of(mapping(one), "worker"), text_of(one, "task")
        if worker not in names:
            raise Misfit(f"delegation {number} names no worker; there are: {', '.join(names)}")
        if not task:
            raise Misfit(f"delegation {number} has no task")
        delegations.append((worker, task))
    return Decision(judgement, tuple(delegations))

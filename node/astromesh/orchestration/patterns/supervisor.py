"""One agent that gives tasks to others, judges what they bring, and writes the answer itself. Pure.

It decides under a schema, so that small models do, too; independent tasks are given side by side. One that never concludes is made to when
its turns are used up, or when it asks again for nothing but what it was brought: what its workers found is worth an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from astromesh.dialogue import Answer, Message, Transcript
from astromesh.effects import Script, Together
from astromesh.errors import AstromeshError
from astromesh.orchestration import members
from astromesh.orchestration.decision import PLAN_TOKENS_MAX, Misfit, bounded_text, decided, mapping, text_of, told
from astromesh.orchestration.opening import Variables, asked
from astromesh.orchestration.patterns.react import react
from astromesh.orchestration.plan import Part

ROLE = "supervisor"
DELEGATIONS_MAX = 4  # in one decision: what comes back has to be judged

# Without a word for "delegate" or "conclude" beside the list: asked for both, SmolLM2 135M wrote "delegate" and an empty list in 5 of 12
# first decisions, and in all 12 with the word in front.
_WORKERS = """\
---
You do not answer yet. You give tasks to workers, read what they bring, and conclude when it is enough:
{roster}
Write JSON. "judgement": what the work so far is worth, in one sentence. "delegations": up to {most} tasks that do not need each other, \
or none to conclude; a worker knows nothing but its task, so say in it all that matters."""
_BROUGHT = "{work}\n---\nDecide again: more tasks, or none to conclude?"
_CONCLUDE = "---\nNow write the answer for the user, as text."


@dataclass(frozen=True, slots=True)
class Decision:
    judgement: str
    delegations: tuple[tuple[str, str], ...]  # worker and task; none: conclude


def supervisor(part: Part, opening: Transcript, variables: Variables) -> Script[Answer]:
    workers = {worker.name: worker for worker in part.workers}
    settled: set[tuple[str, str]] = set()
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
        delegations = [delegation for delegation in decision.delegations if delegation not in settled]
        if not delegations:
            yield from told("it asks for what it was brought already: it concludes", action="conclude")
            break
        orders = [members.order(workers[name], task, opening=opening, variables=variables) for name, task in delegations]
        replies = yield from Together(tuple(orders))
        settled.update(given for given, reply in zip(delegations, replies, strict=True) if not isinstance(reply, AstromeshError))
        brought = []
        for (name, task), reply in zip(delegations, replies, strict=True):
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
            "delegations": {"type": "array", "items": delegation, "maxItems": DELEGATIONS_MAX},
        },
        "required": ["judgement", "delegations"],
        "additionalProperties": False,
    }


def _read(value: Any, names: list[str]) -> Decision:
    said = mapping(value)
    wanted = said.get("delegations")
    if not isinstance(wanted, list):
        raise Misfit('"delegations" is not a list')
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
    # Small models like to say the same thing again.
    return Decision(text_of(said, "judgement"), tuple(dict.fromkeys(delegations)))

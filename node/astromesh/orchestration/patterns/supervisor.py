"""One agent that gives tasks to others, judges what they bring, and writes the answer itself. Pure.

It decides under a schema, so that small models do, too; independent tasks are given side by side. One that never concludes is made to when
its turns are used up, or when it asks again for nothing but what it was brought: what its workers found is worth an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from astromesh.dialogue import Answer, Message, Transcript
from astromesh.effects import Script, Together
from astromesh.errors import AstromeshError
from astromesh.orchestration import members
from astromesh.orchestration.decision import PLAN_TOKENS_MAX, Misfit, bounded_text, decided, mapping, text_of, told, within_characters
from astromesh.orchestration.opening import Variables, asked, question_of
from astromesh.orchestration.patterns.react import react
from astromesh.orchestration.plan import Part

ROLE = "supervisor"
JUDGEMENT_CHARACTERS_MAX = 200  # a sentence
EXAMPLE_WORKERS_MAX = 2  # they show that tasks are done side by side
EXAMPLE_CHARACTERS_MAX = 200  # of the question, which stands above it whole
DELEGATIONS_MAX = 4  # in one decision: what comes back has to be judged

# One list, and a judgement from the second time on. Of twelve first decisions SmolLM2 135M wrote "delegate" with an empty list five times
# where there was a word beside the list, and twelve times where it stood in front; made to judge what nobody had done yet, it mostly
# delegated nothing. It likes to copy an example: this one, copied, is of use.
_WORKERS = """\
---
You do not answer yet. You give tasks to workers, read what they bring, and conclude when it is enough:
{roster}
Write JSON: "delegations" is a list of up to {most} tasks that do not need each other, each with "worker" and "task"; none concludes. A \
worker knows nothing but its task, so say in it all that matters. For example: {example}"""
_BROUGHT = """\
{work}
---
Decide again. Write JSON: "judgement", what the work so far is worth, in one sentence, and "delegations", more tasks, or none to \
conclude."""
_CONCLUDE = "---\nYour workers brought this:\n\n{work}\n\nWrite the answer for the user."


@dataclass(frozen=True, slots=True)
class Decision:
    judgement: str
    delegations: tuple[tuple[str, str], ...]  # worker and task; none: conclude


def supervisor(part: Part, opening: Transcript, variables: Variables) -> Script[Answer]:
    workers = {worker.name: worker for worker in part.workers}
    settled: set[tuple[str, str]] = set()
    found: list[str] = []
    transcript = asked(opening, _request(part, question_of(opening)))
    for turn in range(1, part.turns + 1):
        decision, text = yield from decided(
            part,
            transcript,
            _shape(list(workers), judges=turn > 1),
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
        found += brought
        if turn == part.turns:
            yield from told(f"{part.turns} decisions are as many as it has: it concludes", action="conclude")
        else:
            transcript = (*transcript, Message("user", _BROUGHT.format(work="\n\n".join(brought))))
    # Asked anew, without the decisions: after so much JSON, a small model goes on about that.
    return (yield from react(part, asked(opening, _CONCLUDE.format(work="\n\n".join(found))) if found else opening, role=ROLE))


def _request(part: Part, question: str) -> str:
    task = within_characters(question, EXAMPLE_CHARACTERS_MAX)
    example = orjson.dumps(
        {"delegations": [{"worker": worker.name, "task": task} for worker in part.workers[:EXAMPLE_WORKERS_MAX]]}
    ).decode()
    return _WORKERS.format(roster=members.roster(part.workers), most=DELEGATIONS_MAX, example=example)


def _shape(names: list[str], *, judges: bool) -> dict[str, Any]:
    delegation = {
        "type": "object",
        "properties": {"worker": {"type": "string", "enum": names}, "task": bounded_text(members.TASK_CHARACTERS_MAX)},
        "required": ["worker", "task"],
        "additionalProperties": False,
    }
    judgement = {"judgement": bounded_text(JUDGEMENT_CHARACTERS_MAX)} if judges else {}
    properties = {**judgement, "delegations": {"type": "array", "items": delegation, "maxItems": DELEGATIONS_MAX}}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


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

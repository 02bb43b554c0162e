"""An orchestrator picks specialists, they work one after the other, and a writer puts it together. Pure.

Specialists see of each other's work the first 600 characters, so that the last of five can still read its task; the writer always runs,
runs last, and gets everything whole.
"""

from __future__ import annotations

from typing import Any

from astromesh.dialogue import Answer, Transcript
from astromesh.effects import Script, Together
from astromesh.errors import AstromeshError
from astromesh.orchestration import members
from astromesh.orchestration.decision import PLAN_TOKENS_MAX, Misfit, bounded_text, decided, mapping, text_of, told, within_characters
from astromesh.orchestration.opening import Variables, asked, question_of
from astromesh.orchestration.patterns.react import react, spoken
from astromesh.orchestration.plan import Member, Part

PASSED_ON_CHARACTERS_MAX = 600  # of one specialist's work, to the next
WRITER = "writer"
ORCHESTRATOR = "orchestrator"

_PICK = """\
---
You do not answer yet. You lead a team; after it, a writer puts everything together. The specialists:
{roster}
Pick those who are needed, in the order in which they work; each sees in short what those before it found. Write JSON: "plan" is a list \
of at most {most} tasks, each with "member" and "task". It may be empty. For example: {{"plan": [{{"member": "{first}", "task": "Find out \
what the answer needs."}}]}}"""
_TASK = "{task}\n\nIt is a part of the work on this question: {question}"
_TASK_AFTER = "{task}\n\nWhat the others found so far, in short:\n\n{findings}"
_WRITE = "---\nYour team worked on this. What it found:\n\n{findings}\n\nWrite the final answer for the user."


def team(part: Part, opening: Transcript, variables: Variables) -> Script[Answer]:
    specialists = {worker.name: worker for worker in part.workers if worker.name != WRITER}
    writer = next((worker for worker in part.workers if worker.name == WRITER), None)
    plan = yield from _planned(part, opening, specialists)
    found: list[tuple[str, members.Reply]] = []
    for name, task in plan:
        text = _TASK.format(task=task, question=question_of(opening))
        if found:
            text = _TASK_AFTER.format(task=text, findings=_findings(found, PASSED_ON_CHARACTERS_MAX))
        [reply] = yield from Together((members.order(specialists[name], text, opening=opening, variables=variables),))
        yield from told(action=name, given={"task": task}, seen=members.said(reply))
        found.append((name, reply))
    if found and all(isinstance(reply, AstromeshError) for _, reply in found):
        raise members.all_failed(part, [name for name, _ in found], [reply for _, reply in found])
    return (yield from _written(part, writer, found, opening, variables))


def _written(
    part: Part, writer: Member | None, found: list[tuple[str, members.Reply]], opening: Transcript, variables: Variables
) -> Script[Answer]:
    """By the member called writer, else by the agent itself."""
    transcript = asked(opening, _WRITE.format(findings=_findings(found, None))) if found else opening
    if writer is None:
        return (yield from react(part, transcript, role=WRITER))
    if writer.agent is None:
        system = members.system_for(writer, question_of(opening), opening=opening, variables=variables)
        body = tuple(message for message in transcript if message.role != "system")
        return (yield from react(part, (*system, *body), role=writer.role, max_tokens=writer.max_tokens))
    [reply] = yield from Together((members.order(writer, question_of(transcript), opening=opening, variables=variables),))
    if isinstance(reply, AstromeshError):
        raise reply
    return (yield from spoken(part, reply.text))


def _planned(part: Part, opening: Transcript, specialists: dict[str, Member]) -> Script[list[tuple[str, str]]]:
    names = list(specialists)
    task = {
        "type": "object",
        "properties": {"member": {"type": "string", "enum": names}, "task": bounded_text(members.TASK_CHARACTERS_MAX)},
        "required": ["member", "task"],
        "additionalProperties": False,
    }
    shape = {
        "type": "object",
        "properties": {"plan": {"type": "array", "items": task, "maxItems": len(names)}},
        "required": ["plan"],
        "additionalProperties": False,
    }
    request = asked(opening, _PICK.format(roster=members.roster(specialists.values()), most=len(names), first=names[0]))
    plan, _ = yield from decided(
        part, request, shape, lambda value: _read(value, names), what="a plan for its team", role=ORCHESTRATOR, tokens_max=PLAN_TOKENS_MAX
    )
    yield from told(action="plan", given={"plan": [{"member": name, "task": said} for name, said in plan]})
    return plan


def _read(value: Any, names: list[str]) -> list[tuple[str, str]]:
    wanted = mapping(value).get("plan")
    if not isinstance(wanted, list):
        raise Misfit('"plan" is not a list')
    if len(wanted) > len(names):
        raise Misfit(f"there are {len(wanted)} tasks, and {len(names)} are possible")
    plan = []
    for number, one in enumerate(wanted, start=1):
        name, task = text_of(mapping(one), "member"), text_of(one, "task")
        if name not in names:
            raise Misfit(f"task {number} names no specialist; there are: {', '.join(names)}")
        if not task:
            raise Misfit(f"task {number} is empty")
        plan.append((name, task))
    return plan


def _findings(found: list[tuple[str, members.Reply]], characters_max: int | None) -> str:
    texts = [(name, members.said(reply)) for name, reply in found]
    return "\n\n".join(f"{name}:\n{text if characters_max is None else within_characters(text, characters_max)}" for name, text in texts)

"""Several branches at once, and one answer out of what they bring. Pure.

The branches stand in the document (other agents, other models, other prompts, each asked the same), or the model splits the question into
them. Some may fail; the answer says which. Voting is self-consistency, Wang et al., 2022, over answers instead of reasonings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from astromesh.dialogue import Answer, Message, Transcript
from astromesh.effects import Delegate, Script, Together, Work
from astromesh.errors import AstromeshError
from astromesh.orchestration import members
from astromesh.orchestration.decision import PLAN_TOKENS_MAX, Misfit, bounded_text, decided, mapping, told
from astromesh.orchestration.opening import Variables, asked, question_of, system_of
from astromesh.orchestration.patterns.react import react, spoken
from astromesh.orchestration.plan import Part

_SPLIT = """\
---
You do not answer yet. Split this into 2 to {most} tasks that do not need each other and can be done at the same time. Whoever does one \
sees nothing but its text, so say in it all that matters. Write JSON: "tasks" is the list of their texts."""
_MERGE = "---\nThis was found out for you:\n\n{findings}\n\nMake one answer for the user out of it."


@dataclass(frozen=True, slots=True)
class Branch:
    name: str
    task: str
    act: Delegate | Work


def parallel_fan_out(part: Part, opening: Transcript, variables: Variables) -> Script[Answer]:
    branches = _declared(part, opening, variables) if part.workers else (yield from _split(part, opening))
    replies: list[members.Reply] = []
    for start in range(0, len(branches), members.AT_ONCE_MAX):
        replies += yield from Together(tuple(branch.act for branch in branches[start : start + members.AT_ONCE_MAX]))
    for branch, reply in zip(branches, replies, strict=True):
        yield from told(action=branch.name, given={"task": branch.task}, seen=members.said(reply))
    found = [(branch, reply.text) for branch, reply in zip(branches, replies, strict=True) if not isinstance(reply, AstromeshError)]
    if not found:
        raise members.all_failed(part, [branch.name for branch in branches], replies)
    match part.merge:
        case "vote":
            return (yield from spoken(part, elected([text for _, text in found])))
        case "concat":
            return (yield from spoken(part, "\n\n".join(_headed(branch, reply) for branch, reply in zip(branches, replies, strict=True))))
        case "model":
            findings = "\n\n".join(_headed(branch, reply) for branch, reply in zip(branches, replies, strict=True))
            return (yield from react(part, asked(opening, _MERGE.format(findings=findings)), role="synthesizer"))
        case _:
            assert_never(part.merge)


def elected(texts: Sequence[str]) -> str:
    """What most say, in its first wording; of equally many, what was said first. Letter case, white space and the signs around it aside."""
    votes: dict[str, list[str]] = {}
    for text in texts:
        votes.setdefault(_ballot(text), []).append(text)
    return max(votes.values(), key=len)[0]


def _ballot(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*()[]")


def _headed(branch: Branch, reply: members.Reply) -> str:
    return f"{branch.name}:\n{members.said(reply)}"


def _declared(part: Part, opening: Transcript, variables: Variables) -> list[Branch]:
    """One for each worker, all with the same question. This agent's own models see the conversation; another agent sees the question."""
    question = question_of(opening)
    branches = []
    for worker in part.workers:
        act = members.order(worker, question, opening=opening, variables=variables)
        if isinstance(act, Work):
            head = len(system_of(opening))
            system = members.system_for(worker, question, opening=opening, variables=variables)
            act = Work((*system, *opening[head:]), role=act.role, label=act.label, max_tokens=act.max_tokens)
        branches.append(Branch(worker.name, question, act))
    return branches


def _split(part: Part, opening: Transcript) -> Script[list[Branch]]:
    shape = {
        "type": "object",
        "properties": {
            "tasks": {"type": "array", "items": bounded_text(members.TASK_CHARACTERS_MAX), "minItems": 1, "maxItems": members.AT_ONCE_MAX}
        },
        "required": ["tasks"],
        "additionalProperties": False,
    }
    transcript = asked(opening, _SPLIT.format(most=members.AT_ONCE_MAX))
    tasks, _ = yield from decided(
        part, transcript, shape, _tasks, what="tasks to do at the same time", role="planner", tokens_max=PLAN_TOKENS_MAX
    )
    yield from told(action="split", given={"tasks": tasks})
    system = system_of(opening)
    return [
        Branch(f"task {number}", task, Work((*system, Message("user", task)), role="worker", label=f"task {number}"))
        for number, task in enumerate(tasks, start=1)
    ]


def _tasks(value: Any) -> list[str]:
    wanted = mapping(value).get("tasks")
    if not isinstance(wanted, list) or not wanted or not all(isinstance(task, str) and task.strip() for task in wanted):
        raise Misfit('"tasks" is not a list of texts')
    if len(wanted) > members.AT_ONCE_MAX:
        raise Misfit(f"there are {len(wanted)} tasks, and {members.AT_ONCE_MAX} are possible")
    return [task.strip() for task in wanted]

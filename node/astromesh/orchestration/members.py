"""Giving work to the members of a team, and reading what they say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from astromesh.dialogue import Answer, Message, ModelReply, Transcript
from astromesh.effects import Delegate, Work
from astromesh.errors import AstromeshError, WorkFailed
from astromesh.orchestration.opening import Variables, system_of
from astromesh.orchestration.plan import Member, Part

Reply = ModelReply | Answer | AstromeshError
"""What `Together` has in the place of an act."""

TASK_CHARACTERS_MAX = 400  # as a model that is held to a schema may write it: a long sentence takes 200
AT_ONCE_MAX = 8  # acts side by side: what a small model server answers together, and a node's memory holds


def order(member: Member, task: str, *, opening: Transcript, variables: Variables) -> Delegate | Work:
    """A task for a member: another agent, or this agent's own model, under the member's prompt where it has one."""
    if member.agent is not None:
        return Delegate(member.agent, task)
    return Work(
        (*system_for(member, task, opening=opening, variables=variables), Message("user", task)),
        role=member.role,
        label=member.name,
        max_tokens=member.max_tokens,
    )


def system_for(member: Member, task: str, *, opening: Transcript, variables: Variables) -> Transcript:
    if member.prompt is None:
        return system_of(opening)
    text = member.prompt.render({**variables, "worker": member.name, "task": task})
    return (Message("system", text),) if text else ()


def said(reply: Reply) -> str:
    """What came of an act, as the next model reads it."""
    return f"(failed: {reply.message})" if isinstance(reply, AstromeshError) else reply.text


def roster(members: Iterable[Member]) -> str:
    return "\n".join(f"- {member.name}: {member.description}" if member.description else f"- {member.name}" for member in members)


def all_failed(part: Part, names: Sequence[str], replies: Sequence[Reply]) -> WorkFailed:
    """Each says how."""
    failures = [(name, reply) for name, reply in zip(names, replies, strict=True) if isinstance(reply, AstromeshError)]
    hints = [failure.hint for _, failure in failures if failure.hint]
    return WorkFailed(
        f"all parts of the work of agent {part.agent} failed: {'; '.join(f'{name}: {failure.message}' for name, failure in failures)}",
        hint=hints[0] if hints else "",
    )

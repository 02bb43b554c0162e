"""Stages one after the other, each on what the one before it made; the last one speaks. Pure."""

from __future__ import annotations

from astromesh.dialogue import Answer, Message, Transcript
from astromesh.effects import Delegate, Script, Work
from astromesh.orchestration.decision import told
from astromesh.orchestration.opening import Variables, asked_instead, question_of, system_of
from astromesh.orchestration.patterns.react import react, spoken
from astromesh.orchestration.plan import Member, Part

_PLAIN = 'Stage "{stage}": work on the following and write what the next stage needs.'
_PLAIN_LAST = 'Stage "{stage}", the last one: work on the following and write the answer for the user.'


def pipeline(part: Part, opening: Transcript, variables: Variables) -> Script[Answer]:
    """The first stage sees the whole conversation, the others the system prompt and what their own prompt makes of the input."""
    given = question_of(opening)
    made: dict[str, str] = {}
    *before, last = part.stages
    for stage in before:
        task = _task(stage, given, made, variables, plain=_PLAIN)
        if stage.agent is not None:
            answer = yield from Delegate(stage.agent, task)
        else:
            answer = yield from Work(_put(opening, task, first=not made), role=stage.role, label=stage.name, max_tokens=stage.max_tokens)
        yield from told(action=stage.name, given={"input": given}, seen=answer.text)
        given = made[_variable(stage.name)] = answer.text
    task = _task(last, given, made, variables, plain=_PLAIN_LAST)
    if last.agent is None:
        return (yield from react(part, _put(opening, task, first=not made), role=last.role, max_tokens=last.max_tokens))
    answer = yield from Delegate(last.agent, task)
    return (yield from spoken(part, answer.text))


def _put(opening: Transcript, task: str, *, first: bool) -> Transcript:
    return asked_instead(opening, task) if first else (*system_of(opening), Message("user", task))


def _task(stage: Member, given: str, made: dict[str, str], variables: Variables, *, plain: str) -> str:
    """The stage's prompt, with the input where it mentions it, as `input` or by the name of a stage before it, else behind it."""
    if stage.prompt is None:
        # Another agent knows what it is for.
        return given if stage.agent is not None else f"{plain.format(stage=stage.name)}\n\n{given}"
    text = stage.prompt.render({**variables, **made, "input": given, "stage": stage.name})
    if stage.prompt.mentions & {"input", *made} or (not made and "query" in stage.prompt.mentions):
        return text
    return f"{text}\n\n{given}"


def _variable(name: str) -> str:
    """A stage's name as templates can write it."""
    return "".join(sign if sign.isalnum() else "_" for sign in name)

"""Whole runs as scripts, and the parts that another agent's run asks of an agent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from astromesh.dialogue import Answer, HandOff, Message, Outcome, Transcript
from astromesh.effects import Recall, Remember, Screen, Script, TakeOver, Work
from astromesh.errors import TurnsExhausted, UnknownAgent
from astromesh.orchestration.act import act
from astromesh.orchestration.opening import opened, variables_of
from astromesh.orchestration.patterns.react import react
from astromesh.orchestration.plan import Part


def whole_run(part: Part, query: str, *, context: Mapping[str, Any], history: Transcript | None = None) -> Script[Answer]:
    """From a question to an answer that is remembered, if this agent remembers.

    What is kept is the whole turn: the question as it was asked, the calls of tools with their results, and the answer. The rendered
    context belongs to its turn alone. With a `history`, the caller keeps the conversation: nothing is recalled and nothing remembered.
    A question that is refused leaves no trace in any memory.

    Other agents may go on with the conversation, one after the other; it stays this agent's, and its memory's. The last one that is handed
    to may not hand off any further: whoever asked gets an answer rather than an error about agents who could not agree.
    """
    if part.screened:
        screened = yield from Screen(query, context, history)
        if screened.refusal is not None:
            return Answer(screened.refusal, by=part.agent)
        query, context, history = screened.query, screened.context, screened.history
    remembers = part.remembers and history is None
    past = (yield from Recall()) if remembers else history or ()
    variables = variables_of(part, query, context)
    outcome: Outcome = yield from act(part, opened(part, past, query, variables=variables), variables, may_hand_off=part.hand_offs_max > 0)
    work = outcome.work
    hand_offs = 0
    while isinstance(outcome, HandOff):
        hand_offs += 1
        outcome = yield from _taken_on(part, outcome, (*past, Message("user", query), *work), context, number=hand_offs)
        work = (*work, *outcome.work)
    answer = replace(outcome, work=work) if hand_offs else outcome
    if remembers:
        yield from Remember((Message("user", query), *work, Message("assistant", answer.text)))
    return answer


def _taken_on(part: Part, handed: HandOff, transcript: Transcript, context: Mapping[str, Any], *, number: int) -> Script[Outcome]:
    last = number >= part.hand_offs_max
    try:
        outcome = yield from TakeOver(handed.to, transcript, by=handed.by, reason=handed.reason, context=context, last=last)
    except UnknownAgent as nobody:
        raise UnknownAgent(
            f"agent {handed.by} handed the conversation to {handed.to}: {nobody.message}",
            hint=f"deploy {handed.to} on a node of this mesh, or take it out of spec.orchestration.peers of {handed.by}",
        ) from nobody
    if last and isinstance(outcome, HandOff):
        raise TurnsExhausted(
            f"the conversation was handed on {part.hand_offs_max} times, and {outcome.by} would hand it on once more, to {outcome.to}",
            hint=f"raise spec.orchestration.max_handoffs of agent {part.agent}, or update the node that hosts {outcome.by}",
        )
    return outcome


def taken_over(part: Part, conversation: TakeOver) -> Script[Outcome]:
    """What `TakeOver` asks of the agent that it names: to go on with the conversation and speak to the user."""
    said, context = conversation.transcript, conversation.context
    asked = max((place for place, message in enumerate(said) if message.role == "user"), default=0)
    past, query, work = said[:asked], said[asked].content if said else "", said[asked + 1 :]
    if part.screened:
        screened = yield from Screen(query, context, past)
        if screened.refusal is not None:
            return Answer(screened.refusal, by=part.agent)
        query, context, past = screened.query, screened.context, screened.history or ()
    variables = variables_of(part, query, context)
    preface = _handed(conversation)
    opening = (*opened(part, past, query, variables=variables, preface=preface), *work)
    return (yield from act(part, opening, variables, may_hand_off=not conversation.last, handed_by=conversation.by))


def _handed(conversation: TakeOver) -> str:
    """What stands in front of the question: it belongs to this turn alone."""
    if not conversation.by:
        return ""
    return f"(Agent {conversation.by} has handed this conversation over to you{f': {conversation.reason}' if conversation.reason else '.'})"


def delegated(part: Part, task: str) -> Script[Answer]:
    """What `Delegate` asks of the agent that it names: an answer to a task, from nothing but the task."""
    if part.screened:
        screened = yield from Screen(task, {}, None)
        if screened.refusal is not None:
            return Answer(screened.refusal, by=part.agent)
        task = screened.query
    variables = variables_of(part, task, {})
    outcome = yield from act(part, opened(part, (), task, variables=variables), variables, may_hand_off=False)
    assert isinstance(outcome, Answer), "nothing hands off that may not"
    return outcome


def work(part: Part, order: Work) -> Script[Answer]:
    """What `Work` asks of the agent itself."""
    return (yield from react(part, order.opening, role=order.role, aside=True, max_tokens=order.max_tokens))

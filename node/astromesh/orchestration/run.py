"""A whole run as a script: guards, memory, prompt, pattern, persistence, in that order. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astromesh.dialogue import Answer, Message, Transcript
from astromesh.effects import Recall, Remember, Screen, Script
from astromesh.orchestration.patterns.react import react
from astromesh.orchestration.plan import Part


def whole_run(part: Part, query: str, *, context: Mapping[str, Any], history: Transcript | None = None) -> Script[Answer]:
    """From a question to an answer that is remembered, if this agent remembers.

    What is kept is the whole turn: the question as it was asked, the calls of tools with their results, and the answer. The rendered
    context belongs to its turn alone. With a `history`, the caller keeps the conversation: nothing is recalled and nothing remembered.
    A question that is refused leaves no trace in any memory.
    """
    if part.screened:
        screened = yield from Screen(query, context, history)
        if screened.refusal is not None:
            return Answer(screened.refusal, by=part.agent)
        query, context, history = screened.query, screened.context, screened.history
    remembers = part.remembers and history is None
    past = (yield from Recall()) if remembers else history or ()
    variables = {**context, "query": query, "agent": part.agent}
    system = part.system.render(variables)
    preface = part.context.render(variables)
    opening = (
        *((Message("system", system),) if system else ()),
        *past,
        Message("user", f"{preface}\n\n{query}" if preface else query),
    )
    answer = yield from react(part, opening)
    if remembers:
        yield from Remember((Message("user", query), *answer.work, Message("assistant", answer.text)))
    return answer

"""How a conversation is put before a model. Pure.

The templates of many models take neither two messages of the user in a row nor a second system message, so what a pattern has to say is
written into the user's last message, or becomes one behind the results of tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from astromesh.dialogue import Message, Transcript
from astromesh.orchestration.plan import Part

Variables = Mapping[str, Any]
"""What templates know: the caller's context, the question as `query`, the agent's name as `agent`."""


def variables_of(part: Part, query: str, context: Mapping[str, Any]) -> Variables:
    return {**context, "query": query, "agent": part.agent}


def opened(part: Part, past: Transcript, query: str, *, variables: Variables, preface: str = "") -> Transcript:
    """System prompt, past, and the user's turn: the agent's context, a preface, the question."""
    system = part.system.render(variables)
    said = [text for text in (part.context.render(variables), preface, query) if text]
    return (*((Message("system", system),) if system else ()), *past, Message("user", "\n\n".join(said) if len(said) > 1 else query))


def system_of(opening: Transcript) -> Transcript:
    return opening[:1] if opening and opening[0].role == "system" else ()


def question_of(opening: Transcript) -> str:
    """The user's last message."""
    return next((message.content for message in reversed(opening) if message.role == "user"), "")


def asked(opening: Transcript, text: str) -> Transcript:
    """The conversation, and behind what the user said last: this."""
    last = opening[-1] if opening else None
    if last is None or last.role != "user":
        return (*opening, Message("user", text))
    return (*opening[:-1], replace(last, content=f"{last.content}\n\n{text}"))


def asked_instead(opening: Transcript, text: str) -> Transcript:
    """The conversation with this in the place of what the user said last."""
    for place in range(len(opening) - 1, -1, -1):
        if opening[place].role == "user":
            return (*opening[:place], replace(opening[place], content=text), *opening[place + 1 :])
    return (*opening, Message("user", text))

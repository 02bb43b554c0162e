"""Asking a model for something of a given shape: a plan, a choice, an order for somebody. Pure.

A local model is held to the shape by a grammar and a server by its own means, or not at all; so what comes is read with suspicion, a
mistake is said to the model once, and a second one ends the run with an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from astromesh.dialogue import Message, ModelReply, Transcript
from astromesh.effects import AskModel, Note, Script
from astromesh.errors import UnusableReply
from astromesh.orchestration.plan import Part

T = TypeVar("T")

DECISION_TOKENS_MAX = 512  # a choice with its reason takes 60; a small model that rambles inside of a string has to end somewhere
PLAN_TOKENS_MAX = 2048  # 32 steps of one sentence each
REPLY_CHARACTERS_MAX = 4000  # of an unusable reply that goes back to the model with its mistake


_AGAIN = "That cannot be used: {mistake}. Write it again, as JSON that obeys this schema, and nothing else:\n{schema}"


class Stopped(Exception):
    """A rule of the agent ended its work (`cost_limit`). The text is what it answers instead."""


class Misfit(ValueError):
    """What a model wrote is not what it was asked for. The text says why, to the model and to people; it repeats nothing of it."""


def decided(
    part: Part,
    transcript: Transcript,
    shape: Mapping[str, Any],
    read: Callable[[Any], T],
    *,
    what: str,
    role: str,
    tokens_max: int = DECISION_TOKENS_MAX,
) -> Script[tuple[T, str]]:
    """What `read` makes of the JSON that the model writes, and the text itself. `read` raises `Misfit`; `what` names it in the error."""
    mistake = ""
    for _ in range(2):
        reply = yield from AskModel(transcript, role=role, shape=shape, aside=True, max_tokens=tokens_max)
        try:
            return read(parsed(reply)), reply.text
        except Misfit as misfit:
            if reply.finish_reason == "content_filter" and reply.text:
                raise Stopped(reply.text) from misfit
            mistake = str(misfit)
        wrote = within_characters(reply.text, REPLY_CHARACTERS_MAX) or "(nothing)"
        again = _AGAIN.format(mistake=mistake, schema=orjson.dumps(shape).decode())
        transcript = (*transcript, Message("assistant", wrote), Message("user", again))
    raise UnusableReply(
        f"the model of agent {part.agent} was asked twice for {what}, and what it wrote cannot be used: {mistake}",
        hint=f"give spec.model.roles.{role} a more capable model, or make the question simpler",
    )


def parsed(reply: ModelReply) -> Any:
    """The JSON value in a reply. Models that nobody holds to a shape like to put a fence or a sentence around it."""
    text = reply.text.strip()
    try:
        return orjson.loads(text)
    except ValueError:
        start, end = text.find("{"), text.rfind("}")
    try:
        return orjson.loads(text[start : end + 1]) if 0 <= start < end else _no_json(reply)
    except ValueError:
        return _no_json(reply)


def _no_json(reply: ModelReply) -> Any:
    raise Misfit("it was cut off before its end" if reply.finish_reason == "length" else "it is not JSON")


def told(thought: str | None = None, *, action: str | None = None, given: Any = None, seen: str | None = None) -> Note:
    """A step for whoever watches: what was decided, and what came of it. What was `given` is JSON text, like the arguments of a tool."""
    text = None if given is None else orjson.dumps(given).decode()
    return Note("step", {"thought": thought or None, "action": action, "action_input": text, "observation": seen, "result": None})


def bounded_text(characters_max: int) -> dict[str, Any]:
    """The schema of a text. A small model that is held to JSON and to no length writes on until it is cut, and then it is no JSON."""
    return {"type": "string", "maxLength": characters_max}


def mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Misfit("it is not a JSON object")
    return value


def text_of(value: Mapping[str, Any], key: str) -> str:
    """A text under a key; empty where there is none."""
    said = value.get(key)
    return said.strip() if isinstance(said, str) else ""


def within_characters(text: str, characters_max: int) -> str:
    return text if len(text) <= characters_max else f"{text[: characters_max - 1].rstrip()}…"

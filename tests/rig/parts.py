"""Parts of agents for scripts under test, and the notes that scripts tell."""

from __future__ import annotations

import json
from typing import Any

from astromesh.dialogue import Message, ModelReply
from astromesh.effects import Note
from astromesh.orchestration.plan import Member, Part
from astromesh.orchestration.prompt import Template


def template(text: str) -> Template:
    return Template(text, where="a prompt")


def part(agent: str = "desk", *, system: str = "Be brief.", context: str = "", turns: int = 4, **keys: Any) -> Part:
    return Part(agent, template(system), template(context), turns, **keys)


def other(name: str, description: str = "") -> Member:
    """Another agent."""
    return Member(name, agent=name, description=description)


def own(name: str, prompt: str | None = None, **keys: Any) -> Member:
    """The agent's own model, under a prompt."""
    return Member(name, prompt=None if prompt is None else template(prompt), **{"role": name, **keys})


def system(text: str = "Be brief.") -> Message:
    return Message("system", text)


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def wrote(value: Any) -> ModelReply:
    """A reply under a schema."""
    return ModelReply(json.dumps(value))


def again(mistake: str, shape: Any) -> Message:
    """What a model is told whose reply fits no shape."""
    schema = json.dumps(shape, separators=(",", ":"))
    return user(f"That cannot be used: {mistake}. Write it again, as JSON that obeys this schema, and nothing else:\n{schema}")


def bounded(characters_max: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": characters_max}


def step(thought: str | None = None, *, action: str | None = None, given: Any = None, seen: str | None = None) -> Note:
    """`given`: as a value; a text is what a tool got."""
    text = given if given is None or isinstance(given, str) else json.dumps(given, separators=(",", ":"))
    return Note("step", {"thought": thought, "action": action, "action_input": text, "observation": seen, "result": None})


def result(text: str) -> Note:
    return Note("step", {"thought": None, "action": None, "action_input": None, "observation": None, "result": text})

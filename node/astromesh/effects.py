"""What a run may ask of the world: frozen plain data, each with the type of its reply.

A script yields effects (`reply = yield from AskModel(...)`) and `runtime.stage` answers them; a failure of an effect is raised inside the
script. Time, ids and randomness come only from effects, so a script can be tested as a conversation and moved to another node. Pure.

Two mistakes that no type checker sees are tests over the syntax tree: an effect built as a bare statement (never performed), and `yield`
without `from` (its reply is `Any`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from astromesh.dialogue import Answer, Message, ModelReply, Outcome, ToolCall, ToolSchema, Transcript
from astromesh.errors import AstromeshError

R = TypeVar("R")
T = TypeVar("T")


class Effect(Generic[R]):
    """An act that the stage performs; `yield from` it to get its reply."""

    __slots__ = ()

    def __iter__(self) -> Generator[Effect[Any], Any, R]:
        reply: R = yield self
        return reply


Script = Generator[Effect[Any], Any, T]
"""A run, or a part of one, that ends in a `T`."""


@dataclass(frozen=True, slots=True)
class Screened:
    """What the rules for input let through. A `refusal` is what is answered instead of doing anything."""

    query: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    history: Transcript | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Screen(Effect[Screened]):
    """Look at what was asked, and what came along with it, before anything else sees it."""

    query: str
    context: Mapping[str, Any]
    history: Transcript | None


@dataclass(frozen=True, slots=True)
class AskModel(Effect[ModelReply]):
    """One completion by the agent's model. Its text, guarded, streams to the run's events as it is made; the reply comes at the end.

    `role`: which of the agent's models is asked. `shape`: a JSON Schema that the reply's text has to fit (a local model is held to it by a
    grammar, a server by its own means, so whoever reads the reply checks it). `aside`: the text is no part of the answer, nobody sees it.
    `max_tokens`: at most so many, instead of what the document says of answers.
    """

    transcript: Transcript
    tools: tuple[ToolSchema, ...] = ()
    role: str = "default"
    shape: Mapping[str, Any] | None = None
    aside: bool = False
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Say(Effect[str]):
    """Show this text as the answer, or as the next part of it: nobody has seen it yet. It is guarded and streams like a completion's; the
    reply is what was shown. Where nobody watches (an act of `Delegate` or `Work`) it is guarded alike and shown to nobody."""

    text: str


@dataclass(frozen=True, slots=True)
class CallTools(Effect[tuple[Message, ...]]):
    """These calls, side by side. One message of role "tool" for each, in their order; a tool's failure is text that the model can use."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class Work(Effect[Answer]):
    """Reason and act on this opening, aside, with the agent's own model and tools: a part of the work, not the answer.

    What it does is the script `orchestration.run.work`.
    """

    opening: Transcript
    role: str = "default"
    label: str = ""  # of the step or sub-task, for spans
    max_tokens: int | None = None  # of each of its completions


@dataclass(frozen=True, slots=True)
class Delegate(Effect[Answer]):
    """Another agent's answer to this task, wherever it lives. It remembers nothing of it, and nobody sees it but who asked.

    What that agent does is the script `orchestration.run.delegated`: it hands off to nobody, so its outcome is an `Answer`.
    """

    agent: str
    task: str


@dataclass(frozen=True, slots=True)
class TakeOver(Effect[Outcome]):
    """Another agent goes on with this conversation, wherever it lives, and speaks to the user. Its own prompt stands before it.

    What that agent does is the script `orchestration.run.taken_over`. Whoever performs this tells `handoff {from, to, node}`, once it knows
    the node and before the agent's first token; `by` is the one who hands over, `reason` what it said to that. `context`: what the caller
    gave for templates, which the agent's own know, too. `last`: it may not hand off any further.
    """

    agent: str
    transcript: Transcript
    by: str = ""
    reason: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    last: bool = False


Act = AskModel | Work | Delegate


@dataclass(frozen=True, slots=True)
class Together(Effect[tuple[ModelReply | Answer | AstromeshError, ...]]):
    """These acts side by side; their replies in their order, an error in the place of one that failed. All end before it replies."""

    acts: tuple[Act, ...]


@dataclass(frozen=True, slots=True)
class Recall(Effect[Transcript]):
    """What the agent remembers of this session, oldest first."""


@dataclass(frozen=True, slots=True)
class Remember(Effect[None]):
    """Keep this turn: all that was said in it, or nothing."""

    turn: Transcript


@dataclass(frozen=True, slots=True)
class Note(Effect[None]):
    """Tell whoever watches this run. `kind` is the event's name, `data` plain JSON."""

    kind: str
    data: Mapping[str, Any]

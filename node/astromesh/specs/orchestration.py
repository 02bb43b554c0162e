"""How an agent goes about a question, as its document says it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from astromesh.specs.section import AgentReference, Seconds, Section

Pattern = Literal["react", "plan_and_execute", "parallel_fan_out", "pipeline", "supervisor", "swarm", "team"]
Merge = Literal["model", "vote", "concat"]

HAND_OFFS_DEFAULT = 5  # a question that five agents handed on belongs to none of them
MEMBERS_MAX = 32  # of one agent: each is a line in a prompt that a small model has to choose from


def _as(key: str) -> BeforeValidator:
    """A plain text is the most usual key of a section."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _called(name: str | None, agent: str | None) -> str:
    """What a model calls another agent. Model servers take no slash in the names of functions, so a namespace is no part of it."""
    return name if name and agent else (name or agent or "").rpartition("/")[2]


class Worker(Section):
    """Who takes a part of the work: another agent, or this agent's own model, of some role, under a prompt."""

    name: str | None = Field(default=None, min_length=1, max_length=64, examples=["researcher"])
    agent: AgentReference | None = Field(default=None, examples=["researcher"])
    description: str | None = Field(default=None, examples=["finds facts"])
    prompt: str | None = Field(default=None, min_length=1, examples=['"You find facts."'])
    role: str | None = Field(default=None, min_length=1, examples=["researcher"])
    max_tokens: int | None = Field(default=None, ge=1, examples=[4096])

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.name is None and self.agent is None and self.role is None:
            remedy = "Add 'agent: NAME', or 'name' and 'prompt'."
            raise PydanticCustomError("nobody", "{expected}", {"expected": "this is nobody", "remedy": remedy})
        return self

    @property
    def called(self) -> str:
        if self.agent_named is not None:
            return _called(self.name, self.agent)
        return self.name or self.role or ""

    @property
    def agent_named(self) -> str | None:
        """The other agent that it is: said, or meant by a name with nothing beside it."""
        return self.agent or (self.name if self.prompt is None and self.role is None else None)


class Peer(Section):
    """Another agent, to hand a conversation to."""

    name: str | None = Field(default=None, min_length=1, max_length=64, examples=["billing"])
    agent: AgentReference | None = Field(default=None, examples=["billing"])
    description: str | None = Field(default=None, examples=["invoices and payments"])

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.name is None and self.agent is None:
            raise PydanticCustomError("nobody", "{expected}", {"expected": "this is nobody", "remedy": "Add 'agent: NAME'."})
        return self

    @property
    def called(self) -> str:
        return _called(self.name, self.agent)

    @property
    def agent_named(self) -> str:
        return self.agent or self.name or ""


class Stage(Section):
    """One of several, one after the other: this agent's own model under a prompt, or another agent."""

    name: str = Field(min_length=1, max_length=64, examples=["draft"])
    prompt: str | None = Field(default=None, min_length=1, examples=['"Write a draft about {{ input }}"'])
    agent: AgentReference | None = Field(default=None, examples=["editor"])
    role: str | None = Field(default=None, min_length=1, examples=["writer"])
    max_tokens: int | None = Field(default=None, ge=1, examples=[4096])


class Orchestration(Section):
    ALSO: ClassVar[Mapping[str, str]] = {"timeout": "timeout_seconds", "max_hand_offs": "max_handoffs"}

    pattern: Pattern | None = None
    max_iterations: int | None = Field(default=None, ge=1, le=1000, examples=[10])
    timeout_seconds: Seconds | None = Field(default=None, examples=[120])
    workers: tuple[Annotated[Worker, _as("agent")], ...] = Field(default=(), max_length=MEMBERS_MAX)
    peers: tuple[Annotated[Peer, _as("agent")], ...] = Field(default=(), max_length=MEMBERS_MAX)
    stages: tuple[Annotated[Stage, _as("name")], ...] = Field(default=(), max_length=MEMBERS_MAX)
    merge: Merge | None = None
    max_handoffs: int | None = Field(default=None, ge=0, le=100, examples=[5])
    max_tool_result_tokens: int | None = Field(default=None, ge=1)

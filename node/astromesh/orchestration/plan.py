"""What a script needs to know of an agent: its part, as plain values. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from astromesh.dialogue import ToolSchema
from astromesh.orchestration.prompt import Template
from astromesh.specs.orchestration import HAND_OFFS_DEFAULT, Merge, Pattern
from astromesh.specs.resource import DEFAULT_NAMESPACE, qualified
from astromesh.specs.schemas import Schema

Decides = Literal["shape", "tools"]
"""How a swarm's agent says that it hands off: under a schema, asked before it answers, or by calling a tool while it does."""


@dataclass(frozen=True, slots=True)
class Member:
    """Who takes a part of the work: another agent, or this agent's own model of some role, under a prompt of its own."""

    name: str  # as the model calls it; unique among its kind
    agent: str | None = None  # its key; None: this agent itself
    description: str = ""
    prompt: Template | None = None
    role: str = "default"
    max_tokens: int | None = None  # of one completion


@dataclass(frozen=True, slots=True)
class Part:
    """One agent as its script sees it."""

    agent: str
    system: Template
    context: Template  # rendered in front of the user's turn, so that the system prompt stays the same and cacheable
    turns: int  # how often the model may be asked in one run, or in one part of its work
    namespace: str = DEFAULT_NAMESPACE
    tools: tuple[ToolSchema, ...] = ()
    description: str = ""  # what it is for, as it is told to itself among others
    remembers: bool = False
    screened: bool = False  # what it is asked has to be looked at first
    pattern: Pattern = "react"
    workers: tuple[Member, ...] = ()
    peers: tuple[Member, ...] = ()
    stages: tuple[Member, ...] = ()
    merge: Merge = "model"
    hand_offs_max: int = HAND_OFFS_DEFAULT  # in one run
    decides: Decides = "shape"
    dry_run: bool = False  # nobody else is asked, and no tool is called
    output: Schema | None = None  # what its answers obey

    @property
    def key(self) -> str:
        """By which others know it."""
        return qualified(self.agent, self.namespace)

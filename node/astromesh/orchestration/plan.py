"""What a script needs to know of an agent: its part, as plain values. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from astromesh.dialogue import ToolSchema
from astromesh.orchestration.prompt import Template


@dataclass(frozen=True, slots=True)
class Part:
    """One agent as its script sees it."""

    agent: str
    system: Template
    context: Template  # rendered in front of the user's turn, so that the system prompt stays the same and cacheable
    turns: int  # how often the model may be asked in one run
    tools: tuple[ToolSchema, ...] = ()
    remembers: bool = False
    screened: bool = False  # what it is asked has to be looked at first

"""An agent, ready to run: its part for the scripts, and what its stage needs to answer them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from astromesh.guardrails.rails import Rails
from astromesh.memory.port import ConversationMemory
from astromesh.memory.window import Window
from astromesh.orchestration.plan import Part
from astromesh.runtime.targets import Choice
from astromesh.specs.resource import qualified
from astromesh.tools.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class Agent:
    name: str
    namespace: str
    version: str
    part: Part
    choices: Mapping[str, Choice]  # the models that it may ask, by role; there is a "default"
    timeout_s: float
    toolbox: Toolbox
    memory: ConversationMemory | None
    window: Window  # what of a conversation its prompt gets
    forgets_after_s: float | None  # a conversation that nobody went on with for so long; None: never
    document: Mapping[str, Any]  # as it was written, secrets masked
    warnings: tuple[str, ...] = field(default=())
    rails: Rails = field(default=Rails())

    @property
    def key(self) -> str:
        return qualified(self.name, self.namespace)

    @property
    def keeps_sessions(self) -> bool:
        """Whether anything of a session stays on the node that conducted it."""
        return self.memory is not None or self.rails.limits_sessions

    def choice(self, role: str = "default") -> Choice:
        """A role that its document does not name is played by the default."""
        return self.choices.get(role) or self.choices["default"]


@dataclass(frozen=True, slots=True)
class Draft:
    """A document that answers nobody until it is deployed."""

    name: str
    namespace: str
    version: str
    document: Mapping[str, Any]  # as it was written, secrets masked
    warnings: tuple[str, ...]


ChangeVerb = Literal["update", "remove", "deploy", "pause"]


@dataclass(frozen=True, slots=True)
class AgentChange:
    """What is to become of an agent. `trial`: only say whether it could be."""

    verb: ChangeVerb
    name: str
    namespace: str
    document: Mapping[str, Any] | None = None  # of an update
    trial: bool = False

    @property
    def key(self) -> str:
        return qualified(self.name, self.namespace)


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of it on one node."""

    status: str
    warnings: tuple[str, ...] = ()

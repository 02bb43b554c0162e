"""The models that an agent may ask, role by role, and what was spent on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from astromesh.dialogue import ModelRequest, Sampling, Usage
from astromesh.providers.port import ModelProvider
from astromesh.routing.eligible import Requirements
from astromesh.routing.strategy import Merits
from astromesh.runtime.endpoints import Endpoint
from astromesh.specs.agent import Strategy

LOCAL = "local"
FREE = Merits(cost_per_1k_tokens=0.0)  # of the mesh's own models


@dataclass(frozen=True, slots=True)
class Target:
    """One model that may answer, and who is asked for it.

    With a `provider` that one and no other; without, wherever the mesh has the model. `endpoint`: what is remembered of the provider's
    server. `place`: where the document names it, for hints.
    """

    model: str  # the name under which it is asked for
    source: str = LOCAL  # the provider's name: what usage reports
    provider: ModelProvider | None = None
    endpoint: Endpoint | None = None
    sampling: Sampling = field(default_factory=Sampling)
    timeout_s: float | None = None  # of one answer, whole
    requires: Requirements = field(default=Requirements())  # of the node that runs it
    context_window: int | None = None
    merits: Merits = FREE
    checked_every_s: float | None = None  # how often its document wants the server to be asked for its health
    place: str = "spec.model.primary"
    pinned: str = ""  # how the digest of its file begins

    @property
    def pinned_name(self) -> str:
        """As another node is asked for it."""
        return pinned_name(self.model, self.pinned)


@dataclass(frozen=True, slots=True)
class Choice:
    """The models of one role, in the order of the document, and how the first of them is picked.

    `name` tells choices apart that take turns. `falls_back`: when one fails, the next is asked.
    """

    targets: tuple[Target, ...]
    strategy: Strategy | None = None
    name: str = ""
    role: str = "default"
    falls_back: bool = True

    @property
    def first(self) -> Target:
        return self.targets[0]

    def at_most(self, max_tokens: int | None) -> Choice:
        """None is no limit."""
        if max_tokens is None:
            return self
        return self._each(lambda sampling: replace(sampling, max_tokens=min(max_tokens, sampling.max_tokens or max_tokens)))

    def of_length(self, max_tokens: int) -> Choice:
        """Of this length, whatever the document says of answers."""
        return self._each(lambda sampling: replace(sampling, max_tokens=max_tokens))

    def aside(self, max_tokens: int) -> Choice:
        """For a text that is no answer: of this length, not ended by what ends answers, and free to say the same words again, which JSON
        and names are made of."""
        return self._each(
            lambda sampling: replace(
                sampling, max_tokens=max_tokens, stop=(), presence_penalty=None, frequency_penalty=None, repeat_penalty=None
            )
        )

    def _each(self, change: Callable[[Sampling], Sampling]) -> Choice:
        return replace(self, targets=tuple(replace(target, sampling=change(target.sampling)) for target in self.targets))


def pinned_name(model: str, digest: str) -> str:
    return f"{model}@sha256:{digest}" if digest else model


def plain(request: ModelRequest) -> Choice:
    """What a request means that names a model of the mesh and nothing else."""
    return Choice((Target(request.model, sampling=request.sampling),))


@dataclass(slots=True)
class Spending:
    """What a run used, by provider, model and role, in the order in which they were first asked."""

    _rows: dict[tuple[str, str, str], tuple[int, Usage, float]] = field(default_factory=dict)

    def add(self, *, source: str, model: str, role: str, usage: Usage, cost: float) -> None:
        calls, before, spent = self._rows.get((source, model, role), (0, Usage(), 0.0))
        self._rows[source, model, role] = (calls + 1, before + usage, spent + cost)

    def by_model(self) -> list[Mapping[str, Any]]:
        return [
            {
                "provider": source,
                "model": model,
                "role": role,
                "calls": calls,
                "tokens_in": usage.tokens_in,
                "tokens_out": usage.tokens_out,
                "cost": round(cost, 9),
            }
            for (source, model, role), (calls, usage, cost) in self._rows.items()
        ]

"""Which roles the steps of an agent play, so that a model for a role that nothing plays is told. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from astromesh.specs.findings import Caution
from astromesh.specs.keys import Places

if TYPE_CHECKING:
    from astromesh.specs.agent import AgentSpec
    from astromesh.specs.orchestration import Pattern

# By pattern, as its script names them; besides them the names of workers and stages are roles.
PLAYED: Mapping[Pattern, tuple[str, ...]] = {
    "react": ("reasoner",),
    "plan_and_execute": ("planner", "synthesizer", "worker"),
    "parallel_fan_out": ("planner", "synthesizer", "worker"),
    "pipeline": (),
    "supervisor": ("supervisor",),
    "swarm": ("reasoner",),
    "team": ("orchestrator", "writer"),
}
SUMMARY = "summary"  # sums up the turns that leave the window of the memory


def role_findings(spec: AgentSpec, places: Places) -> Iterator[Caution]:
    """Of each role in `spec.model.roles` that nothing plays: its models are never asked."""
    played = tuple(_played(spec))
    for role in spec.model.roles:
        if role not in played:
            close = get_close_matches(role, played, n=1)
            guess = f"Did you mean '{close[0]}'? " if close else ""
            said = "no step of this agent plays this role, so its models are never asked"
            yield places.caution(("spec", "model", "roles", role), said, f"{guess}Roles of this agent: {', '.join(played) or 'none'}.")


def _played(spec: AgentSpec) -> Iterator[str]:
    written = spec.orchestration
    # Where the agent does not say, the node's defaults do; what they may say is in no document of the agent.
    patterns = [written.pattern] if written.pattern is not None else list(PLAYED)
    roles = [role for pattern in patterns for role in PLAYED[pattern]]
    roles += [worker.role or worker.called for worker in written.workers]
    roles += [stage.role or f"stage:{stage.name}" for stage in written.stages]
    if spec.output_schema:
        roles.append("reasoner")
    if spec.memory.conversational is not None and spec.memory.conversational.strategy == "summary":
        roles.append(SUMMARY)
    yield from dict.fromkeys(roles)

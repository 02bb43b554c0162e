"""Who works for an agent, what is wrong with that, and what of it its pattern does not use. Pure.

An agent that cannot do what its pattern says, a supervisor without workers, is a mistake: run as something else it would be another agent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from astromesh.specs.agent import AgentSpec, Permissions
from astromesh.specs.findings import Caution, Mistake, Path
from astromesh.specs.keys import Places
from astromesh.specs.orchestration import Pattern, Peer, Stage, Worker
from astromesh.specs.resource import key_of, qualified
from astromesh.specs.schemas import BadSchema, Schema, object_schema
from astromesh.specs.section import is_agent_reference
from astromesh.specs.tools import refusal, refused

WRITER = "writer"  # of a team: the member of this name writes the answer

_USES: Mapping[Pattern, tuple[str, ...]] = {
    "react": (),
    "plan_and_execute": (),
    "parallel_fan_out": ("workers", "merge"),
    "pipeline": ("stages",),
    "supervisor": ("workers",),
    "swarm": ("peers", "max_handoffs"),
    "team": ("workers",),
}
_NEEDS: Mapping[Pattern, tuple[str, str]] = {
    "pipeline": ("stages", "stages: [{name: draft, prompt: …}, …]"),
    "supervisor": ("workers", "workers: [NAME OF AN AGENT, …]"),
    "swarm": ("peers", "peers: [NAME OF AN AGENT, …]"),
    "team": ("workers", "workers: [{name: researcher, prompt: …}, …]"),
}
_ORCHESTRATION: Path = ("spec", "orchestration")


def workers_of(spec: AgentSpec) -> tuple[Worker, ...]:
    """Those of the document; under a supervisor its permitted tools of type agent, too, which are no tools then."""
    return (*spec.orchestration.workers, *(Worker(**said) for said in _agent_tools(spec, "supervisor")))


def peers_of(spec: AgentSpec) -> tuple[Peer, ...]:
    """Those of the document; in a swarm its permitted tools of type agent, too, which are no tools then."""
    return (*spec.orchestration.peers, *(Peer(**said) for said in _agent_tools(spec, "swarm")))


def tools_that_are_members(spec: AgentSpec) -> tuple[str, ...]:
    """Their names: the model gives them work or hands off to them, and does not call them."""
    return tuple(said["name"] for said in (*_agent_tools(spec, "supervisor"), *_agent_tools(spec, "swarm")))


def _agent_tools(spec: AgentSpec, pattern: Pattern) -> Iterator[dict[str, Any]]:
    if spec.orchestration.pattern == pattern:
        for tool in spec.tools:
            if tool.type == "agent" and is_agent_reference(tool.agent) and not refused(tool, spec.permissions):
                yield {"name": tool.called, "agent": tool.agent, "description": tool.description}


@dataclass(frozen=True, slots=True)
class _Asks:
    """Who asks others: an agent, and what it may."""

    name: str
    namespace: str
    permissions: Permissions | None

    def mistakes(self, called: str, agent: str, path: Path, places: Places) -> Iterator[Mistake]:
        """Of one that it names in its document."""
        if not is_agent_reference(agent):
            said = "there is neither 'prompt' nor 'role', so this is another agent, and that cannot be the name of one"
            yield places.mistake(path, said, "Add 'prompt: …', or write the agent's name.")
        elif key_of(agent, within=self.namespace) == qualified(self.name, self.namespace):
            yield places.mistake(path, "this is the agent itself", "Name another one.")
        elif why := refusal(self.permissions, (called,)):
            # Left out in silence, a stage or a worker would be another agent than the one that is written.
            yield places.mistake(path, f"this agent may not ask {called}: {why}", "Permit it, or remove it here.")


def member_findings(spec: AgentSpec, places: Places, *, name: str, namespace: str) -> Iterator[Mistake | Caution]:
    """`name` and `namespace`: the agent's own."""
    said = spec.orchestration
    asks = _Asks(name, namespace, spec.permissions)
    pattern: Pattern = said.pattern or "react"
    yield from _missing(spec, pattern, places)
    for key in ("workers", "peers", "stages", "merge", "max_handoffs"):
        if key in said.model_fields_set and getattr(said, key) not in (None, ()) and key not in _USES[pattern]:
            used = [other for other, keys in _USES.items() if key in keys]
            yield places.caution((*_ORCHESTRATION, key), f"is not used by {pattern}", f"Write 'pattern: {used[0]}', or remove it.")
    if "workers" in _USES[pattern]:
        yield from _twice("workers", [worker.called for worker in said.workers], workers_of(spec), places)
        for number, worker in enumerate(said.workers):
            yield from _worker_findings(worker, spec, (*_ORCHESTRATION, "workers", number), places, asks=asks)
    if "peers" in _USES[pattern]:
        yield from _twice("peers", [peer.called for peer in said.peers], peers_of(spec), places)
        for number, peer in enumerate(said.peers):
            yield from asks.mistakes(peer.called, peer.agent_named, (*_ORCHESTRATION, "peers", number), places)
            if peer.called == name and key_of(peer.agent_named, within=namespace) != qualified(name, namespace):
                where = (*_ORCHESTRATION, "peers", number, "name")
                yield places.mistake(where, "this is the name of the agent itself", "Give the peer another name.")
    if "stages" in _USES[pattern]:
        yield from _twice("stages", [stage.name for stage in said.stages], said.stages, places)
        for number, stage in enumerate(said.stages):
            path: Path = (*_ORCHESTRATION, "stages", number)
            if stage.agent is not None:
                yield from asks.mistakes(stage.name, stage.agent, path, places)
            yield from _unused(stage, ("role", "max_tokens"), path, places)
            yield from _role(stage.role, spec, path, places)
    yield from _schema_findings(spec, pattern, places)


def _missing(spec: AgentSpec, pattern: Pattern, places: Places) -> Iterator[Mistake]:
    key, example = _NEEDS.get(pattern, ("", ""))
    there: Mapping[str, Sequence[object]] = {
        "": (None,),
        "workers": workers_of(spec),
        "peers": peers_of(spec),
        "stages": spec.orchestration.stages,
    }
    if not there[key]:
        yield places.mistake((*_ORCHESTRATION, "pattern"), f"a {pattern} needs {key}, and there are none", f"Add '{example}'.")
    elif pattern == "team" and all(worker.called == WRITER for worker in spec.orchestration.workers):
        said = "the writer comes last, and nobody works before"
        yield places.mistake((*_ORCHESTRATION, "workers"), said, "Add '{name: researcher, prompt: …}'.")


def _worker_findings(worker: Worker, spec: AgentSpec, path: Path, places: Places, *, asks: _Asks) -> Iterator[Mistake | Caution]:
    if worker.agent_named is not None:
        yield from asks.mistakes(worker.called, worker.agent_named, path, places)
    yield from _unused(worker, ("prompt", "role", "max_tokens"), path, places)
    yield from _role(worker.role, spec, path, places)


def _unused(member: Worker | Stage, keys: tuple[str, ...], path: Path, places: Places) -> Iterator[Caution]:
    """What another agent has of its own."""
    if member.agent is not None:
        for key in keys:
            if getattr(member, key) is not None:
                yield places.caution((*path, key), f"is not used: agent {member.agent} has its own", "Remove it.")


def _role(role: str | None, spec: AgentSpec, path: Path, places: Places) -> Iterator[Caution]:
    if role is not None and role != "default" and role not in spec.model.roles:
        said = "spec.model.roles has no such role: the agent's default model is asked"
        yield places.caution((*path, "role"), said, f"Add 'roles: {{{role}: {{candidates: […]}}}}' to spec.model.")


def _twice(key: str, written: Sequence[str], resolved: Sequence[Worker | Peer | Stage], places: Places) -> Iterator[Mistake]:
    seen: set[str] = set()
    for number, called in enumerate(member.name or "" if isinstance(member, Stage) else member.called for member in resolved):
        if called in seen:
            path: Path = (*_ORCHESTRATION, key, number) if number < len(written) else ("spec", "tools")
            yield places.mistake(path, f"'{called}' is here twice, and they are called by their names", "Give one of them another 'name'.")
        seen.add(called)


def _schema_findings(spec: AgentSpec, pattern: Pattern, places: Places) -> Iterator[Mistake | Caution]:
    if not spec.output_schema:
        return
    path: Path = ("spec", "output_schema")
    try:
        Schema(object_schema(spec.output_schema))
    except BadSchema as mistake:
        yield places.mistake(path, f"no answer could be checked against this: {mistake}", "It is JSON Schema, or {key: {type: string}}.")
    if pattern == "swarm":
        yield places.caution(
            path, "holds for this agent's own answers: who is handed a conversation answers under a schema of its own, or none"
        )

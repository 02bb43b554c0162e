"""Agents from their first draft to their removal: created, changed, deployed, paused and removed, on this node and on all that hold them.

What is kept on disk changes first, then, in one step, what runs: after a crash a change has happened whole or not at all, and a run that
began goes on with the agent that it began with. A file of the configuration that names an agent is the only one to say what that agent is;
over the API it can be paused and deployed again, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar

import orjson

from astromesh.errors import (
    AgentConflict,
    AgentExists,
    AgentInFile,
    AgentUndeployable,
    AgentUnusable,
    AstromeshError,
    InvalidDocument,
    InvalidRequest,
    Overloaded,
    UnknownAgent,
    UnsafeAgentName,
)
from astromesh.fleet.offers import Offer, OfferedAgent, OfferTooLarge, slots
from astromesh.fleet.roster import Roster
from astromesh.runtime.agent import AgentChange, Changed
from astromesh.runtime.agent_calls import change_on, document_on
from astromesh.runtime.assembly import Assembly
from astromesh.runtime.engine import AgentRuntime
from astromesh.runtime.peers import PeerCalls
from astromesh.service.agent_files import AGENTS_KEPT_MAX, AgentFiles, KeptAgent
from astromesh.service.config_dir import Configuration
from astromesh.service.standings import Standing, built, of_file, of_kept, read_agent
from astromesh.specs.resource import qualified
from astromesh.specs.submitted import identity, placed
from maia.view import MemberView

CHANGES_WAITING_MAX = 64  # each takes milliseconds; who waits longer than for so many is told to come back
DIGEST_BYTES = 6  # of a document, in what is offered: two that differ share it once in 10¹⁴
VERSION_SHOWN_MAX = 40  # characters of what is offered; an offer has little room

T = TypeVar("T")
_DONE: Mapping[str, str] = {"update": "updated", "remove": "removed", "deploy": "deployed", "pause": "paused"}
_NEEDS_TRIAL = ("update", "deploy")


class AgentLifecycle:
    """An `AgentControl`, and what serves the same from other nodes."""

    def __init__(
        self,
        *,
        node: str,
        runtime: AgentRuntime,
        roster: Roster,
        peers: PeerCalls,
        files: AgentFiles,
        environment: Mapping[str, str],
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called whenever what is offered may have changed."""
        self._node = node
        self._runtime = runtime
        self._roster = roster
        self._peers = peers
        self._files = files
        self._environment = environment
        self._changed = changed
        self._kept: dict[str, KeptAgent] = {}
        self._standings: Mapping[str, Standing] = {}
        self._in_files: frozenset[str] = frozenset()  # also those that are broken
        self._told: frozenset[str] = frozenset()  # what is said of the files themselves
        self._assembly: Assembly | None = None
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._begun: set[asyncio.Task[Any]] = set()
        self.offered: tuple[OfferedAgent, ...] = ()

    def open(self, configuration: Configuration, assembly: Assembly) -> list[str]:
        """Everything that can be used is used from now on. What somebody should know of the files is returned, and stops nothing."""
        self._kept, problems = self._files.read()
        self.adopt(configuration, assembly, self.standings(configuration, assembly))
        return problems

    def troubles(self) -> list[str]:
        """Agents that cannot run although no file of the configuration is wrong in itself."""
        return [f"agent {one.key}: {one.broken}" for one in self._standings.values() if one.broken and one.broken not in self._told]

    async def close(self) -> None:
        """What began is carried through."""
        await asyncio.gather(*self._begun, return_exceptions=True)

    # What the doors ask for.

    async def create(self, document: Mapping[str, Any], *, namespace: str | None) -> dict[str, Any]:
        return await self._carried(self._create(document, namespace=namespace))

    async def change(self, change: AgentChange) -> dict[str, Any]:
        return await self._carried(self._change_everywhere(change))

    async def document(self, name: str, namespace: str, *, draft: bool) -> Mapping[str, Any]:
        key = qualified(name, namespace)
        if key in self._standings:
            return self.document_here(name, namespace, draft=draft)
        holders = self._roster.holding(key)
        failure: AstromeshError | None = None
        for member, _ in sorted(holders, key=lambda each: (each[1].status == "draft", each[0].name)):
            try:
                return await document_on(self._peers, member, name, namespace, draft=draft)
            except AstromeshError as error:
                failure = error
        raise failure or self._unknown(key)

    # What is done on this node, also on the word of another.

    async def change_here(self, change: AgentChange) -> Changed:
        return await self._carried(self._change_here(change))

    def document_here(self, name: str, namespace: str, *, draft: bool) -> Mapping[str, Any]:
        key = qualified(name, namespace)
        standing = self._standings.get(key)
        if standing is None:
            raise self._unknown(key)
        if standing.agent is not None and not draft:
            return standing.agent.document
        if standing.draft is not None:
            return standing.draft.document
        if draft:
            raise UnknownAgent(f"there is no draft of agent {key}", hint="leave state=draft out for the deployed document")
        raise AgentUnusable(f"agent {key}: {standing.broken}", hint="astromesh-node config validate shows every mistake")

    # What a reload needs.

    @property
    def agents(self) -> Mapping[str, Standing]:
        """All that this node has, by key."""
        return self._standings

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Nobody else changes agents meanwhile."""
        if self._waiting >= CHANGES_WAITING_MAX:
            raise Overloaded(f"{CHANGES_WAITING_MAX} changes of agents wait on {self._node} already", hint="send it again soon")
        self._waiting += 1
        try:
            async with self._lock:
                yield
        finally:
            self._waiting -= 1

    def standings(
        self, configuration: Configuration, assembly: Assembly, *, unchanged: Callable[[Standing], bool] = lambda standing: False
    ) -> Mapping[str, Standing]:
        """What there would be of each agent with that configuration. What is `unchanged` is not built again."""
        found: dict[str, Standing] = {}
        for resource in configuration.agents:
            before = self._standings.get(resource.key)
            if before is not None and before.file == resource and unchanged(before):
                found[resource.key] = before
            else:
                found[resource.key] = self._of_file(resource, self._kept.get(resource.key), assembly)
        for broken in configuration.broken:
            if broken.kind == "Agent" and broken.name:
                key = qualified(broken.name, broken.namespace)
                if key in found:
                    found[key] = replace(found[key], broken=str(broken.mistakes[0]))
                else:
                    found[key] = Standing(broken.name, broken.namespace, "draft", broken=str(broken.mistakes[0]))
        for key, kept in self._kept.items():
            if key in found or (kept.deployed is None and kept.draft is None):
                continue
            before = self._standings.get(key)
            if before is not None and before.file is None and unchanged(before):
                found[key] = before
            else:
                found[key] = of_kept(kept, assembly, environment=self._environment)
        return found

    def adopt(self, configuration: Configuration, assembly: Assembly, standings: Mapping[str, Standing]) -> None:
        self._assembly = assembly
        broken = (qualified(one.name, one.namespace) for one in configuration.broken if one.kind == "Agent" and one.name)
        self._in_files = frozenset((*(agent.key for agent in configuration.agents), *broken))
        self._told = frozenset(map(str, configuration.mistakes))
        self._show(standings)

    def _show(self, standings: Mapping[str, Standing]) -> None:
        """What runs from now on. In one step: nobody sees half of it."""
        self._standings = standings
        runtime = self._runtime
        ordered = [standings[key] for key in sorted(standings)]
        runtime.agents = {one.key: one.agent for one in ordered if one.agent is not None and one.status == "deployed"}
        runtime.paused = {one.key: one.agent for one in ordered if one.agent is not None and one.status == "paused"}
        runtime.drafts = {one.key: one.draft for one in ordered if one.draft is not None}
        runtime.broken = {one.key: one.broken for one in ordered if one.broken}
        self._of_now().watch(runtime.agents.values())
        self.offered = _offered(ordered)
        self._changed()

    # How a change happens.

    async def _create(self, document: Mapping[str, Any], *, namespace: str | None) -> dict[str, Any]:
        found = identity(document, namespace=namespace)
        if found is None:
            raise UnsafeAgentName(
                "the document has no name that is safe to use",
                hint="metadata.name, and the namespace too, is at most 63 of a-z, 0-9 and '-', with a letter or a digit first and last",
            )
        name, own = found
        if namespace is not None and own != namespace:
            raise InvalidRequest(
                f"the document is of namespace {own}, and the address says {namespace}", hint="say it in one of them", param="namespace"
            )
        key = qualified(name, own)
        async with self.alone():
            if key in self._in_files:
                raise self._in_file(key)
            if key in self._standings or key in self._kept:
                raise AgentExists(
                    f"there is an agent {key} on {self._node} already", hint=f"PUT /v1/agents/{name} makes a draft of a new version"
                )
            if len(self._kept) >= AGENTS_KEPT_MAX:
                raise AgentConflict(f"{self._node} keeps {AGENTS_KEPT_MAX} agents already", hint="remove some, or ask another node")
            whole = placed(document, own)
            await asyncio.to_thread(read_agent, whole, environment=self._environment)
            kept = KeptAgent(name, own, "draft", None, whole)
            standing = await asyncio.to_thread(of_kept, kept, self._of_now(), environment=self._environment)
            self._check_room(standing)
            await asyncio.to_thread(self._files.write, kept)
            self._keep(kept, standing)
        assert standing.draft is not None, "it was read"
        elsewhere = [self._roster.label(member.name) for member, _ in self._roster.holding(key)]
        told = [f"there is an agent of this name on {', '.join(elsewhere)}, too: a change of either reaches both"] if elsewhere else []
        warnings = [*standing.draft.warnings, *await self._in_vain(whole), *told]
        return {"name": name, "namespace": own, "version": standing.version, "status": "registered", "warnings": warnings}

    async def _change_everywhere(self, change: AgentChange) -> dict[str, Any]:
        """Here and on every node that holds it. What one of them could refuse is tried on all before it is done on any."""
        nodes: list[MemberView | None] = [None] if change.key in self._standings else []
        nodes += [member for member, _ in self._roster.holding(change.key)]
        if not nodes:
            raise self._unknown(change.key)
        failures: dict[str, AstromeshError] = {}
        if change.verb in _NEEDS_TRIAL:
            outcomes = await self._on_all(nodes, replace(change, trial=True))
            for outcome in outcomes:
                if isinstance(outcome, InvalidDocument | AgentUndeployable):
                    raise outcome
            nodes = self._without_failures(nodes, outcomes, failures)
        outcomes = await self._on_all(nodes, change)
        reached = self._without_failures(nodes, outcomes, failures)
        warnings = [warning for outcome in outcomes if isinstance(outcome, Changed) for warning in outcome.warnings]
        warnings += [f"{node} is as it was: {failure.message}" for node, failure in failures.items()]
        return {
            "agent": change.name,
            "name": change.name,
            "namespace": change.namespace,
            "status": _DONE[change.verb],
            "nodes": [self._label(node) for node in reached],
            "failures": [
                {"node": node, "code": failure.code, "message": failure.message, "hint": failure.hint} for node, failure in failures.items()
            ],
            "warnings": list(dict.fromkeys(warnings)),
        }

    async def _on_all(self, nodes: Sequence[MemberView | None], change: AgentChange) -> list[Changed | AstromeshError]:
        """This node first, where it is among them: what it refuses is raised, and nobody else is asked."""

        async def on(member: MemberView) -> Changed | AstromeshError:
            try:
                return await change_on(self._peers, member, change)
            except AstromeshError as failure:
                failure.message = f"{self._roster.label(member.name)}: {failure.message}"
                return failure

        here: list[Changed | AstromeshError] = [await self._change_here(change)] if None in nodes else []
        return [*here, *await asyncio.gather(*(on(node) for node in nodes if node is not None))]

    def _without_failures(
        self, nodes: Sequence[MemberView | None], outcomes: Sequence[Changed | AstromeshError], failures: dict[str, AstromeshError]
    ) -> list[MemberView | None]:
        fine: list[MemberView | None] = []
        for node, outcome in zip(nodes, outcomes, strict=True):
            if isinstance(outcome, Changed):
                fine.append(node)
            else:
                failures[self._label(node)] = outcome
        if not fine:
            raise next(iter(failures.values()))
        return fine

    async def _change_here(self, change: AgentChange) -> Changed:
        async with self.alone():
            standing = self._standings.get(change.key)
            if standing is None:
                raise self._unknown(change.key)
            if change.key in self._in_files:
                return await self._change_of_file(change, standing)
            kept = self._kept[change.key]
            match change.verb:
                case "update":
                    return await self._update(change, kept)
                case "deploy":
                    return await self._deploy(change, kept, standing)
                case "pause":
                    if kept.deployed is None:
                        raise AgentUndeployable(
                            f"agent {change.key} is only a draft: it answers nobody anyhow", hint="leave it, or remove it"
                        )
                    if kept.status != "paused":
                        after = replace(kept, status="paused")
                        await asyncio.to_thread(self._files.write, after)
                        self._keep(after, replace(standing, status="paused"))
                    return Changed("paused")
                case "remove":
                    await asyncio.to_thread(self._files.remove, change.name, change.namespace)
                    del self._kept[change.key]
                    self._show({key: one for key, one in self._standings.items() if key != change.key})
                    return Changed("removed")

    async def _update(self, change: AgentChange, kept: KeptAgent) -> Changed:
        document = change.document or {}
        found = identity(document, namespace=change.namespace)
        if found != (change.name, change.namespace):
            said = "has no name" if found is None else f"is of agent {qualified(*found)}"
            raise InvalidDocument(f"the document {said}, and the address of {change.key}", hint="an agent cannot be renamed: post another")
        whole = placed(document, change.namespace)
        await asyncio.to_thread(read_agent, whole, environment=self._environment)
        after = replace(kept, draft=whole)
        standing = await asyncio.to_thread(of_kept, after, self._of_now(), environment=self._environment)
        if change.trial:
            return Changed("updated")
        await asyncio.to_thread(self._files.write, after)
        self._keep(after, standing)
        assert standing.draft is not None, "it was read"
        return Changed("updated", (*standing.draft.warnings, *await self._in_vain(whole)))

    async def _deploy(self, change: AgentChange, kept: KeptAgent, standing: Standing) -> Changed:
        document = kept.draft if kept.draft is not None else kept.deployed
        assert document is not None, "there is always one of them"
        try:
            agent = await asyncio.to_thread(built, document, self._of_now(), environment=self._environment)
        except (InvalidDocument, AgentUnusable) as mistake:
            raise AgentUndeployable(f"agent {change.key} cannot run on {self._node}: {mistake.message}", hint=mistake.hint) from mistake
        if change.trial:
            return Changed("deployed")
        if kept.draft is None and kept.status == "deployed" and standing.agent is not None:
            return Changed("deployed", agent.warnings)
        after = replace(kept, status="deployed", deployed=document, draft=None)
        await asyncio.to_thread(self._files.write, after)
        self._keep(after, Standing(kept.name, kept.namespace, "deployed", agent))
        return Changed("deployed", agent.warnings)

    async def _change_of_file(self, change: AgentChange, standing: Standing) -> Changed:
        """Paused, and deployed again: what is kept of it says no more."""
        if change.verb in ("update", "remove") or standing.file is None:
            raise self._in_file(change.key)
        if change.verb == "deploy" and standing.agent is None:
            raise AgentUndeployable(f"agent {change.key} cannot run: {standing.broken}", hint=f"mend {standing.file.source} and reload it")
        if change.trial or standing.status == _DONE[change.verb]:
            return Changed(_DONE[change.verb])
        kept = self._kept.get(change.key)
        if change.verb == "pause":
            if kept is not None and (kept.deployed is not None or kept.draft is not None):
                raise AgentConflict(
                    f"{self._files.path(change.name, change.namespace)} holds another agent of this name: a pause has no place",
                    hint="remove that file, or the one of the configuration, and start the node again",
                )
            after = KeptAgent(change.name, change.namespace, "paused", None, None)
            await asyncio.to_thread(self._files.write, after)
            self._keep(after, replace(standing, status="paused"))
        else:
            await asyncio.to_thread(self._files.remove, change.name, change.namespace)
            self._kept.pop(change.key, None)
            self._show({**self._standings, change.key: replace(standing, status="deployed")})
        return Changed(_DONE[change.verb])

    def _keep(self, kept: KeptAgent, standing: Standing) -> None:
        self._kept[kept.key] = kept
        self._show({**self._standings, kept.key: standing})

    def _check_room(self, standing: Standing) -> None:
        """Raises `AgentConflict` where the mesh takes no more from one node."""
        try:
            slots(Offer(agents=_offered([*self._standings.values(), standing])))
        except OfferTooLarge as full:
            raise AgentConflict(f"{self._node} has as many agents as one node can offer: {full}", hint="post it to another node") from full

    async def _in_vain(self, document: Mapping[str, Any]) -> tuple[str, ...]:
        """Why this draft could not be deployed here as things are."""
        try:
            await asyncio.to_thread(built, document, self._of_now(), environment=self._environment)
        except AgentUnusable as mistake:
            return (f"cannot be deployed on {self._node} yet: {mistake.message}",)
        return ()

    def _of_file(self, resource: Any, kept: KeptAgent | None, assembly: Assembly) -> Standing:
        return of_file(resource, kept, assembly, beside=str(self._files.path(resource.name, resource.namespace)))

    def _of_now(self) -> Assembly:
        assert self._assembly is not None, "open"
        return self._assembly

    def _label(self, node: MemberView | None) -> str:
        return self._node if node is None else self._roster.label(node.name)

    def _in_file(self, key: str) -> AgentInFile:
        file = self._standings[key].file
        where = f"in {file.place('metadata.name')}" if file is not None else "in a file of the configuration that has mistakes"
        return AgentInFile(f"agent {key} is {where}", hint="change or delete that file, then astromesh-node config reload")

    def _unknown(self, key: str) -> UnknownAgent:
        return UnknownAgent(f"no node of this mesh has an agent named {key!r}", hint="astromesh-node agents list shows what there is")

    async def _carried(self, work: Coroutine[Any, Any, T]) -> T:
        """To its end, whoever asked and is gone by then: half of a change would be nobody's wish."""
        task = asyncio.create_task(work, name="changing an agent")
        self._begun.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._begun.discard(task)
        _ = task.cancelled() or task.exception()  # whoever left does not want to know


def _offered(standings: Sequence[Standing]) -> tuple[OfferedAgent, ...]:
    """What can run or could be deployed; what is broken is not offered. In the order of names."""
    rows = []
    for one in standings:
        known = one.agent or one.draft
        if known is None or (one.agent is None and one.status != "draft"):
            continue
        digest = sha256(orjson.dumps(known.document, option=orjson.OPT_SORT_KEYS)).digest()[:DIGEST_BYTES]
        keeps = one.agent is not None and one.agent.keeps_sessions
        rows.append(OfferedAgent(one.name, one.namespace, one.version[:VERSION_SHOWN_MAX], one.status, digest, keeps))
    return tuple(sorted(rows, key=lambda row: (row.name, row.namespace)))

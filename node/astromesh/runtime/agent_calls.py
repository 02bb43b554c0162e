"""What nodes ask of each other about an agent that is not to run it: to change it, and to show its document.

A change that came over a link is carried out here, or refused; it is never passed on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from astromesh.errors import AstromeshError
from astromesh.runtime.agent import AgentChange, Changed
from astromesh.runtime.bodies import from_agent_change, from_changed, from_error, to_agent_change, to_changed, to_document
from astromesh.runtime.peers import PeerCalls
from astromesh.telemetry.metrics import Metrics
from maia.drivers.link import IncomingCall
from maia.errors import CallFailed
from maia.view import MemberView

CHANGE = "agent.change"
SHOW = "agent.show"
TIMEOUT_S = 10.0  # a document is read and checked, and one file written and synced


class Keeping(Protocol):
    """What serving needs of whoever keeps this node's agents."""

    async def change_here(self, change: AgentChange) -> Changed: ...

    def document_here(self, name: str, namespace: str, *, draft: bool) -> Mapping[str, Any]: ...


async def change_on(peers: PeerCalls, member: MemberView, change: AgentChange) -> Changed:
    return await peers.ask_once(member, CHANGE, from_agent_change(change), to_changed, timeout_s=TIMEOUT_S)


async def document_on(peers: PeerCalls, member: MemberView, name: str, namespace: str, *, draft: bool) -> Mapping[str, Any]:
    body = {"name": name, "namespace": namespace, "draft": draft}
    return await peers.ask_once(member, SHOW, body, to_document, timeout_s=TIMEOUT_S)


class AgentCallServing:
    """The handlers of the link door."""

    def __init__(self, keeping: Keeping, metrics: Metrics) -> None:
        self._keeping = keeping
        self._metrics = metrics

    async def change(self, call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        async def answer() -> Mapping[str, Any]:
            return from_changed(await self._keeping.change_here(to_agent_change(call.body)))

        yield await self._served(CHANGE, answer)

    async def show(self, call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        async def answer() -> Mapping[str, Any]:
            name, namespace, draft = str(call.body.get("name")), str(call.body.get("namespace")), bool(call.body.get("draft"))
            return {"document": dict(self._keeping.document_here(name, namespace, draft=draft))}

        yield await self._served(SHOW, answer)

    async def _served(self, kind: str, answer: Callable[[], Awaitable[Mapping[str, Any]]]) -> Mapping[str, Any]:
        outcome = "cancelled"
        try:
            said = await answer()
            outcome = "ok"
            return said
        except AstromeshError as error:
            outcome = error.code
            raise CallFailed(from_error(error), definite=error.definite) from error
        finally:
            self._metrics.served.labels(kind, outcome).inc()

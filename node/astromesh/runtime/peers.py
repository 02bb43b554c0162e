"""Other nodes: calling what they offer, and serving their calls for what is offered here.

One hop. A completion that came over a link is served here or refused, a run that came over a link is conducted here or refused; neither is
ever passed on as what it came as, so no request can go round in circles.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from time import monotonic
from typing import Any, Protocol, TypeVar

from astromesh.dialogue import EncodingRequest, Encodings, ModelEvent, ModelRequest
from astromesh.errors import (
    AgentUnavailable,
    AstromeshError,
    BodyTooLarge,
    DeadlineExceeded,
    MalformedBody,
    ModelUnavailable,
    PeerLost,
    SessionHomeUnreachable,
)
from astromesh.fleet.loads import read
from astromesh.fleet.roster import Roster
from astromesh.runtime.act_bodies import from_act_reply, from_act_request, to_act_frame
from astromesh.runtime.acts import ActFrame, ActReply, ActRequest
from astromesh.runtime.bodies import (
    from_encoding_request,
    from_encodings,
    from_error,
    from_event,
    from_request,
    from_run_event,
    to_encoding_request,
    to_encodings,
    to_error,
    to_event,
    to_request,
    to_run_event,
)
from astromesh.runtime.events import RunEvent
from astromesh.telemetry.metrics import Metrics
from maia.catalogue.loads import LOAD_KEPT_S
from maia.drivers.link import IncomingCall
from maia.drivers.switchboard import Peer, Switchboard
from maia.errors import CallError, CallExpired, CallFailed, CallRefused, LinkLost, PeerUnreachable
from maia.view import MemberView

B = TypeVar("B")
V = TypeVar("V")

# What it means to whoever asks that a node certainly did not do it.
Unreachable = ModelUnavailable | AgentUnavailable | SessionHomeUnreachable

COMPLETE = "model.complete"
ENCODE = "model.encode"
RUN = "agent.run"
ACT = "agent.act"
REPLY = "agent.reply"
RETRY_AFTER_S = 5  # a node that comes back is usable again about this long after its process starts


class PeerCalls:
    """Calls to other nodes, as streams of our own values and errors."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self.board: Switchboard | None = None  # None while the mesh is off: then nobody is there to be called
        self._pids: dict[str, int] = {}
        self._lost_s: dict[str, float] = {}  # by wire name: when a call there last found no link or lost it, on the mesh's clock

    def doubts(self, member: MemberView) -> bool:
        """Whether a link there failed and the mesh has heard nothing from it since: a reason to ask others first, as a suspicion is.

        A process that dies breaks its links at once; until its peers suspect it, a probe has to come and go.
        """
        lost_s = self._lost_s.get(member.name)
        return lost_s is not None and member.heard_s <= lost_s

    def busy(self, member: MemberView) -> float | None:
        """How busy it is, in requests, by its last word, in gossip or at the end of a call; None where that is unknown or too old."""
        told = self.board.load(member.name) if self.board is not None else None
        last = max((seen for seen in (member.load, told) if seen is not None), key=lambda seen: seen.at_s, default=None)
        if last is None or monotonic() > last.at_s + LOAD_KEPT_S:
            return None
        load = read(last.value)
        return load.busy if load is not None else None

    def _doubt(self, member: MemberView) -> None:
        view = self._roster.view()
        known = view.members if view is not None else {}
        self._lost_s = {name: lost_s for name, lost_s in self._lost_s.items() if name in known} | {member.name: monotonic()}

    def model_on(self, member: MemberView) -> Callable[..., AsyncGenerator[ModelEvent, None]]:
        """`complete` of a model provider, carried out by that member."""

        async def complete(request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
            calls = self._call(member, COMPLETE, from_request(request), timeout_s=timeout_s, unreachable=ModelUnavailable)
            async with aclosing(calls) as bodies:
                async for body in bodies:
                    if type(pid := body.get("pid")) is int:
                        self._pids[member.name] = pid
                    yield self._read(to_event, body, member)

        return complete

    def pid(self, name: str) -> int | None:
        """The process of a member, by its wire name, as it was when a model there last answered."""
        return self._pids.get(name)

    async def encode_on(self, member: MemberView, request: EncodingRequest, *, timeout_s: float) -> Encodings:
        """Texts turned into numbers by that member."""
        calls = self._call(member, ENCODE, from_encoding_request(request), timeout_s=timeout_s, unreachable=ModelUnavailable)
        async with aclosing(calls) as told:
            bodies = [body async for body in told]
        return self._read(lambda whole: to_encodings(whole, request=request), bodies, member)

    async def run_on(
        self, member: MemberView, request: Mapping[str, Any], *, timeout_s: float, unreachable: type[Unreachable] = AgentUnavailable
    ) -> AsyncGenerator[RunEvent, None]:
        """A run of an agent that this member hosts: its events as they happen there."""
        told = self.ask_each(member, RUN, request, to_run_event, timeout_s=timeout_s, unreachable=unreachable)
        async with aclosing(told) as events:
            async for event in events:
                yield event

    async def ask_each(
        self,
        member: MemberView,
        kind: str,
        body: Mapping[str, Any],
        to_value: Callable[[Mapping[str, Any]], V],
        *,
        timeout_s: float,
        unreachable: type[Unreachable] = AgentUnavailable,
    ) -> AsyncGenerator[V, None]:
        """A call about an agent, answer by answer."""
        async with aclosing(self._call(member, kind, body, timeout_s=timeout_s, unreachable=unreachable)) as told:
            async for reply in told:
                yield self._read(to_value, reply, member)

    async def act_on(self, member: MemberView, request: ActRequest, *, timeout_s: float) -> AsyncGenerator[ActFrame, None]:
        """An act of an agent that this member hosts, for a run of ours."""
        async with aclosing(self.ask_each(member, ACT, from_act_request(request), to_act_frame, timeout_s=timeout_s)) as frames:
            async for frame in frames:
                yield frame

    async def reply_to(self, member: MemberView, reply: ActReply, *, timeout_s: float) -> None:
        """What came of what an act there has asked for."""
        await self.ask_once(member, REPLY, from_act_reply(reply), lambda _: None, timeout_s=timeout_s)

    async def ask_once(
        self, member: MemberView, kind: str, body: Mapping[str, Any], to_value: Callable[[Mapping[str, Any]], V], *, timeout_s: float
    ) -> V:
        """A call about an agent that has one answer."""
        async with aclosing(self._call(member, kind, body, timeout_s=timeout_s, unreachable=AgentUnavailable)) as told:
            async for reply in told:
                return self._read(to_value, reply, member)
        raise PeerLost(f"{self._roster.label(member.name)} gave no answer", hint="do both nodes run the same version?")

    async def call_on(
        self, member: MemberView, kind: str, body: Mapping[str, Any], to_value: Callable[[Mapping[str, Any]], V], *, timeout_s: float
    ) -> AsyncGenerator[V, None]:
        """A call about an agent or a run of it that has many answers, as they come."""
        async with aclosing(self._call(member, kind, body, timeout_s=timeout_s, unreachable=AgentUnavailable)) as told:
            async for reply in told:
                yield self._read(to_value, reply, member)

    def _read(self, to_value: Callable[[B], V], body: B, member: MemberView) -> V:
        """What the peer said. That it cannot be read is the peer's fault, not that of whoever asks this node."""
        try:
            return to_value(body)
        except MalformedBody as mistake:
            raise PeerLost(f"{self._roster.label(member.name)} cannot be understood: {mistake.message}", hint=mistake.hint) from mistake

    async def _call(
        self,
        member: MemberView,
        kind: str,
        body: Mapping[str, Any],
        *,
        timeout_s: float,
        unreachable: type[Unreachable],
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        label = self._roster.label(member.name)
        if self.board is None or member.link is None:
            raise unreachable(f"{label} has no link to be called on", hint="is the mesh enabled there?", retry_after_s=RETRY_AFTER_S)
        try:
            async with self.board.call(Peer(member.name, member.link), kind, body, timeout_s=timeout_s) as replies:
                async for reply in replies:
                    yield reply
        except CallFailed as failure:
            error = to_error({**failure.body, "definite": failure.definite})
            if isinstance(error, MalformedBody):
                # It could not read what this node wrote, which is no fault of whoever asked this node.
                raise unreachable(f"{label} does not understand the request", hint=error.hint, retry_after_s=RETRY_AFTER_S) from failure
            raise error from failure
        except CallExpired as failure:
            raise DeadlineExceeded(
                f"{label} did not finish within {timeout_s:.0f} s", hint="raise timeout_seconds, or pick a faster model"
            ) from failure
        except PeerUnreachable as failure:
            self._doubt(member)
            raise unreachable(
                f"{label} cannot be reached: {failure}", hint="astromesh-node members shows who is there", retry_after_s=RETRY_AFTER_S
            ) from failure
        except CallError as failure:
            if isinstance(failure, CallRefused) and failure.reason == "body_too_large":
                raise BodyTooLarge(
                    f"what {label} would have to be sent is too large: {failure}", hint="begin a new conversation, or ask with less text"
                ) from failure
            if isinstance(failure, LinkLost):
                self._doubt(member)
            lost: AstromeshError = (
                unreachable(f"{label} refused: {failure}", hint="ask again soon", retry_after_s=1)
                if failure.definite
                else PeerLost(f"{label} went away in the middle: {failure}", hint="ask again: whoever else offers it will be asked")
            )
            raise lost from failure


class Completing(Protocol):
    """What serving needs of `runtime.models`."""

    def complete(self, request: ModelRequest, *, timeout_s: float, forwarded: bool) -> AsyncGenerator[Any, None]: ...


class Encoding(Protocol):
    """What serving needs of `runtime.encodings`."""

    async def encode(self, request: EncodingRequest, *, timeout_s: float, forwarded: bool) -> tuple[Any, Encodings]: ...


StartRun = Callable[[Mapping[str, Any], float], Awaitable["ServedRun"]]
StartAct = Callable[[Mapping[str, Any], float, str], Awaitable["ServedRun"]]
TakeReply = Callable[[Mapping[str, Any], str], None]


class ServedRun(Protocol):
    """What serving needs of a run of `runtime.engine`."""

    @property
    def events(self) -> AsyncIterator[RunEvent]: ...

    async def close(self) -> None: ...


class PeerServing:
    """The handlers of the link door."""

    def __init__(
        self, *, models: Completing, encoder: Encoding, start_run: StartRun, start_act: StartAct, take_reply: TakeReply, metrics: Metrics
    ) -> None:
        self._models = models
        self._encoder = encoder
        self._start_run = start_run
        self._start_act = start_act
        self._take_reply = take_reply
        self._metrics = metrics

    async def complete(self, call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        outcome = "cancelled"
        try:
            request = to_request(call.body)
            async with aclosing(self._models.complete(request, timeout_s=call.remaining_s(), forwarded=True)) as stream:
                await anext(stream)  # who serves it: this node, which the caller knows
                said: dict[str, Any] = {"pid": os.getpid()}
                async for event in stream:
                    yield {**from_event(event), **said}
                    said = {}
            outcome = "ok"
        except AstromeshError as error:
            outcome = error.code
            raise CallFailed(from_error(error), definite=error.definite) from error
        finally:
            self._metrics.served.labels(COMPLETE, outcome).inc()

    async def encode(self, call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        outcome = "cancelled"
        try:
            request = to_encoding_request(call.body)
            _, made = await self._encoder.encode(request, timeout_s=call.remaining_s(), forwarded=True)
            for body in from_encodings(made):
                yield body
            outcome = "ok"
        except AstromeshError as error:
            outcome = error.code
            raise CallFailed(from_error(error), definite=error.definite) from error
        finally:
            self._metrics.served.labels(ENCODE, outcome).inc()

    async def run(self, call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        async with aclosing(self._told(RUN, self._start_run(call.body, call.remaining_s()))) as bodies:
            async for body in bodies:
                yield body

    async def act(self, call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        async with aclosing(self._told(ACT, self._start_act(call.body, call.remaining_s(), call.peer))) as bodies:
            async for body in bodies:
                yield body

    async def reply(self, call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        outcome = "ok"
        try:
            self._take_reply(call.body, call.peer)
            yield {}
        except AstromeshError as error:
            outcome = error.code
            raise CallFailed(from_error(error), definite=error.definite) from error
        finally:
            self._metrics.served.labels(REPLY, outcome).inc()

    async def _told(self, kind: str, start: Awaitable[ServedRun]) -> AsyncGenerator[Mapping[str, Any], None]:
        """What is begun, event by event; closed with whoever reads it."""
        outcome = "cancelled"
        try:
            run = await start
            try:
                async for event in run.events:
                    yield from_run_event(event)
            finally:
                await run.close()
            outcome = "ok"
        except AstromeshError as error:
            outcome = error.code
            raise CallFailed(from_error(error), definite=error.definite) from error
        finally:
            self._metrics.served.labels(kind, outcome).inc()

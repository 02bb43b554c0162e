"""A conversation over one WebSocket: a reader, a writer, and one timer.

The reader hands bytes to the conversation; the writer takes batches from it, so frames that were said in one turn of the event loop
leave in one write. No frame has a task or a timer of its own. `CallingLink` wakes those who wait for replies; `ServingLink` runs the
handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
from aiohttp import web

from maia.errors import CallFailed, ConversationBroken, MaiaError
from maia.links.calling import CallingSide, Ended
from maia.links.conversation import CallArrived, CallWithdrawn, Conversation, Event, Greeted, LoadTold, MayReply, Progress
from maia.links.greeting import Greeting
from maia.links.limits import BATCH_BYTES
from maia.links.serving import ServingSide

WebSocket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse

# A goodbye is a courtesy: the other side notices the end of the stream anyway.
GOODBYE_MAX_S = 1.0
GOODBYE_TEXT_BYTES = 120  # RFC 6455, §5.5: a close frame has room for 123
# Handlers that were cancelled get this long to release what they hold before the link stops waiting for them.
TIDY_UP_MAX_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """What happened on all links of a node, since its start."""

    calls_out: int = 0
    calls_in: int = 0
    cancelled: int = 0
    expired: int = 0
    failed: int = 0
    loads_unreadable: int = 0


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """A call that another node makes here. `peer` is the name that it introduced itself by; `deadline` is on the event loop's clock."""

    kind: str
    body: Mapping[str, Any]
    peer: str
    deadline: float

    def remaining_s(self) -> float:
        return max(0.0, self.deadline - asyncio.get_running_loop().time())


# Yields the bodies of the replies. Cancelled or closed when nobody waits for them any more.
Handler = Callable[[IncomingCall], AsyncIterator[Mapping[str, Any]]]


class Link(ABC):
    """Common to both sides. `over` is done, with the reason, as soon as the link is good for nothing."""

    def __init__(self, conversation: Conversation, web_socket: WebSocket) -> None:
        self._loop = asyncio.get_running_loop()
        self._conversation = conversation
        self._web_socket = web_socket
        # A handle of our own to the connection: aiohttp forgets its transport when a goodbye times out with unsent bytes in it, uvloop's
        # stand-in for the socket has no `shutdown`, and the number of a handle that is not ours may by then mean another connection.
        given = web_socket.get_extra_info("socket")
        self._connection = socket.fromfd(given.fileno(), given.family, given.type) if given is not None else None
        self.over: asyncio.Future[str] = self._loop.create_future()
        self._room: asyncio.Future[None] | None = None  # the writer waits for something to say
        self._timer = self._set_timer()

    def _set_timer(self) -> asyncio.Handle:
        # Remembered, because uvloop's handle of a time that has passed does not tell for when it was set.
        self._timer_s = self._conversation.due
        return self._loop.call_at(self._timer_s, self._tick)

    def end(self, why: str) -> None:
        """Hang up. What is under way fails at once; the goodbye follows."""
        if not self.over.done():
            self.over.set_result(why)
            self._timer.cancel()
            self._lost(why)

    async def run(self) -> None:
        """Until the link is over and everything that it carried has ended."""
        tasks = [
            self._loop.create_task(self._read(), name="link: reader"),
            self._loop.create_task(self._write(), name="link: writer"),
        ]
        try:
            everything: list[asyncio.Future[Any]] = [self.over, *tasks]
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.end("this node is closing the link")
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    _log.error("link to %s: ended by a mistake of this node", self._conversation.peer_name, exc_info=outcome)
            await self._say_goodbye(self.over.result())

    @abstractmethod
    def _deal(self, events: list[Event]) -> None: ...

    @abstractmethod
    def _lost(self, why: str) -> None: ...

    def _stir(self) -> None:
        """After the conversation was told anything."""
        conversation = self._conversation
        self._deal(conversation.events())
        if self._room is not None and conversation.has_outgoing:
            if not self._room.done():  # the writer of a link that is over was cancelled, and calls end behind it
                self._room.set_result(None)
            self._room = None
        if conversation.due < self._timer_s and not self.over.done():
            self._timer.cancel()
            self._timer = self._set_timer()

    def _tick(self) -> None:
        try:
            self._conversation.tick(now=self._loop.time())
        except ConversationBroken as broken:
            self.end(str(broken))
            return
        self._timer = self._set_timer()
        self._stir()

    async def _read(self) -> None:
        conversation, receive = self._conversation, self._web_socket.receive
        try:
            while True:
                message = await receive()
                if message.type is not aiohttp.WSMsgType.BINARY:
                    self.end(_farewell(message))
                    return
                conversation.receive(message.data, now=self._loop.time())
                self._stir()
        except ConversationBroken as broken:
            _log.warning("link to %s: %s", conversation.peer_name, broken)
            self._deal(conversation.events())
            self.end(str(broken))
        except (OSError, aiohttp.ClientError, RuntimeError) as error:
            self.end(f"reading failed: {error}")

    async def _write(self) -> None:
        conversation, send = self._conversation, self._web_socket.send_bytes
        try:
            while True:
                batch = conversation.outgoing()
                self._deal(conversation.events())
                if not batch:
                    self._room = self._loop.create_future()
                    await self._room
                    continue
                await send(batch)
                if len(batch) >= BATCH_BYTES:
                    # A socket that swallows everything would otherwise keep the loop here until a large body is gone.
                    await asyncio.sleep(0)
        except (OSError, aiohttp.ClientError, RuntimeError) as error:
            self.end(f"writing failed: {error}")

    async def _say_goodbye(self, why: str) -> None:
        try:
            async with asyncio.timeout(GOODBYE_MAX_S):
                text = why.encode()[:GOODBYE_TEXT_BYTES].decode(errors="ignore")
                await self._web_socket.close(code=aiohttp.WSCloseCode.GOING_AWAY, message=text.encode())
        except (TimeoutError, OSError, aiohttp.ClientError, RuntimeError):
            _log.debug("link to %s: no goodbye was possible", self._conversation.peer_name)
        finally:
            if self._connection is not None:
                # Closing a transport waits for its unsent bytes, and a peer that hangs never takes them.
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
                self._connection.close()


def _farewell(message: aiohttp.WSMessage) -> str:
    match message.type:
        case aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.CLOSED:
            return f"the other side closed it: {message.extra}" if message.extra else "the other side closed it"
        case aiohttp.WSMsgType.ERROR:
            return f"not a WebSocket any more: {message.data}"
        case _:
            return "the other side sent text, where only binary messages are possible"


class CallingLink(Link):
    """The asking side. Closes itself after `idle_max_s` without a call."""

    def __init__(
        self,
        conversation: CallingSide,
        web_socket: WebSocket,
        *,
        tally: Tally,
        idle_max_s: float,
        told: Callable[[bytes], None] = lambda load: None,
    ) -> None:
        """`told` is given what the other side says of how busy it is."""
        self._told = told
        self._calls = conversation
        self._tally = tally
        self._idle_max_s = idle_max_s
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.greeted: asyncio.Future[Greeting] = asyncio.get_running_loop().create_future()
        super().__init__(conversation, web_socket)
        self._idle_since = self._loop.time()

    @property
    def in_flight(self) -> int:
        return self._calls.in_flight

    @property
    def rtt_s(self) -> float | None:
        return self._calls.rtt_s

    def call(self, kind: str, body: Mapping[str, Any], *, timeout_s: float) -> int:
        """The number of the call. Raises as `CallingSide.call` does."""
        call_id = self._calls.call(kind, body, timeout_s=timeout_s, now=self._loop.time())
        self._tally.calls_out += 1
        self._stir()
        return call_id

    async def next_reply(self, call_id: int) -> Mapping[str, Any] | Ended:
        while (taken := self._calls.take(call_id)) is None:
            waiting = self._waiting[call_id] = self._loop.create_future()
            try:
                await waiting
            finally:
                self._waiting.pop(call_id, None)
        if self._conversation.has_outgoing:
            self._stir()
        return taken

    def leave(self, call_id: int) -> None:
        if self._calls.leave(call_id, now=self._loop.time()):
            self._tally.cancelled += 1
        self._idle_since = self._loop.time()
        self._stir()

    def _tick(self) -> None:
        if self._calls.in_flight == 0 and self._loop.time() - self._idle_since >= self._idle_max_s:
            self.end(f"no call for {self._idle_max_s:.0f} s")
            return
        super()._tick()

    def _deal(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Progress(call_id):
                    waiting = self._waiting.get(call_id)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(None)
                case LoadTold(load):
                    if load is None:
                        self._tally.loads_unreadable += 1
                    else:
                        self._told(load)
                case Greeted(introduction):
                    if not self.greeted.done():
                        self.greeted.set_result(introduction.greeting)
                case _:
                    raise AssertionError(f"{event} on the asking side")

    def _lost(self, why: str) -> None:
        self._calls.lost(why)
        self._deal(self._calls.events())


class ServingLink(Link):
    """The answering side: one task for each call in flight, cancelled when its caller is gone."""

    def __init__(self, conversation: ServingSide, web_socket: WebSocket, *, handlers: Mapping[str, Handler], tally: Tally) -> None:
        self._serving = conversation
        self._handlers = handlers
        self._tally = tally
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._held: dict[int, asyncio.Future[None]] = {}
        super().__init__(conversation, web_socket)

    @property
    def in_flight(self) -> int:
        return self._serving.in_flight

    @property
    def peer_name(self) -> str:
        return self._serving.peer_name

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            if self._tasks:
                _, late = await asyncio.wait(list(self._tasks.values()), timeout=TIDY_UP_MAX_S)
                for task in late:
                    _log.error("%s was cancelled %.0f s ago and still runs", task.get_name(), TIDY_UP_MAX_S)

    def drain(self) -> None:
        """Refuse every call from now on; those in flight go on."""
        self._serving.draining = True

    def _deal(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case CallArrived(call_id, kind):
                    self._tally.calls_in += 1
                    task = self._loop.create_task(self._handle(event), name=f"link: {kind} for {self.peer_name}")
                    self._tasks[call_id] = task
                    # Not a `finally` of the task: one that is cancelled before its first step never enters it.
                    task.add_done_callback(partial(self._finished, call_id))
                case CallWithdrawn(call_id, outcome):
                    if outcome == "expired":
                        self._tally.expired += 1
                    else:
                        self._tally.cancelled += 1
                    self._tasks[call_id].cancel()
                case MayReply(call_id):
                    held = self._held.get(call_id)
                    if held is not None and not held.done():
                        held.set_result(None)
                case Greeted():
                    pass
                case _:
                    raise AssertionError(f"{event} on the answering side")

    async def _handle(self, call: CallArrived) -> None:
        call_id = call.call_id
        replies: AsyncIterator[Mapping[str, Any]] | None = None
        try:
            replies = self._handlers[call.kind](IncomingCall(call.kind, call.body, self.peer_name, call.deadline))
            async for body in replies:
                pace = self._serving.reply(call_id, body)
                self._stir()
                if pace == "wait":
                    await self._until_there_is_room(call_id)
                elif pace == "stop":  # withdrawn, and the handler made light of its cancellation
                    break
            self._serving.end(call_id)
            self._stir()
        except asyncio.CancelledError:
            # By a withdrawal, and then this says nothing; or by something inside the handler, and then somebody still waits.
            self._serving.fail(call_id, _unexplained(call.kind).body, definite=False)
            self._stir()
            raise
        except CallFailed as failure:
            self._fail(call, failure)
        except Exception:  # noqa: BLE001  whatever a handler raises ends its call, and nothing else
            _log.exception("%s for %s failed", call.kind, self.peer_name)
            self._fail(call, _unexplained(call.kind))
        finally:
            await _close(replies)

    def _finished(self, call_id: int, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (mistake := task.exception()) is not None:
            _log.error("%s ended by a mistake of this node", task.get_name(), exc_info=mistake)
        del self._tasks[call_id]
        self._serving.finish(call_id)

    def _fail(self, call: CallArrived, failure: CallFailed) -> None:
        self._tally.failed += 1
        try:
            self._serving.fail(call.call_id, failure.body, definite=failure.definite)
        except MaiaError:
            _log.exception("%s for %s failed, and its failure cannot be sent", call.kind, self.peer_name)
            self._serving.fail(call.call_id, {"message": f"{call.kind} failed"}, definite=failure.definite)
        self._stir()

    async def _until_there_is_room(self, call_id: int) -> None:
        held = self._held[call_id] = self._loop.create_future()
        try:
            await held
        finally:
            del self._held[call_id]

    def _lost(self, why: str) -> None:
        if self._tasks:
            _log.info("link from %s: %s; %d calls are cancelled", self.peer_name, why, len(self._tasks))
        for task in self._tasks.values():
            task.cancel()


def _unexplained(kind: str) -> CallFailed:
    """What went wrong is for this node's log: messages of arbitrary exceptions carry paths, prompts and keys."""
    return CallFailed({"message": f"{kind} failed; the log of the node that served it says why"}, definite=False)


async def _close(replies: AsyncIterator[Mapping[str, Any]] | None) -> None:
    aclose = getattr(replies, "aclose", None)
    if aclose is None:
        return
    try:
        await aclose()
    except Exception:  # noqa: BLE001  the call has its outcome already; this is about what its handler leaves behind
        _log.exception("a handler failed while it was closed")

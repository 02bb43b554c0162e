"""All links of a node: the door where others call in, and one link to each peer that is called from here.

A link is opened by the first call that needs it; calls that come meanwhile wait for the same dial. It closes when nobody has used it for
long, and after a loss the next call opens a new one. Everything happens in the event loop that entered the switchboard.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

import aiohttp
from aiohttp import web

from maia.config import Address
from maia.drivers.link import CallingLink, Handler, Link, ServingLink, Tally
from maia.errors import MisuseError, PeerUnreachable
from maia.links.calling import CallingSide, Ended
from maia.links.greeting import Greeting
from maia.links.limits import MESSAGE_BYTES_MAX, LinkLimits
from maia.links.serving import ServingSide
from maia.view import LoadSeen

PATH = "/link"
# While a node drains, how often it looks whether the last call has ended.
DRAIN_LOOK_S = 0.01
LOADS_MAX = 4096  # remembered; as many members as a mesh has

_log = logging.getLogger(__name__)

LinkState = Literal["open", "dialing"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A member of the mesh to call: its name there, and where its link door is."""

    name: str
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardLimits:
    """Bounds on all links together, and on each."""

    link: LinkLimits = field(default_factory=LinkLimits)
    # On a LAN a dial takes a millisecond. 3 s is one lost SYN and its second try (RFC 6298: after 1 s, then 2 s).
    dial_timeout_s: float = 3.0
    idle_max_s: float = 300.0
    # A mesh is reckoned for 1,000 nodes, each with one link in; the rest is for links that are just being replaced.
    links_in_max: int = 1100


@dataclass(frozen=True, slots=True)
class LinkStats:
    state: LinkState
    rtt_ms: float | None  # smoothed; unknown until the first pong
    calls: int  # in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardStats:
    """`links` are those that were opened from here, by the name of the peer. What is not `in_flight` or open counts since the start."""

    links: Mapping[str, LinkStats]
    links_in: int
    in_flight_out: int
    in_flight_in: int
    calls_out: int
    calls_in: int
    cancelled: int
    expired: int
    failed: int
    loads_unreadable: int


class _Line:
    """The way to one peer: a dial, and the link once it is open."""

    __slots__ = ("dial", "link")

    def __init__(self, dial: asyncio.Task[CallingLink]) -> None:
        self.dial = dial
        self.link: CallingLink | None = None


class Switchboard:
    """`async with Switchboard(...) as board`; leaving it closes everything."""

    def __init__(
        self,
        *,
        me: Greeting,
        handlers: Mapping[str, Handler],
        limits: BoardLimits | None = None,
        load: Callable[[], bytes] = bytes,
        heard: Callable[[str], None] = lambda name: None,
        finishing: Collection[str] = (),
    ) -> None:
        """`finishing`: kinds that are served while this node drains, because calls under way may wait for them.

        `load` says at any time how busy this node is; whoever calls it is told with the end of the call.

        `heard` is told the name of whoever has just answered a call of ours.
        """
        self._me = me
        self._load = load
        self._heard = heard
        self._loads: dict[str, LoadSeen] = {}
        self._handlers = MappingProxyType(dict(handlers))
        self._finishing = frozenset(finishing)
        self._limits = limits or BoardLimits()
        self._tally = Tally()
        self._lines: dict[str, _Line] = {}
        self._serving: set[ServingLink] = set()
        self._running: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._closed = False
        self._session: aiohttp.ClientSession | None = None
        self._door: asyncio.Server | None = None
        self._doorman: web.Server | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        # Peers are few and each has one link, so there is nothing to pool; and a proxy from the environment is never the way to a peer.
        connector = aiohttp.TCPConnector(limit=0, force_close=True, use_dns_cache=False)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def serve(self, host: str, port: int) -> int:
        """Open the door; the port that was bound. Raises `OSError` when it is in use."""
        self._doorman = web.Server(self._answer, access_log=None)
        self._door = await self._loop.create_server(self._doorman, host, port)
        bound: int = self._door.sockets[0].getsockname()[1]
        return bound

    def call(self, peer: Peer, kind: str, body: Mapping[str, Any], *, timeout_s: float) -> Call:
        """To be entered with `async with`; what it gives is iterated over for the replies. Both raise `CallError`.

        Entering raises where nothing was sent: `PeerUnreachable`, or `CallRefused` by this side. Iterating raises whatever the other side
        and the way there have to say. Leaving cancels what has not ended. Raises `MisuseError` for a body that is not fit for the wire.
        """
        return Call(self, peer, kind, body, timeout_s=timeout_s)

    def load(self, name: str) -> LoadSeen | None:
        """How busy a peer said it was when a call of ours last ended there, on the loop's clock; None of one that never said."""
        return self._loads.get(name)

    def _told(self, name: str, load: bytes) -> None:
        self._heard(name)
        self._loads.pop(name, None)
        if len(self._loads) >= LOADS_MAX:
            del self._loads[next(iter(self._loads))]
        self._loads[name] = LoadSeen(load, self._loop.time())

    def hang_up(self, name: str, why: str) -> None:
        """Break the link to a peer that is known to be gone: its calls fail now, not when silence proves it."""
        line = self._lines.pop(name, None)
        if line is not None:
            line.dial.cancel()
            if line.link is not None:
                line.link.end(why)

    async def drain(self, grace_s: float) -> bool:
        """Refuse new calls from others, and wait until none is in flight in either direction. Whether that came true within `grace_s`."""
        self._draining = True
        for link in self._serving:
            link.drain()
        try:
            async with asyncio.timeout(grace_s):
                while self._in_flight_in() or self._in_flight_out():  # noqa: ASYNC110  once in a node's life; an event would cost every call
                    await asyncio.sleep(DRAIN_LOOK_S)
        except TimeoutError:
            _log.warning(
                "%d calls in and %d calls out are still in flight after %.0f s", self._in_flight_in(), self._in_flight_out(), grace_s
            )
            return False
        return True

    async def close(self) -> None:
        """Hang up everywhere. Calls in flight fail with `LinkLost`, handlers are cancelled and awaited."""
        self._closed = True
        if self._door is not None:
            self._door.close()
        for name in list(self._lines):
            self.hang_up(name, "this node is closing")
        links: list[Link] = list(self._serving)
        for link in links:
            link.end("this node is closing")
        while self._running:  # a dial that is being given up may still start the link that it then ends
            await asyncio.wait(list(self._running))
        if self._doorman is not None:
            await self._doorman.shutdown(timeout=0)
        if self._session is not None:
            await self._session.close()

    def stats(self) -> BoardStats:
        links = {
            name: LinkStats("dialing", None, 0)
            if line.link is None
            else LinkStats("open", None if line.link.rtt_s is None else line.link.rtt_s * 1000, line.link.in_flight)
            for name, line in sorted(self._lines.items())
        }
        return BoardStats(
            links=MappingProxyType(links),
            links_in=len(self._serving),
            in_flight_out=self._in_flight_out(),
            in_flight_in=self._in_flight_in(),
            calls_out=self._tally.calls_out,
            calls_in=self._tally.calls_in,
            cancelled=self._tally.cancelled,
            expired=self._tally.expired,
            failed=self._tally.failed,
            loads_unreadable=self._tally.loads_unreadable,
        )

    async def link_to(self, peer: Peer, *, timeout_s: float) -> CallingLink:
        """The open link to `peer`, dialed if need be. Raises `PeerUnreachable`."""
        # An open link is good wherever the peer may be reached today: it answers to the name, and pings prove that it lives.
        line = self._lines.get(peer.name)
        if line is not None and line.link is not None:
            return line.link
        if line is None:
            line = self._start_dial(peer)
        # Waited for, not awaited: a caller that gives up must not take the dial from the others.
        await asyncio.wait([line.dial], timeout=timeout_s)
        if not line.dial.done():
            raise PeerUnreachable(f"{peer.name} at {peer.address}: no link within the {timeout_s:.1f} s that the call had")
        if line.dial.cancelled():
            raise PeerUnreachable(f"{peer.name} at {peer.address}: the dial was given up")
        if (failure := line.dial.exception()) is not None:
            # One failure for all who waited: each gets an exception of its own, because a raised one collects a traceback.
            raise PeerUnreachable(str(failure)) from failure
        link = line.dial.result()
        if link.over.done():
            raise PeerUnreachable(f"{peer.name} at {peer.address}: {link.over.result()}")
        return link

    def _start_dial(self, peer: Peer) -> _Line:
        if self._closed or self._session is None:
            raise PeerUnreachable(f"{peer.name} at {peer.address}: this node's switchboard is not open")
        dial = self._loop.create_task(self._dial(peer, self._session), name=f"link: dial {peer.name}")
        self._own(dial)
        line = self._lines[peer.name] = _Line(dial)
        dial.add_done_callback(lambda _: self._dialed(peer.name, line))
        return line

    def _dialed(self, name: str, line: _Line) -> None:
        if line.dial.cancelled() or line.dial.exception() is not None:
            if self._lines.get(name) is line:
                del self._lines[name]
            return
        line.link = line.dial.result()
        line.link.over.add_done_callback(lambda _: self._hung_up(name, line))

    def _hung_up(self, name: str, line: _Line) -> None:
        if self._lines.get(name) is line:
            del self._lines[name]

    async def _dial(self, peer: Peer, session: aiohttp.ClientSession) -> CallingLink:
        where = f"{peer.name} at {peer.address}"
        try:
            async with asyncio.timeout(self._limits.dial_timeout_s):
                web_socket = await session.ws_connect(
                    f"http://{peer.address}{PATH}",
                    compress=0,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=0.5),
                )
        except TimeoutError as error:
            raise PeerUnreachable(f"{where}: no answer within {self._limits.dial_timeout_s:.1f} s") from error
        except (OSError, aiohttp.ClientError) as error:
            raise PeerUnreachable(f"{where}: {error}") from error
        conversation = CallingSide(self._me, self._limits.link, now=self._loop.time())
        told = partial(self._told, peer.name)
        link = CallingLink(conversation, web_socket, tally=self._tally, idle_max_s=self._limits.idle_max_s, told=told)
        self._run(link, name=f"link: to {peer.name}")
        try:
            first: list[asyncio.Future[Any]] = [link.greeted, link.over]
            await asyncio.wait(first, timeout=self._limits.dial_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if link.over.done():
                raise PeerUnreachable(f"{where}: {link.over.result()}")
            if not link.greeted.done():
                raise PeerUnreachable(f"{where}: no hello within {self._limits.dial_timeout_s:.1f} s")
            found = link.greeted.result().name
            if found != peer.name:
                raise PeerUnreachable(f"{peer.address} was called as {peer.name}, and {found} answered")
        except BaseException:
            link.end("the dial was given up")
            raise
        return link

    def _run(self, link: Link, *, name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(link.run(), name=name)
        self._own(task)
        return task

    def _own(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The door. A link is between nodes: whatever could come from a web page, or by a name that is not this machine's, stays out."""
        if "Origin" in request.headers:
            return web.Response(status=403, text="web pages have no business here\n")
        if not _is_loopback(request.headers.get("Host", "").lower()):
            return web.Response(status=403, text="without certificates, links are for this machine: the Host has to be loopback\n")
        if request.path != PATH:
            return web.Response(status=404, text=f"this is the link door of a node; its only path is {PATH}\n")
        web_socket = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_BYTES_MAX, timeout=0.5)
        if not web_socket.can_prepare(request).ok:
            return web.Response(status=426, text="links are WebSockets\n", headers={"Upgrade": "websocket"})
        if self._closed or len(self._serving) >= self._limits.links_in_max:
            return web.Response(status=503, text=f"{len(self._serving)} links are open here, {self._limits.links_in_max} are the limit\n")
        await web_socket.prepare(request)
        conversation = ServingSide(
            self._me, self._limits.link, kinds=self._handlers, now=self._loop.time(), load=self._load, finishing=self._finishing
        )
        link = ServingLink(conversation, web_socket, handlers=self._handlers, tally=self._tally)
        if self._draining:
            link.drain()
        self._serving.add(link)
        try:
            await asyncio.wait([self._run(link, name="link: from a peer")])
        finally:
            self._serving.discard(link)
        return web_socket

    def _in_flight_out(self) -> int:
        return sum(line.link.in_flight for line in self._lines.values() if line.link is not None)

    def _in_flight_in(self) -> int:
        return sum(link.in_flight for link in self._serving)


class Call:
    """One call to another node, as a context and as the iterator over its replies."""

    __slots__ = ("_board", "_body", "_call_id", "_kind", "_link", "_over", "_peer", "_timeout_s")

    def __init__(self, board: Switchboard, peer: Peer, kind: str, body: Mapping[str, Any], *, timeout_s: float) -> None:
        self._board = board
        self._peer = peer
        self._kind = kind
        self._body = body
        self._timeout_s = timeout_s
        self._link: CallingLink | None = None
        self._call_id = 0
        self._over = False

    async def __aenter__(self) -> AsyncIterator[Mapping[str, Any]]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        link = await self._board.link_to(self._peer, timeout_s=self._timeout_s)
        remaining_s = self._timeout_s - (loop.time() - began)
        self._call_id = link.call(self._kind, self._body, timeout_s=remaining_s)
        self._link = link
        return self

    def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        return self

    async def __anext__(self) -> Mapping[str, Any]:
        if self._link is None:
            raise MisuseError("replies are read inside `async with board.call(...)`")
        if self._over:
            raise StopAsyncIteration
        reply = await self._link.next_reply(self._call_id)
        if isinstance(reply, Ended):
            self._over = True
            if reply.error is not None:
                raise reply.error
            raise StopAsyncIteration
        return reply

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.leave(self._call_id)


def _is_loopback(host: str) -> bool:
    """Of a Host header in lower case: a name or an address, with or without a port."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.rpartition(":")[0] or host
    if name == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return False

"""What changes in the mesh, as it happens: one event stream for each watcher, and none of them holds up the node or another.

A stream begins with `members`, everyone as they are; from there on every change is one event with the member as it is now. After this node
itself began a new life, `members` comes again and replaces everything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time
from typing import Any, assert_never

from aiohttp import web

from astromesh.api.event_stream import EventStream
from astromesh.api.house import HOUSE, House, MeshControl
from astromesh.api.mesh import iso, off
from astromesh.errors import Overloaded
from maia.view import (
    GenerationRaised,
    IncarnationRaised,
    KeyMissing,
    KeyQueryEnded,
    KeyringChanged,
    MemberChanged,
    MemberCleared,
    MemberDied,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberReturned,
    MemberSuspected,
    MeshEvent,
    MeshView,
    NameContested,
    OffersChanged,
    SeedAnswered,
)

WATCHERS_MAX = 32  # people with a terminal or a page open; each costs a row of JSON for every change
WAITING_MAX = 512  # a mesh of a hundred that loses its switch says some three hundred things at once
LAST_WORDS_S = 2.0  # a watcher that reads again within this time learns why it was dropped; its connection is cut after it

Told = tuple[str, dict[str, Any]]


class Watcher:
    """What is still to be told to one watcher. `farewell` says why it ends, once it does."""

    def __init__(self, cut: Callable[[], None]) -> None:
        """`cut` breaks the connection, whatever is being written to it."""
        self._cut = cut
        self._cutting: asyncio.TimerHandle | None = None
        self._waiting: deque[Told] = deque()
        self._news = asyncio.Event()
        self.farewell = ""

    def tell(self, told: Told) -> None:
        if self.farewell:
            return
        if len(self._waiting) >= WAITING_MAX:
            self.end(f"dropped: {WAITING_MAX} events were waiting; ask again and begin with everyone as they are then")
            return
        self._waiting.append(told)
        self._news.set()

    def end(self, why: str) -> None:
        """Nothing more is told. Who does not even read the reason is cut off."""
        if self.farewell:
            return
        self.farewell = why
        self._waiting.clear()
        self._news.set()
        self._cutting = asyncio.get_running_loop().call_later(LAST_WORDS_S, self._cut)

    async def next(self) -> Told | None:
        """What comes next; None at the end."""
        while not self._waiting:
            if self.farewell:
                return None
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    def close(self) -> None:
        if self._cutting is not None:
            self._cutting.cancel()


class Watchers:
    """Everyone who watches this node's mesh."""

    def __init__(self) -> None:
        self._all: list[Watcher] = []

    @contextmanager
    def admit(self, cut: Callable[[], None]) -> Iterator[Watcher]:
        """Raises `Overloaded` where there are too many."""
        if len(self._all) >= WATCHERS_MAX:
            raise Overloaded(f"{WATCHERS_MAX} others watch the mesh through this node", hint="watch through another node, or end one")
        watcher = Watcher(cut)
        self._all.append(watcher)
        try:
            yield watcher
        finally:
            watcher.close()
            self._all.remove(watcher)

    def __len__(self) -> int:
        return len(self._all)

    async def close(self, _app: web.Application) -> None:
        """The doors close: otherwise every watcher would hold them open for as long as they wait for anybody."""
        for watcher in self._all:
            watcher.end("the node is shutting down")


WATCHERS = web.AppKey("watchers", Watchers)


async def events(request: web.Request) -> web.StreamResponse:
    house = request.app[HOUSE]
    mesh, view = house.mesh, house.roster.view()
    if mesh is None or view is None:
        raise off()
    with request.app[WATCHERS].admit(lambda: _cut(request)) as watcher:
        told = Telling(house, mesh)

        def hear(event: MeshEvent) -> None:
            for each in told.of(event):
                watcher.tell(each)

        watcher.tell(told.everyone(view))
        end = mesh.listen(hear)
        try:
            async with EventStream(request, {}) as stream:
                position = 0
                while (now := await watcher.next()) is not None:
                    await stream.event(position, *now)
                    position += 1
                await stream.comment(watcher.farewell)
                return await stream.end()
        finally:
            end()


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


class Telling:
    """Events of the mesh in the words of the API."""

    def __init__(self, house: House, mesh: MeshControl) -> None:
        self._house = house
        self._mesh = mesh

    def everyone(self, view: MeshView) -> Told:
        rows = [self._row(view, name) for name in view.members]
        return "members", {"at": iso(time()), "node": self._house.node, "version": view.version, "members": rows}

    def of(self, event: MeshEvent) -> list[Told]:
        """What a watcher is told of an event; nothing of what changes no row."""
        view = self._house.roster.view()
        if view is None:
            return []
        match event:
            case MemberJoined(name):
                return [self._about(view, "joined", name)]
            case MemberReturned(name):
                returned = self._about(view, "returned", name)
                return [returned, self.everyone(view)] if name == view.me else [returned]
            case MemberSuspected(name, accuser):
                return [self._about(view, "suspected", name, accuser)]
            case MemberCleared(name):
                return [self._about(view, "cleared", name)]
            case MemberDied(name, accuser):
                return [self._about(view, "died", name, accuser)]
            case MemberLeft(name):
                return [self._about(view, "left", name)]
            case MemberForgotten(name):
                return [self._about(view, "forgotten", name)]
            case MemberChanged(name):
                return [self._about(view, "changed", name)]
            case IncarnationRaised():
                return [self._about(view, "changed", view.me)]
            case (
                OffersChanged() | GenerationRaised() | SeedAnswered() | NameContested() | KeyQueryEnded() | KeyringChanged() | KeyMissing()
            ):
                return []
            case _:
                assert_never(event)

    def _about(self, view: MeshView, kind: str, name: str, accuser: str = "") -> Told:
        label = self._house.roster.label
        return kind, {
            "at": iso(time()),
            "name": label(name),
            "accuser": label(accuser) if accuser else None,
            "wire_name": name,
            "member": self._row(view, name) if name in view.members else None,
        }

    def _row(self, view: MeshView, name: str) -> dict[str, Any]:
        member = view.members[name]
        return {
            "name": self._house.roster.label(name),
            "wire_name": name,
            "node_id": member.node_id,
            "status": member.status,
            "gossip": str(member.gossip),
            "url": f"http://{member.api}" if member.api else None,
            "role": member.role,
            "incarnation": member.incarnation,
            "since": iso(time() - (self._mesh.clock() - member.since_s)),
        }

"""A model hub and its file server on loopback, as far as a download sees them: redirects, digests, parts of files, and bad days."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

LOOK_S = 0.01
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True, slots=True)
class Asked:
    path: str
    range: str
    authorization: str


@dataclass(slots=True)
class HubDouble:
    """`answers` come first, one for each request of the file server; once they are used up it sends the file."""

    content: bytes
    base: str = ""
    linked: str | None = None  # None: the digest of the content; empty: it tells none
    etag: str = '"v1"'
    takes_ranges: bool = True
    tells_length: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes after which a connection breaks, one for each
    hang_after: int | None = None  # … and then the connection breaks
    answers: list[web.Response] = field(default_factory=list)
    secret: str = ""  # a token without which the hub refuses
    asked: list[Asked] = field(default_factory=list)
    sent: int = 0
    arrived: int = 0  # what the client says it has
    sends: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        if self.secret and request.headers.get("Authorization") != f"Bearer {self.secret}":
            return web.Response(status=401)
        linked = self.digest if self.linked is None else self.linked
        headers = {"Location": f"/cdn/{request.match_info['file']}?signature=hidden", "X-Repo-Commit": COMMIT}
        return web.Response(status=302, headers={**headers, **({"X-Linked-Etag": f'"{linked}"'} if linked else {})})

    async def file(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        if self.answers:
            return self.answers.pop(0)
        begin = 0
        asked, same = request.headers.get("Range", ""), request.headers.get("If-Range", self.etag) == self.etag
        if asked and self.takes_ranges and same:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(self.content):
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(self.content)}"})
        response = web.StreamResponse(status=206 if begin else 200, headers={"ETag": self.etag} if self.etag else {})
        if begin:
            response.headers["Content-Range"] = f"bytes {begin}-{len(self.content) - 1}/{len(self.content)}"
        if self.tells_length:
            response.content_length = len(self.content) - begin
        await response.prepare(request)
        body = self.content[begin:]
        if self.cut_after:
            body = body[: self.cut_after.pop(0)]
        if self.hang_after is not None:
            body = body[: self.hang_after]
        await response.write(body)
        self.sent += len(body)
        self.sends.set()
        if self.hang_after is not None:
            while not self.go_on.is_set():
                await asyncio.sleep(LOOK_S)
        if begin + len(body) < len(self.content) and request.transport is not None:
            # What a client has not read yet is lost to it when a connection breaks.
            while body and self.arrived < begin + len(body):
                await asyncio.sleep(LOOK_S)
            request.transport.abort()
        return response

    async def loop(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        return web.Response(status=302, headers={"Location": "/loop"})

    async def elsewhere(self, request: web.Request) -> web.StreamResponse:
        """To the same server under another name, as a hub sends to its file servers."""
        self._note(request)
        return web.Response(status=302, headers={"Location": self.base.replace("127.0.0.1", "localhost") + "/cdn/tiny.gguf"})

    def _note(self, request: web.Request) -> None:
        self.asked.append(Asked(request.path, request.headers.get("Range", ""), request.headers.get("Authorization", "")))


@contextmanager
def running(hub: HubDouble, *, routes: Callable[[HubDouble], list[web.RouteDef]] | None = None) -> Iterator[HubDouble]:
    """On a thread with a loop of its own: what is tested blocks."""
    loop = asyncio.new_event_loop()
    started = threading.Event()

    async def serve() -> web.AppRunner:
        app = web.Application()
        app.add_routes(
            [
                *(routes(hub) if routes is not None else []),
                web.get("/{owner}/{repo}/resolve/{revision}/{file}", hub.resolve),
                web.get("/cdn/{file}", hub.file),
                web.get("/loop", hub.loop),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        hub.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        return runner

    def live() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=live, name="hub double", daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield hub
    finally:
        hub.go_on.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)

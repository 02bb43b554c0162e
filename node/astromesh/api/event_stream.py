"""Server-sent events to one client: opened with the headers that are known by then, kept alive in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import orjson
from aiohttp import web

HEARTBEAT_S = 15.0  # proxies commonly cut a connection that is silent for 30 s or 60 s
RETRY_MS = 1000  # how soon a browser asks again for a stream that it lost: well within the grace of an abandoned run


class EventStream:
    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        self._request = request
        self._response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers}
        )
        self._beat: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> EventStream:
        await self._response.prepare(self._request)
        self._rearm()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._beat is not None:
            self._beat.cancel()

    async def event(self, position: int, kind: str, data: Any) -> None:
        """One event of a native stream."""
        await self._write(b"id: %d\nevent: %s\ndata: %s\n\n" % (position, kind.encode(), orjson.dumps(data)))

    async def data(self, data: Any) -> None:
        """One unnamed event, as OpenAI's streams have them."""
        await self._write(b"data: %s\n\n" % orjson.dumps(data))

    async def done(self) -> None:
        await self._write(b"data: [DONE]\n\n")

    async def comment(self, text: str) -> None:
        """For people who look at the stream itself; no client takes it for an event."""
        await self._write(b": %s\n\n" % text.encode())

    async def retry(self) -> None:
        """How soon to ask again after a lost connection."""
        await self._write(b"retry: %d\n\n" % RETRY_MS)

    async def end(self) -> web.StreamResponse:
        await self._response.write_eof()
        return self._response

    async def _write(self, text: bytes) -> None:
        await self._response.write(text)
        self._rearm()

    def _rearm(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        self._beat = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._keep_alive)

    def _keep_alive(self) -> None:
        self._beating = asyncio.create_task(self._comment(), name="heartbeat of an event stream")

    async def _comment(self) -> None:
        try:
            await self.comment("still here")
        except ConnectionError:
            return  # the client has left; its own handler is being cancelled for the same reason

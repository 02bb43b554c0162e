"""A model server that answers as a test says, for what the stub never does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Answers = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def a_server_that(answers: Answers) -> AsyncIterator[str]:
    """The root of an API whose completions are answered by `answers`."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answers)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def saying(body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> Answers:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=headers, content_type="application/json")

    return answer


def pouring(piece: bytes) -> Answers:
    """The same piece of an event stream, without end."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(piece)

    return answer

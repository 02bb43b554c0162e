"""A web server that does what its path says, and keeps what it was asked. What a test of tools that call the web talks to."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

PNG = b"\x89PNG\r\n\x1a\n\0\0"


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class WebDouble:
    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.asked: list[Asked] = []
        self.over = asyncio.Event()  # what hangs ends then

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def place(self) -> str:
        """As a configuration lists it."""
        return f"{self.host}:{self.port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.method, request.path, dict(request.query), dict(request.headers), await request.read())
        self.asked.append(asked)
        what, _, rest = request.path.strip("/").partition("/")
        match what:
            case "status":
                return web.Response(status=int(rest), text=request.query.get("say", ""))
            case "redirect":
                return web.Response(status=int(rest or 302), headers={"Location": request.query["to"]})
            case "loop":
                return web.Response(status=302, headers={"Location": "/loop"})
            case "big":
                return web.Response(text="x" * int(rest))
            case "png":
                return web.Response(body=PNG, content_type="image/png")
            case "latin":
                return web.Response(body="Zürich".encode("latin-1"), headers={"Content-Type": "text/plain; charset=latin-1"})
            case "zipped":
                return web.Response(
                    body=gzip.compress(b"x" * int(rest)), headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"}
                )
            case "hangs":
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(b"so far")
                await self.over.wait()
                return response
            case "breaks":
                response = web.StreamResponse(headers={"Content-Length": "100"})
                await response.prepare(request)
                await response.write(b"so far")
                assert request.transport is not None
                request.transport.close()
                return response
            case "repeats":  # as some servers do with what they refuse
                return web.Response(status=403, text=f"not with {request.headers.get('X-Key', 'nothing')}")
            case _:
                return web.json_response(_shown(asked))


def _shown(asked: Asked) -> dict[str, Any]:
    return {"method": asked.method, "path": asked.path, "query": asked.query, "body": asked.body.decode()}


@asynccontextmanager
async def web_double(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[WebDouble]:
    double = WebDouble(host, port)
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", double.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        double.port = runner.addresses[0][1]
        yield double
    finally:
        double.over.set()
        await runner.cleanup()

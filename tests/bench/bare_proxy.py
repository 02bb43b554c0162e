"""The yardstick: the leanest reverse proxy that aiohttp allows while still being one.

One catch-all handler below the router, one shared client session, method, path, headers and body forwarded as they came, the answer
streamed back as it arrives. It looks at nothing, counts nothing and retries nothing: what a node costs beyond this is what the node adds.
"""

from __future__ import annotations

import argparse
import asyncio

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from tests.rig.server_process import told_to_stop

# Of one connection and not of the message (RFC 9110, 7.6.1); Host is the backend's own, and the client library frames the body itself.
HOP_BY_HOP = ("Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Host")


def forwardable(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    for name in HOP_BY_HOP:
        headers.popall(name, None)
    return headers


class BareProxy:
    def __init__(self, backend: str, session: aiohttp.ClientSession) -> None:
        self._backend = backend
        self._session = session

    async def forward(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = forwardable(request.headers.copy())
        async with self._session.request(request.method, self._backend + request.path_qs, headers=headers, data=body) as answer:
            response = web.StreamResponse(status=answer.status, headers=forwardable(answer.headers.copy()))
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


async def serve(backend: str, port: int) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        runner = web.ServerRunner(web.Server(BareProxy(backend, session).forward, access_log=None))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            told = told_to_stop()
            print("http://{}:{}".format(*runner.addresses[0][:2]), flush=True)
            await told.wait()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", required=True, help="URL of the server to forward to")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.backend, arguments.port))

"""What one call over a link costs: round trip and CPU of both sides together, beside a bare WebSocket echo in the same run.

    python tests/bench/link_call.py [--calls 3000] [--rounds 5] [--json FILE]

Both sides live in one process and one event loop, so the CPU of the process is the CPU of a call. The sides alternate, round by round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from maia.config import Address
from maia.drivers.link import IncomingCall
from maia.drivers.switchboard import Peer, Switchboard
from maia.links.greeting import Greeting

TIMEOUT_S = 30.0
BODY = {"model": "small", "messages": [{"role": "user", "content": "How far is it to the sea?"}], "stream": False}


async def echo(call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
    yield call.body


async def tokens(call: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
    for index in range(call.body["count"]):
        yield {"index": index, "text": " token"}
        await asyncio.sleep(0)


async def measure(one: Callable[[], Awaitable[None]], calls: int) -> tuple[float, float, float]:
    """Round trip p50 and p99, and CPU per call, all in µs."""
    trips = []
    cpu = time.process_time()
    for _ in range(calls):
        began = time.perf_counter()
        await one()
        trips.append(time.perf_counter() - began)
    cpu = time.process_time() - cpu
    trips.sort()
    return trips[len(trips) // 2] * 1e6, trips[int(len(trips) * 0.99)] * 1e6, cpu / calls * 1e6


async def bare_echo(request: web.BaseRequest) -> web.StreamResponse:
    web_socket = web.WebSocketResponse(compress=False)
    await web_socket.prepare(request)
    async for message in web_socket:
        await web_socket.send_bytes(message.data)
    return web_socket


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rounds: list[dict[str, float]] = []

    server = web.Server(bare_echo, access_log=None)
    door = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    bare_port = door.sockets[0].getsockname()[1]
    async with (
        Switchboard(me=Greeting("b", "b"), handlers={"echo": echo, "tokens": tokens}) as there,
        Switchboard(me=Greeting("a", "a"), handlers={}) as here,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{bare_port}/", compress=0) as bare,
    ):
        peer = Peer("b", Address("127.0.0.1", await there.serve("127.0.0.1", 0)))
        payload = bytes(100)

        async def bare_call() -> None:
            await bare.send_bytes(payload)
            await bare.receive()

        async def link_call() -> None:
            async with here.call(peer, "echo", BODY, timeout_s=TIMEOUT_S) as replies:
                async for _ in replies:
                    pass

        async def stream(count: int) -> None:
            async with here.call(peer, "tokens", {"count": count}, timeout_s=TIMEOUT_S) as replies:
                async for _ in replies:
                    pass

        await measure(bare_call, 200)
        await measure(link_call, 200)
        for _ in range(options.rounds):
            bare_p50, bare_p99, bare_cpu = await measure(bare_call, options.calls)
            link_p50, link_p99, link_cpu = await measure(link_call, options.calls)
            _, _, stream_cpu = await measure(lambda: stream(options.calls), 1)
            cpu = time.process_time()
            for _ in range(options.calls // 100):
                await asyncio.gather(*(link_call() for _ in range(100)))
            together_cpu = (time.process_time() - cpu) / (options.calls // 100 * 100) * 1e6
            rounds.append(
                {
                    "bare_p50_us": bare_p50,
                    "bare_p99_us": bare_p99,
                    "bare_cpu_us": bare_cpu,
                    "link_p50_us": link_p50,
                    "link_p99_us": link_p99,
                    "link_cpu_us": link_cpu,
                    "link_cpu_us_100_at_once": together_cpu,
                    "token_cpu_us": stream_cpu / options.calls,
                    "ratio_p50": link_p50 / bare_p50,
                }
            )
    door.close()
    await server.shutdown()

    for name in rounds[0]:
        values = [each[name] for each in rounds]
        print(f"{name:26} median {statistics.median(values):8.2f}   spread {min(values):8.2f} to {max(values):8.2f}")
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    asyncio.run(main())

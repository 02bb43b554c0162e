"""The TCP side of the mesh: one request and one reply a connection, bounded in number, size and time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from maia.config import Address
from maia.errors import DatagramRejected
from maia.exchanges import EXCHANGE_TIMEOUT_S
from maia.view import Counters
from maia.wire.frames import StreamDecoder, StreamMessage

CHUNK_BYTES: Final = 65_536
# From here on a stream is read beside the loop: to expand what a thousand stock agents know takes 9 ms, and probes must not wait for it.
LONG_BYTES: Final = 16_384


class StreamServer:
    """Answers exchanges. `answer` is called with each whole request; what it returns is written back, `DatagramRejected` closes.

    `decoder` makes what reads one stream.

    `open` raises `OSError` when the address cannot be bound.
    """

    def __init__(
        self,
        answer: Callable[[StreamMessage], bytes],
        *,
        decoder: Callable[[], StreamDecoder],
        counters: Counters,
        streams_max: int,
    ) -> None:
        self._answer = answer
        self._decoder = decoder
        self._counters = counters
        self._streams_max = streams_max
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, address: Address) -> None:
        self._server = await asyncio.start_server(self._accept, address.host, address.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._serving) >= self._streams_max:
            self._counters.reject("too-many-streams")
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="maia-stream")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
                request = await _read(reader, self._decoder(), self._counters)
                reply = self._answer(request)
                self._counters.stream_bytes_out += len(reply)
                await _send(writer, reply)
                await _close(writer)
        except DatagramRejected as error:
            self._counters.reject(error.reason)
        except (OSError, TimeoutError):
            self._counters.reject("stream-broken")
        finally:
            # Whoever does not read what it asked for keeps no connection of ours beyond its time.
            writer.transport.abort()


async def dial(target: Address, request: bytes, *, timeout_s: float, decoder: StreamDecoder, counters: Counters) -> StreamMessage:
    """Carry out one exchange. Raises `OSError`, `TimeoutError` or `DatagramRejected`."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(target.host, target.port)
        try:
            counters.stream_bytes_out += len(request)
            await _send(writer, request)
            return await _read(reader, decoder, counters)
        finally:
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader, decoder: StreamDecoder, counters: Counters) -> StreamMessage:
    message: StreamMessage | None = None
    while message is None:
        chunk = await reader.read(CHUNK_BYTES)
        if not chunk:
            raise ConnectionResetError("the stream ended before its message was whole")
        counters.stream_bytes_in += len(chunk)
        if decoder.size + len(chunk) > LONG_BYTES:
            message = await asyncio.to_thread(decoder.feed, chunk)
        else:
            message = decoder.feed(chunk)
    for reason in decoder.rejected:
        counters.reject(reason)
    return message


async def _send(writer: asyncio.StreamWriter, payload: bytes) -> None:
    writer.write(payload)
    await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()

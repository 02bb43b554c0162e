"""The TCP side of the mesh: one request and one reply a connection, bounded in number, size, time and work.

Anybody can connect, and say nothing, or much. Who may stay is decided by `doorway`. What takes more than a moment, to read a long stream
and to answer an exchange, is done in turns: a slice of a few milliseconds, then a pause of three times as long for everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from maia.config import Address
from maia.drivers.doorway import Doorway, Visitor
from maia.errors import DatagramRejected
from maia.exchanges import EXCHANGE_TIMEOUT_S
from maia.view import Counters
from maia.wire.frames import StreamDecoder, StreamMessage
from maia.wire.messages import PushPull

CHUNK_BYTES: Final = 65_536
SHORT_BYTES: Final = 4096  # up to here a stream is read at once: a ping, or the state of a few members, takes less than a turn costs
PAUSE_SHARE: Final = 3.0  # of the time that a turn took: streams have a quarter of the mesh's thread, whatever arrives
PENDING_MAX: Final = 128  # connections that the kernel holds until the thread comes to them


class Turns:
    """One slice of work at a time, each followed by its pause."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        async with self._lock:
            began_s = loop.time()
            try:
                yield
            finally:
                await asyncio.sleep(PAUSE_SHARE * (loop.time() - began_s))


class StreamServer:
    """Answers exchanges. `answer` is called with each whole request; what it returns is written back, `DatagramRejected` closes.

    `decoder` makes what reads one stream, `is_member` says whether a living member gossips from a host.

    `open` raises `OSError` when the address cannot be bound.
    """

    def __init__(
        self,
        answer: Callable[[StreamMessage], bytes],
        *,
        decoder: Callable[[], StreamDecoder],
        is_member: Callable[[str], bool],
        counters: Counters,
        turns: Turns,
        streams_max: int,
    ) -> None:
        self._answer = answer
        self._decoder = decoder
        self._is_member = is_member
        self._counters = counters
        self._turns = turns
        self._doorway = Doorway(visitors_max=streams_max)
        self._serving: dict[Visitor, tuple[asyncio.Task[None], asyncio.StreamWriter]] = {}
        self._server: asyncio.Server | None = None

    async def open(self, address: Address) -> None:
        self._server = await asyncio.start_server(self._accept, address.host, address.port, backlog=PENDING_MAX)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [task for task, _ in self._serving.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if peer is None:  # gone before we came to the door
            writer.transport.abort()
            return
        visitor = Visitor(Address(peer[0], peer[1]), member=self._is_member(peer[0]))
        victim = self._doorway.enter(visitor)
        if victim is visitor:
            self._counters.reject("too-many-streams", visitor.address)
            writer.transport.abort()
            return
        self._dismiss(victim)
        task = asyncio.get_running_loop().create_task(self._serve(visitor, reader, writer), name="maia-stream")
        self._serving[visitor] = task, writer
        task.add_done_callback(lambda _: self._serving.pop(visitor))

    def _dismiss(self, victim: Visitor | None) -> None:
        if victim is not None:
            self._counters.reject("too-many-streams", victim.address)
            task, writer = self._serving[victim]
            task.cancel()
            writer.transport.abort()  # a task that had not begun ends without closing anything

    async def _serve(self, visitor: Visitor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
                decoder = self._decoder()
                request = await _read(reader, decoder, self._counters, turns=self._turns, held=lambda size: self._hold(visitor, size))
                if isinstance(request, PushPull):
                    async with self._turns.turn():
                        reply = self._answer(request)
                else:
                    reply = self._answer(request)
                self._hold(visitor, len(reply))
                self._counters.stream_bytes_out += len(reply)
                await _send(writer, reply)
                await _close(writer)
        except DatagramRejected as error:
            self._counters.reject(error.reason, visitor.address)
        except TimeoutError:
            self._counters.reject("stream-too-slow", visitor.address)
        except OSError:
            self._counters.reject("stream-broken", visitor.address)
        finally:
            # Whoever does not read what it asked for keeps no connection of ours beyond its time.
            writer.transport.abort()
            self._doorway.leave(visitor)

    def _hold(self, visitor: Visitor, held_bytes: int) -> None:
        self._dismiss(self._doorway.hold(visitor, held_bytes))  # perhaps itself: it ends where it waits next


async def dial(
    target: Address, request: bytes, *, timeout_s: float, decoder: StreamDecoder, counters: Counters, turns: Turns
) -> StreamMessage:
    """Carry out one exchange. Raises `OSError`, `TimeoutError` or `DatagramRejected`."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(target.host, target.port)
        try:
            counters.stream_bytes_out += len(request)
            await _send(writer, request)
            return await _read(reader, decoder, counters, turns=turns)
        finally:
            writer.transport.abort()


async def _read(
    reader: asyncio.StreamReader,
    decoder: StreamDecoder,
    counters: Counters,
    *,
    turns: Turns,
    held: Callable[[int], None] = lambda _: None,
) -> StreamMessage:
    """One message, in slices where it is long. `held` is told of every change of what it takes in memory."""
    message: StreamMessage | None = None
    try:
        while message is None:
            chunk = b"" if decoder.busy else await reader.read(CHUNK_BYTES)
            if not chunk and not decoder.busy:
                raise ConnectionResetError("the stream ended before its message was whole")
            counters.stream_bytes_in += len(chunk)
            if decoder.busy or decoder.size + len(chunk) > SHORT_BYTES:
                async with turns.turn():
                    message = decoder.feed_slice(chunk)
            else:
                message = decoder.feed_slice(chunk)
            held(decoder.held_bytes)
    finally:
        decoder.close()
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

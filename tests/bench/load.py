"""The load client: keep-alive HTTP over bare asyncio protocols, in a process of its own, the same for every side.

Light, because it shares the cores with what it measures: one buffer per connection, the next request written from inside the callback that
saw the end of the last answer, no tasks. And strict: an answer counts only if it is a 200 that was read to its end and holds the expected
bytes; everything else is a failure, by its reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.rig.server_process import ROOT, end

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
# A side that is down fails every request at once; a round of nothing but failures has been understood by then.
FAILURES_MAX = 100
# Of one round, beyond the time it is meant to take.
PATIENCE_S = 60.0
DRAIN_S = 5.0
RESULT_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One round of load: `requests` of them in all, or as many as `seconds` allow (the other is 0), from `clients` connections."""

    url: str
    body: Mapping[str, Any]
    expect: str
    clients: int = 1
    requests: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Result:
    """What a round gave: the latency of each success, and the failures by reason. `seconds` is the wall time of the whole round."""

    latencies_us: list[int] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return len(self.latencies_us) / self.seconds if self.seconds else 0.0


class Answer:
    """An HTTP/1.1 answer as its bytes come in: knows when it is whole."""

    __slots__ = ("_buffer", "_chunked", "_whole_at")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._whole_at = 0  # 0: the head is not there yet; with chunks: where the next chunk's size begins
        self._chunked = False

    def feed(self, data: bytes) -> bool:
        """True when the answer is whole. Raises `ValueError` for what is no answer of known length."""
        buffer = self._buffer
        buffer += data
        if not self._whole_at:
            head_end = buffer.find(b"\r\n\r\n")
            if head_end < 0:
                return False
            if (length := CONTENT_LENGTH.search(buffer, 0, head_end)) is not None:
                self._whole_at = head_end + 4 + int(length[1])
            elif CHUNKED.search(buffer, 0, head_end + 2):
                self._chunked = True
                self._whole_at = head_end + 4
            else:
                raise ValueError("an answer of unknown length")
        return self._chunks_are_whole() if self._chunked else len(buffer) >= self._whole_at

    def _chunks_are_whole(self) -> bool:
        buffer = self._buffer
        while (line_end := buffer.find(b"\r\n", self._whole_at)) >= 0:
            size = int(buffer[self._whole_at : line_end], 16)
            following = line_end + 2 + size + 2
            if len(buffer) < following:
                return False
            if size == 0:
                return True
            self._whole_at = following
        return False

    def complaint(self, expect: bytes) -> str:
        """Why this whole answer is a failure; empty when it is not."""
        status = bytes(self._buffer[9:12])
        if status != b"200":
            return f"status {status.decode(errors='replace')}"
        return "" if expect in self._buffer else "an answer without the expected words"


class Round:
    """One order being carried out."""

    def __init__(self, order: Order) -> None:
        target = urlsplit(order.url)
        body = json.dumps(dict(order.body)).encode()
        head = f"POST {target.path} HTTP/1.1\r\nHost: {target.netloc}\r\nAccept: */*\r\nContent-Type: application/json\r\n"
        self.request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
        self.expect = order.expect.encode()
        self.result = Result()
        self._order = order
        self._host, self._port = target.hostname or "", target.port or 80
        self._failures: Counter[str] = Counter()
        self._left = order.requests
        self._over = asyncio.Event()
        self._all_closed = asyncio.Event()
        self._open = order.clients
        self._connections: list[Connection] = []

    @property
    def goes_on(self) -> bool:
        """Whether one more request should be sent; counts it as sent."""
        if self._over.is_set():
            return False
        if self._order.requests:
            self._left -= 1
            return self._left >= 0
        return True

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def closed(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._over.set()
            self._all_closed.set()

    def succeeded(self, latency_s: float) -> None:
        if not self._over.is_set():
            self.result.latencies_us.append(round(latency_s * 1e6))
            self._look()

    def failed(self, reason: str) -> None:
        if not self._over.is_set():
            self._failures[reason] += 1
            self._look()

    def _look(self) -> None:
        failures = self._failures.total()
        if failures >= FAILURES_MAX or (self._order.requests and len(self.result.latencies_us) + failures >= self._order.requests):
            self._over.set()

    async def carry_out(self) -> Result:
        loop = asyncio.get_running_loop()
        try:
            for _ in range(self._order.clients):
                self._connections.append((await loop.create_connection(lambda: Connection(self), self._host, self._port))[1])
        except OSError as error:
            return Result(failures={f"{type(error).__name__} on connect": 1})
        started = time.perf_counter()
        for connection in self._connections:
            connection.ask()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), self._order.seconds or PATIENCE_S)
        self.result.seconds = time.perf_counter() - started
        if self._order.requests and not self.is_over:
            self._failures[f"no answer within {PATIENCE_S:g} s"] += 1
        self._over.set()
        for connection in self._connections:
            connection.close_when_answered()
        # What is under way is read to its end, uncounted, so that it does not spill into the round of the next side.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_closed.wait(), DRAIN_S)
        for connection in self._connections:
            connection.abort()
        self.result.failures = dict(self._failures)
        return self.result


class Connection(asyncio.Protocol):
    """One client: asks, reads the answer to its end, asks again."""

    def __init__(self, of: Round) -> None:
        self._round = of
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._asked_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self) -> None:
        if self._transport is not None and self._round.goes_on:
            self._answer = Answer()
            self._asked_at = time.perf_counter()
            self._transport.write(self._round.request)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            return
        try:
            whole = self._answer.feed(data)
        except ValueError as error:
            self._answer = None
            self._round.failed(str(error))
            self.abort()
            return
        if whole:
            latency_s = time.perf_counter() - self._asked_at
            if complaint := self._answer.complaint(self._round.expect):
                self._round.failed(complaint)
            else:
                self._round.succeeded(latency_s)
            self._answer = None
            if self._round.is_over:
                self.close_when_answered()
            else:
                self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        # Not opened again: a side that closes connections has fewer clients from there on, and a failure for each in its record.
        self._transport = None
        if self._answer is not None:
            self._answer = None
            self._round.failed("the connection was closed in mid-answer")
        self._round.closed()

    def close_when_answered(self) -> None:
        if self._transport is not None and self._answer is None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class LoadClient:
    """The handle on the load process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def carry_out(self, order: Order) -> Result:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), order.seconds + 2 * PATIENCE_S)
        if not line:
            raise RuntimeError("the load client ended; its complaint is on stderr above")
        return Result(**json.loads(line))


@contextlib.asynccontextmanager
async def load_client() -> AsyncIterator[LoadClient]:
    pipe = asyncio.subprocess.PIPE
    arguments = ("-m", "tests.bench.load")
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdin=pipe, stdout=pipe, limit=RESULT_BYTES_MAX)
    try:
        yield LoadClient(process)
    finally:
        await end(process)


def obey() -> None:
    """Orders from stdin, one JSON value a line, results to stdout; ends with stdin."""
    # Collected between rounds and not within: a pause of the client would be told as a latency of the side.
    gc.disable()
    for line in sys.stdin:
        result = asyncio.run(Round(Order(**json.loads(line))).carry_out())
        print(json.dumps(asdict(result)), flush=True)
        gc.collect()


if __name__ == "__main__":
    obey()

"""Traces on disk: a line of JSON for each run that ended, in two files that take turns, so that they outlive the node and stay bounded.

Nothing here holds up a run: lines wait in a bounded queue for a thread that writes them, and where the disk does not take them they are
dropped, which is said once. They are not fsynced: a machine that loses its power loses the last seconds of its diagnostics, no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 8 << 20  # of each of the two files: some eight thousand runs of four spans together
LINES_WAITING_MAX = 1024  # as many as a disk that hesitates may hold back
# Lines of so long are written together: opening the file and waking a thread costs ten times what a line does.
GATHERED_S = 0.1
CLOSING_S = 5.0  # for the last lines of a node that ends; then its disk hangs

Shown = Mapping[str, Any]


class TraceFile:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "traces.jsonl"
        self._older = folder / "traces.1.jsonl"
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue(LINES_WAITING_MAX)
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._lock = threading.Lock()  # the files are renamed by one thread and read by others
        self._began = False
        self.dropped = 0

    def open(self) -> None:
        self._writing = asyncio.create_task(self._write_all(), name="writer of traces")

    async def close(self) -> None:
        """What waits is written first."""
        if self._writing is None:
            return
        self._closing.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await self._lines.put(None)
                await self._writing
        self._writing = None

    def keep(self, trace: Shown) -> None:
        """To be written soon; dropped where the disk is that far behind."""
        try:
            self._lines.put_nowait(orjson.dumps(trace) + b"\n")
        except asyncio.QueueFull:
            self._drop(1, "the disk is behind")

    async def find(self, trace_id: str) -> Shown | None:
        """The newest of that id."""
        wanted = b'"trace_id":' + orjson.dumps(trace_id)
        found = await asyncio.to_thread(self._read, wanted, 1, lambda trace: trace.get("trace_id") == trace_id)
        return found[0] if found else None

    async def recent(self, *, agent: str | None, limit: int) -> list[Shown]:
        """Newest first."""
        wanted = b"" if agent is None else b'"agent":' + orjson.dumps(agent)
        return await asyncio.to_thread(self._read, wanted, limit, lambda trace: agent is None or trace.get("agent") == agent)

    async def _write_all(self) -> None:
        while (line := await self._lines.get()) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHERED_S):
                    await self._closing.wait()
            lines, ends = [line], False
            while not self._lines.empty():
                if (line := self._lines.get_nowait()) is None:
                    ends = True
                    break
                lines.append(line)
            try:
                await asyncio.to_thread(self._write, lines)
            except OSError as failure:
                self._drop(len(lines), str(failure))
            if ends:
                return

    def _drop(self, count: int, why: str) -> None:
        if not self.dropped:
            log.warning("traces are not kept on disk (%s): %s. Runs go on; GET /v1/traces has the last ones", self._path, why)
        self.dropped += count

    def _write(self, lines: list[bytes]) -> None:
        """In a thread."""
        with self._lock:
            while lines:
                lines = lines[self._append(lines) :]
                if lines:
                    os.replace(self._path, self._older)

    def _append(self, lines: list[bytes]) -> int:
        """As many as the file has room for, and at least one to an empty one."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(self._path, flags, 0o600), "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if not self._began and size:
                file.seek(size - 1)
                if file.read() != b"\n":  # the end of a line that a node did not get to write
                    file.write(b"\n")
                    size += 1
            self._began = True
            fitting = 0
            while fitting < len(lines) and (not size or size + len(lines[fitting]) <= FILE_BYTES_MAX):
                size += file.write(lines[fitting])
                fitting += 1
            return fitting

    def _read(self, wanted: bytes, limit: int, fits: Callable[[Shown], bool]) -> list[Shown]:
        """In a thread. A line that cannot be read is left out: the last one of a life may be half a line."""
        found: list[Shown] = []
        for line in self._newest_first():
            if wanted in line:
                with contextlib.suppress(orjson.JSONDecodeError):
                    trace = orjson.loads(line)
                    if isinstance(trace, dict) and fits(trace):
                        found.append(trace)
                        if len(found) >= limit:
                            break
        return found

    def _newest_first(self) -> Iterator[bytes]:
        with self._lock:
            texts = []
            for path in (self._path, self._older):
                with contextlib.suppress(OSError), path.open("rb") as file:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - FILE_BYTES_MAX))
                    texts.append(file.read(FILE_BYTES_MAX))
        for text in texts:
            yield from reversed(text.splitlines())

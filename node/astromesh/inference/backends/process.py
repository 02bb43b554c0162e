"""One worker process and its pipes: started by exec, spoken to in frames, ended by closing its stdin."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from astromesh.inference.frames import FrameDecoder, FrameError

# llama.cpp's threads wait for each other a thousand times a token, and libgomp lets them spin for it as good as for ever: where something
# else wants a core, a niced thread that spins burns the time that the one it waits for would need. Measured with SmolLM2 on two cores, one
# of them taken by a busy loop: 1 to 8 tokens/s by default, 5 with 10,000 turns, 28 with 1,000, 31 with none. On an idle machine: 112, 102,
# 100 and 34. What the user has set wins.
ENVIRONMENT: Mapping[str, str] = {"GOMP_SPINCOUNT": "1000"}

# What is kept of a worker's stderr: enough for the last words of llama.cpp, which does not print prompts.
STDERR_BYTES_KEPT = 4096
_LAST_LINES = 4

# After its stdin was closed a worker ends at once; one that is swapped out or sits in a driver gets this long before it is killed.
END_GRACE_S = 2.0

_READ_BYTES = 1 << 16


class WorkerProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr = bytearray()
        self._listener = asyncio.create_task(self._keep_stderr(), name=f"inference-stderr-{process.pid}")

    @classmethod
    async def spawn(cls, command: Sequence[str]) -> WorkerProcess:
        """Raises `OSError` where it cannot be started."""
        pipe = asyncio.subprocess.PIPE
        # Not in a session of its own: with Linux's autogroups its niceness would then have no effect on us.
        environment = {**ENVIRONMENT, **os.environ}
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment))

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, frame: bytes) -> None:
        """A packed frame. Never waits: a worker always reads its stdin, and what is sent is bounded by the requests that it may have.

        Who sends much, as the state of a conversation, waits in `drain` between its pieces.
        """
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(frame)

    async def drain(self) -> None:
        """Waits while there is much that it has not read yet. Of one that has ended nothing is said here: whoever listens to it knows."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            await self._process.stdin.drain()

    async def frames(self) -> AsyncIterator[dict[str, Any]]:
        """Until its stdout ends, or carries something that is no frame: then it is killed."""
        assert self._process.stdout is not None
        decoder = FrameDecoder()
        while data := await self._process.stdout.read(_READ_BYTES):
            try:
                frames = decoder.feed(data)
            except FrameError as error:
                self._stderr += f"\n{error}".encode()
                self.kill()
                return
            for frame in frames:
                yield frame

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> str:
        """Ends it, by force after a while; how it ended, in words."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.close()
            async with asyncio.timeout(END_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
        finally:
            if self._process.returncode is None:
                self.kill()
            # Waiting for a killed process is short and must happen, or it stays a zombie for the life of the node.
            code = await asyncio.shield(self._process.wait())
            self._listener.cancel()
        return _in_words(code)

    def last_words(self) -> str:
        lines = [line.strip() for line in bytes(self._stderr).decode(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-_LAST_LINES:])

    async def _keep_stderr(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(_READ_BYTES):
            self._stderr += data
            del self._stderr[:-STDERR_BYTES_KEPT]


def _in_words(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    if -code == signal.SIGBUS:
        return "was ended by SIGBUS: a file that it reads was cut under it, or the disk fails"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"

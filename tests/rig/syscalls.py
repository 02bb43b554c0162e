"""What a running process asks of the kernel, watched or tampered with from outside, by strace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

ATTACH_S = 10.0
DETACH_S = 3.0


class Watch:
    """The calls so far, in the order in which they began or, where another thread came between, ended."""

    def __init__(self, log: Path) -> None:
        self._log = log

    @property
    def lines(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()


@contextlib.asynccontextmanager
async def watched(pid: int, calls: Sequence[str], *, log: Path, inject: str = "", paths: Sequence[Path] = ()) -> AsyncIterator[Watch]:
    """Watches all threads of a process. `inject` is strace's own expression: what happens instead of a call, or with it.

    `paths`: only calls that touch one of these.
    """
    expressions = [
        *(word for path in paths for word in ("-P", str(path))),
        "-e",
        f"trace={','.join(calls)}",
        *(("-e", f"inject={inject}") if inject else ()),
    ]
    command = ["strace", "-f", "-y", "-s", "64", "-o", str(log), *expressions, "-p", str(pid)]
    tracer = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert tracer.stderr is not None
    try:
        async with asyncio.timeout(ATTACH_S):
            said = await tracer.stderr.readline()
        assert b"attached" in said, f"strace cannot watch process {pid}: {said.decode()}"
        yield Watch(log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            tracer.terminate()
        try:
            await asyncio.wait_for(tracer.wait(), DETACH_S)
        except TimeoutError:
            tracer.kill()  # it is in the middle of a delay that it was told to make
            await tracer.wait()

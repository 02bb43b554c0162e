"""A small server as a process of its own: it prints its URL, serves until SIGTERM, and does not outlive the block that started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Importing aiohttp takes most of a second on a busy shared core; ten times that is no longer a slow start.
START_S = 15.0
STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    pid: int


def told_to_stop() -> asyncio.Event:
    """In the server: an event that SIGTERM and SIGINT set."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told


@contextlib.asynccontextmanager
async def server_process(module: str, *arguments: str) -> AsyncIterator[Server]:
    """Runs `python -m module arguments…` and takes the first line it prints for its URL. Raises `RuntimeError` if it ends instead."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        if not line:
            raise RuntimeError(f"python -m {module} ended without printing its URL; its complaint is on stderr above")
        yield Server(url=line.decode().strip(), pid=process.pid)
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, then SIGKILL after `STOP_S`."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()

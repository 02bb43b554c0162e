"""Functions that block, each in a thread of its own; no more than so many at once.

Not a pool of the library: its threads are waited for when the program ends, so a function that never returns would keep a node from
stopping. These end with the program, and until then take the place of others.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from astromesh.tools.port import ToolFailed

log = logging.getLogger(__name__)

THREADS_MAX = 16  # of all agents of a node: as many as one turn of one agent can ask for
TURN_TIMEOUT_S = 10.0  # for one of them to be free: below what any call of a tool gets, so that what is said names the reason

T = TypeVar("T")


class Threads:
    def __init__(self, threads_max: int = THREADS_MAX) -> None:
        self._threads_max = threads_max
        self._free = asyncio.Semaphore(threads_max)

    async def run(self, function: Callable[[], T], *, name: str) -> T:
        """What it returns or raises. Whoever stops waiting leaves it to itself: a thread cannot be ended.

        Raises `ToolFailed` where no thread becomes free in time.
        """
        try:
            async with asyncio.timeout(TURN_TIMEOUT_S):
                await self._free.acquire()
        except TimeoutError:
            raise ToolFailed(
                f"not called, all {self._threads_max} threads for Python functions are taken by calls that do not end; try again later"
            ) from None
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, failure: BaseException | None) -> None:
            self._free.release()
            if done.done():
                log.info("function %s returned after it was given up", name)
            elif failure is not None:
                done.set_exception(failure)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def call() -> None:
            result: T | None = None
            failure: BaseException | None = None
            try:
                result = function()
            except (SystemExit, KeyboardInterrupt, StopIteration) as raised:  # none of them may end what waits for it
                failure = RuntimeError(f"it raised {type(raised).__name__}")
            except BaseException as raised:  # noqa: BLE001  told to whoever waits
                failure = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, failure)

        try:
            threading.Thread(target=call, name=f"tool {name}", daemon=True).start()
        except RuntimeError as full:
            self._free.release()
            raise ToolFailed("not called, this machine has no thread to spare; try again later") from full
        try:
            return await done
        except asyncio.CancelledError:
            log.warning("function %s goes on in its thread, although nobody waits for it any more", name)
            raise

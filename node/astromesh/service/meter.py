"""How busy this node is, measured once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psutil

from astromesh.fleet import loads
from astromesh.fleet.loads import Load

MEASURE_S = 1.0


class Meter:
    """`active` and `queued` count requests; `changed` is called after each measurement."""

    def __init__(self, *, active: Callable[[], int], queued: Callable[[], int], changed: Callable[[], None]) -> None:
        self._active = active
        self._queued = queued
        self._changed = changed
        self._cpu_percent = 0.0
        self._memory = psutil.virtual_memory()
        self._task: asyncio.Task[None] | None = None

    @property
    def load(self) -> Load:
        """Requests as they are now, the rest as it was last measured."""
        return Load(self._cpu_percent, self._memory.percent, self._active(), self._queued())

    def encoded(self) -> bytes:
        return loads.write(self.load)

    def open(self) -> None:
        psutil.cpu_percent(interval=None)  # counts from here on
        self._task = asyncio.create_task(self._keep_measuring(), name="measuring the load")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_measuring(self) -> None:
        while True:
            self._changed()
            await asyncio.sleep(MEASURE_S)
            self._cpu_percent = psutil.cpu_percent(interval=None)
            self._memory = psutil.virtual_memory()

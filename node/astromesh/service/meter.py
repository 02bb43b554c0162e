"""How busy this node is, measured once a second, and what it computes with, looked at now and then."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import monotonic

import psutil

from astromesh.fleet import loads
from astromesh.fleet.devices import Cpu, Devices, Memory
from astromesh.fleet.loads import Load

MEASURE_S = 1.0
DEVICES_S = 60.0  # free memory is told to everyone, and near the edge of a sixteenth it would be told every second
CPUINFO = Path("/proc/cpuinfo")
FLAGS_CHARACTERS = 12  # of the digest: enough to tell processors apart


class Meter:
    """`active` and `queued` count requests; `changed` is called after each measurement."""

    def __init__(self, *, active: Callable[[], int], queued: Callable[[], int], changed: Callable[[], None]) -> None:
        self._active = active
        self._queued = queued
        self._changed = changed
        self._cpu = _cpu()
        self._cpu_percent = 0.0
        self._memory = psutil.virtual_memory()
        self.devices = self._look()
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
        looked_s = monotonic()
        while True:
            self._changed()
            await asyncio.sleep(MEASURE_S)
            self._cpu_percent = psutil.cpu_percent(interval=None)
            self._memory = psutil.virtual_memory()
            if monotonic() >= looked_s + DEVICES_S:
                looked_s = monotonic()
                self.devices = self._look()

    def _look(self) -> Devices:
        return Devices(self._cpu, Memory(self._memory.total, self._memory.available))


def _cpu() -> Cpu:
    try:
        text = CPUINFO.read_text(errors="replace")
    except OSError:
        text = ""  # another system than Linux
    name, flags = processor(text)
    threads = psutil.cpu_count(logical=True) or 1
    return Cpu(name or platform.processor() or platform.machine(), psutil.cpu_count(logical=False) or threads, threads, flags)


def processor(cpuinfo: str) -> tuple[str, str]:
    """The name of the first processor in the text of /proc/cpuinfo and a digest of its flags; empty where they are not told."""
    found: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip().lower(), value.strip())
    flags = " ".join(sorted(found.get("flags", found.get("features", "")).split()))
    return found.get("model name", ""), sha256(flags.encode()).hexdigest()[:FLAGS_CHARACTERS] if flags else ""

"""What this node computes with: looked at some seconds after the start and then at a period, beside everything else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from astromesh.fleet.devices import Cpu, Devices, Gpu, Memory
from astromesh.inference.backends.devices import machine
from astromesh.inference.backends.devices.looking import SOURCES, Looker, with_memory
from astromesh.inference.devices import Inventory, Look, Source

log = logging.getLogger(__name__)

FIRST_LOOK_S = 2.0  # the start of a node has better things to do
# A look at NVIDIA's cards takes 55 ms of CPU: 0.2 % of a core. What was found is told to everyone, and free memory near the edge of a
# sixteenth would be told every time.
PRESENT_S = 30.0
# Where there is nothing, or nothing but figures that do not change; to ask the engine wakes every card.
ABSENT_S = 600.0


class DeviceWatch:
    """`changed` is called after each look. What was found stays in `inventory` until the next one."""

    def __init__(self, *, changed: Callable[[], None], looker: Looker | None = None, first_look_s: float = FIRST_LOOK_S) -> None:
        self.looker = looker or Looker()
        self._changed = changed
        self._first_look_s = first_look_s
        self._looks: dict[Source, Look] = {}
        self._due_s: dict[Source, float] = {}
        self._processor = machine.processor()
        self.inventory = with_memory(Inventory())
        self._task: asyncio.Task[None] | None = None

    @property
    def processor(self) -> Cpu:
        told = self._processor
        return Cpu(told.name, told.cores, told.threads, told.digest, told.features)

    @property
    def devices(self) -> Devices:
        """As the catalogue has it, with the figures of the last look."""
        found = self.inventory
        total, free = found.memory_total_bytes, found.memory_free_bytes
        usable = {one.id for one in found.usable}
        gpus = tuple(
            Gpu(one.name, one.id, one.total_bytes, one.free_bytes, one.utilisation_percent, one.id in usable, one.note)
            for one in found.accelerators
        )
        untold = not found.looks or (not gpus and any(look.state in ("failed", "degraded") for look in found.looks))
        memory = Memory(total, free) if total is not None and free is not None else None
        return Devices(self.processor, memory, None if untold else gpus, found.troubles)

    def open(self) -> None:
        self._task = asyncio.create_task(self._keep_looking(), name="looking for devices")

    async def close(self) -> None:
        self.looker.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_looking(self) -> None:
        await asyncio.sleep(self._first_look_s)
        while True:
            for source in SOURCES:
                if monotonic() >= self._due_s.get(source, 0.0):
                    await self._look(source)
            self.inventory = with_memory(Inventory(tuple(self._looks[source] for source in SOURCES)))
            self._changed()
            await asyncio.sleep(PRESENT_S)

    async def _look(self, source: Source) -> None:
        look = await asyncio.to_thread(self.looker.look, source)
        before = self._looks.get(source)
        if look.state in ("degraded", "failed") and (before is None or before.reason != look.reason):
            log.warning("devices: %s is %s: %s", source, look.state, look.reason)
        self._looks[source] = look
        self._due_s[source] = monotonic() + (PRESENT_S if look.found and source != "engine" else ABSENT_S)

"""What a node computes with, as a catalogue entry: rows that begin with what they are about, so that a reader skips what it does not know.

Unknown is never 0: "no GPU was found" and "nobody has looked" are different answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

SLOT = "devices"
MEMORY_LEVELS = 16  # of what is free: finer, and every node would tell every node all day
NAME_CHARACTERS_MAX = 80
GPUS_MAX = 16


@dataclass(frozen=True, slots=True)
class Cpu:
    """`flags` is a digest of what the processor can do: engines that are built for one may not run on another."""

    name: str
    cores: int
    threads: int
    flags: str


@dataclass(frozen=True, slots=True)
class Memory:
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """What its driver does not tell is None."""

    name: str
    id: str
    total_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Devices:
    cpu: Cpu | None = None
    memory: Memory | None = None
    gpus: tuple[Gpu, ...] | None = None  # None: nobody has looked

    def as_json(self) -> list[dict[str, Any]]:
        """One row for each that is known."""
        rows: list[dict[str, Any]] = []
        if self.cpu is not None:
            rows.append(
                {"kind": "cpu", "name": self.cpu.name, "cores": self.cpu.cores, "threads": self.cpu.threads, "flags": self.cpu.flags}
            )
        if self.memory is not None:
            rows.append({"kind": "memory", "total_bytes": self.memory.total_bytes, "free_bytes": self.memory.free_bytes})
        rows += [
            {"kind": "gpu", "name": gpu.name, "id": gpu.id, "total_bytes": gpu.total_bytes, "free_bytes": gpu.free_bytes}
            for gpu in self.gpus or ()
        ]
        return rows


def write(devices: Devices) -> bytes:
    """Free memory rounded down to a sixteenth of the whole."""
    rows: list[list[Any]] = []
    if devices.cpu is not None:
        rows.append(["cpu", devices.cpu.name[:NAME_CHARACTERS_MAX], devices.cpu.cores, devices.cpu.threads, devices.cpu.flags])
    if devices.memory is not None:
        step = max(1, devices.memory.total_bytes // MEMORY_LEVELS)
        rows.append(["memory", devices.memory.total_bytes, devices.memory.free_bytes // step * step])
    if devices.gpus is not None:
        found = devices.gpus[:GPUS_MAX]
        rows.append(["gpus", [[gpu.name[:NAME_CHARACTERS_MAX], gpu.id, gpu.total_bytes, gpu.free_bytes] for gpu in found]])
    packed: bytes = msgpack.packb(rows)
    return packed


def read(entries: Mapping[str, bytes]) -> Devices | None:
    """None where the node says nothing; what is malformed or of a newer node is left out."""
    value = entries.get(SLOT)
    if not value:
        return None
    try:
        rows = msgpack.unpackb(value)
    except (ValueError, msgpack.UnpackException):
        return None
    cpu, memory, gpus = None, None, None
    for row in rows if isinstance(rows, list) else ():
        match row:
            case ["cpu", str(name), int(cores), int(threads), str(flags), *_]:
                cpu = Cpu(name, cores, threads, flags)
            case ["memory", int(total), int(free), *_]:
                memory = Memory(total, free)
            case ["gpus", list(found), *_]:
                gpus = tuple(gpu for one in found[:GPUS_MAX] if (gpu := _gpu(one)) is not None)
    return Devices(cpu, memory, gpus)


def _gpu(row: Sequence[Any]) -> Gpu | None:
    match row:
        case [str(name), str(identity), int() | None as total, int() | None as free, *_]:
            return Gpu(name, identity, total, free)
    return None

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
UTILISATION_STEP_PERCENT = 10  # for the same reason
NAME_CHARACTERS_MAX = 80
ID_CHARACTERS_MAX = 12  # of a name that is unique in the world: enough to tell the cards of one node apart
NOTE_CHARACTERS_MAX = 100
GPUS_MAX = 16
TROUBLES_MAX = 3


@dataclass(frozen=True, slots=True)
class Cpu:
    """`flags` is a digest of what the processor can do: engines that are built for one may not run on another."""

    name: str
    cores: int
    threads: int
    flags: str
    features: tuple[str, ...] = ()  # those that decide how fast a model runs on it


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
    utilisation_percent: int | None = None
    usable: bool | None = None  # whether the engine of its node can put a model there; None: not told
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": "gpu",
            "name": self.name,
            "id": self.id,
            "total_bytes": self.total_bytes,
            "free_bytes": self.free_bytes,
            "utilisation_percent": self.utilisation_percent,
            "usable": self.usable,
            "note": self.note or None,
        }


@dataclass(frozen=True, slots=True)
class Devices:
    """`troubles`: why there may be more than is listed, or why it does not work as it should."""

    cpu: Cpu | None = None
    memory: Memory | None = None
    gpus: tuple[Gpu, ...] | None = None  # None: nobody has looked, or nobody could tell
    troubles: tuple[str, ...] = ()

    def as_json(self) -> list[dict[str, Any]]:
        """One row for each that is known."""
        rows: list[dict[str, Any]] = []
        if self.cpu is not None:
            cpu = self.cpu
            rows.append(
                {
                    "kind": "cpu",
                    "name": cpu.name,
                    "cores": cpu.cores,
                    "threads": cpu.threads,
                    "flags": cpu.flags,
                    "features": list(cpu.features),
                }
            )
        if self.memory is not None:
            rows.append({"kind": "memory", "total_bytes": self.memory.total_bytes, "free_bytes": self.memory.free_bytes})
        rows += [gpu.as_json() for gpu in self.gpus or ()]
        return rows


def write(devices: Devices) -> bytes:
    """Free memory rounded down to a sixteenth of the whole, utilisation to a tenth."""
    rows: list[list[Any]] = []
    if (cpu := devices.cpu) is not None:
        rows.append(["cpu", cpu.name[:NAME_CHARACTERS_MAX], cpu.cores, cpu.threads, cpu.flags, list(cpu.features)])
    if devices.memory is not None:
        rows.append(["memory", devices.memory.total_bytes, _rounded(devices.memory.free_bytes, devices.memory.total_bytes)])
    if devices.gpus is not None:
        rows.append(["gpus", [_row(gpu) for gpu in devices.gpus[:GPUS_MAX]]])
    if devices.troubles:
        rows.append(["troubles", [trouble[:NOTE_CHARACTERS_MAX] for trouble in devices.troubles[:TROUBLES_MAX]]])
    packed: bytes = msgpack.packb(rows)
    return packed


def _row(gpu: Gpu) -> list[Any]:
    busy = gpu.utilisation_percent
    row: list[Any] = [
        gpu.name[:NAME_CHARACTERS_MAX],
        gpu.id[-ID_CHARACTERS_MAX:]
        if ":" in gpu.id
        else gpu.id[:ID_CHARACTERS_MAX],  # the end of a place on a bus, the beginning of a UUID
        gpu.total_bytes,
        _rounded(gpu.free_bytes, gpu.total_bytes),
        None if busy is None else round(busy / UTILISATION_STEP_PERCENT) * UTILISATION_STEP_PERCENT,
        gpu.usable,
    ]
    return [*row, gpu.note[:NOTE_CHARACTERS_MAX]] if gpu.note else row


def _rounded(free_bytes: int | None, total_bytes: int | None) -> int | None:
    if free_bytes is None or total_bytes is None:
        return free_bytes
    step = max(1, total_bytes // MEMORY_LEVELS)
    return free_bytes // step * step


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
    troubles: tuple[str, ...] = ()
    for row in rows if isinstance(rows, list) else ():
        match row:
            case ["cpu", str(name), int(cores), int(threads), str(flags), *rest]:
                cpu = Cpu(name, cores, threads, flags, _texts(rest[0]) if rest else ())
            case ["memory", int(total), int(free), *_]:
                memory = Memory(total, free)
            case ["gpus", list(found), *_]:
                gpus = tuple(gpu for one in found[:GPUS_MAX] if (gpu := _gpu(one)) is not None)
            case ["troubles", list(told), *_]:
                troubles = _texts(told[:TROUBLES_MAX])
    return Devices(cpu, memory, gpus, troubles)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def _gpu(row: Sequence[Any]) -> Gpu | None:
    match row:
        case [str(name), str(identity), int() | None as total, int() | None as free, *rest]:
            busy, usable, note, *_ = (*rest, None, None, "")
            return Gpu(
                name,
                identity,
                total,
                free,
                busy if isinstance(busy, int) else None,
                usable if isinstance(usable, bool) else None,
                note if isinstance(note, str) else "",
            )
    return None

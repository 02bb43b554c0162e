"""What this machine could compute with, as values: who was asked, how that went, and what was found. Pure.

Three are asked: NVIDIA's driver, the kernel about AMD's cards, and the engine about what it can use itself. Unknown is None, never 0; and
"there is none" is another answer than "it could not be told".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal, cast, get_args

Source = Literal["nvidia", "amd", "engine"]
# absent: nothing of the kind is here. degraded: something is and does not work as it should. failed: the question itself went wrong.
LookState = Literal["absent", "ok", "degraded", "failed"]

ACCELERATORS_MAX = 64  # of one source: no box has as many
TEXT_CHARACTERS_MAX = 200
DIGEST_CHARACTERS = 12  # enough to tell processors apart

# What decides how fast a model runs on a processor, by the names of /proc/cpuinfo, and what everybody calls it.
_FEATURES: Mapping[str, str] = {
    "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "avx_vnni": "avx-vnni", "avx512f": "avx512f", "avx512bw": "avx512bw",
    "avx512vl": "avx512vl", "avx512vbmi": "avx512-vbmi", "avx512_vnni": "avx512-vnni", "avx512_bf16": "avx512-bf16",
    "avx512_fp16": "avx512-fp16", "amx_tile": "amx-tile", "amx_int8": "amx-int8", "amx_bf16": "amx-bf16",
    "asimd": "neon", "neon": "neon", "asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve", "sve2": "sve2",
    "sme": "sme", "v": "rvv",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Processor:
    """`digest` stands for all its flags: an engine that was built for one processor may not run on another. Empty: not told."""

    name: str
    cores: int
    threads: int
    features: tuple[str, ...] = ()  # those that matter here, in the order in which the processor tells them
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A card, or a graphics unit beside the processor. `id` outlives a restart of the machine."""

    id: str
    name: str
    source: Source
    total_bytes: int | None = None
    free_bytes: int | None = None
    utilisation_percent: int | None = None
    pci: str = ""  # 0000:c1:00.0, where it is on such a bus
    driver: str = ""
    engine: str = ""  # what the engine calls it (CUDA0); empty where the engine cannot use it
    shares_memory: bool = False  # its memory is the machine's own
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "total_bytes": self.total_bytes,
            "free_bytes": self.free_bytes,
            "utilisation_percent": self.utilisation_percent,
            "driver": self.driver or None,
            "engine": self.engine or None,
            "shares_memory": self.shares_memory,
            "note": self.note or None,
        }


@dataclass(frozen=True, slots=True)
class Look:
    """What one source answered. `reason` says why there is nothing, or what is wrong."""

    source: Source
    state: LookState
    reason: str = ""
    found: tuple[Accelerator, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """`looks`: in the order in which they are believed. Without any, nobody has looked yet."""

    looks: tuple[Look, ...] = ()
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None

    @property
    def accelerators(self) -> tuple[Accelerator, ...]:
        """Each once: what a driver says of a card, and what the engine calls it."""
        return merged(self.looks)

    @property
    def usable(self) -> tuple[Accelerator, ...]:
        """What the engine can put layers on, in its own order. One that shares the machine's memory counts only where there is no other."""
        ranks = {one.engine: rank for look in self.looks if look.source == "engine" for rank, one in enumerate(look.found)}
        found = sorted((one for one in self.accelerators if one.engine in ranks), key=lambda one: ranks[one.engine])
        return tuple(one for one in found if not one.shares_memory) or tuple(found)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What somebody should look after."""
        return tuple(f"{look.source}: {look.reason}" for look in self.looks if look.state in ("degraded", "failed"))


def merged(looks: Iterable[Look]) -> tuple[Accelerator, ...]:
    """One card that two sources know is one: by its place on the bus, or where no bus is told and there is one of that name in both."""
    known: list[Accelerator] = []
    for look in looks:
        for one in look.found:
            place = _same(known, one)
            if place is None:
                known.append(one)
            else:
                known[place] = _together(known[place], one)
    return tuple(known)


def _same(known: Sequence[Accelerator], one: Accelerator) -> int | None:
    for place, other in enumerate(known):
        if other.source == one.source:
            continue
        if one.pci and other.pci:
            if bus_address(one.pci) == bus_address(other.pci):
                return place
        elif one.name == other.name and not other.engine:
            return place  # cards of one name come in one order from everybody
    return None


def _together(first: Accelerator, second: Accelerator) -> Accelerator:
    """The first one's word counts; the second fills what it leaves open."""
    return replace(
        first,
        total_bytes=first.total_bytes if first.total_bytes is not None else second.total_bytes,
        free_bytes=first.free_bytes if first.free_bytes is not None else second.free_bytes,
        pci=first.pci or second.pci,
        engine=first.engine or second.engine,
        shares_memory=first.shares_memory or second.shares_memory,
    )


def bus_address(told: str) -> str:
    """NVIDIA's `00000000:C1:00.0` as the kernel and the engine write it: `0000:c1:00.0`."""
    domain, _, rest = told.lower().partition(":")
    return f"{domain[-4:]}:{rest}" if rest else told.lower()


def read_look(value: Any, *, source: Source) -> Look:
    """What a process that looked has written. Raises `ValueError` for what is none."""
    match value:
        case {"state": str(state), "reason": str(reason), "found": list(found)} if state in get_args(LookState):
            try:
                accelerators = tuple(_accelerator(row, source) for row in found[:ACCELERATORS_MAX])
            except (KeyError, TypeError) as error:
                raise ValueError(f"a device of {source} is malformed") from error
            return Look(source, cast("LookState", state), reason[:TEXT_CHARACTERS_MAX], accelerators)
    raise ValueError(f"it is no answer about {source}")


def write_look(look: Look) -> dict[str, Any]:
    """As `read_look` takes it."""
    rows = [
        {
            "id": one.id,
            "name": one.name,
            "total_bytes": one.total_bytes,
            "free_bytes": one.free_bytes,
            "utilisation_percent": one.utilisation_percent,
            "pci": one.pci,
            "driver": one.driver,
            "engine": one.engine,
            "shares_memory": one.shares_memory,
            "note": one.note,
        }
        for one in look.found
    ]
    return {"state": look.state, "reason": look.reason, "found": rows}


def _accelerator(row: Any, source: Source) -> Accelerator:
    texts = {key: row[key][:TEXT_CHARACTERS_MAX] for key in ("id", "name", "pci", "driver", "engine", "note")}
    numbers = {key: row[key] for key in ("total_bytes", "free_bytes", "utilisation_percent")}
    if not all(value is None or (isinstance(value, int) and value >= 0) for value in numbers.values()):
        raise TypeError("a figure of a device is none")
    return Accelerator(source=source, shares_memory=bool(row["shares_memory"]), **texts, **numbers)


def read_flags(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """Name and flags of the first processor in the text of /proc/cpuinfo; empty where they are not told."""
    found: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip().lower(), value.strip())
    return found.get("model name", ""), tuple(found.get("flags", found.get("features", "")).split())


def processor(cpuinfo: str, *, otherwise: str, cores: int, threads: int) -> Processor:
    """`otherwise`: its name where the text has none, on another system than Linux."""
    name, flags = read_flags(cpuinfo)
    digest = sha256(" ".join(sorted(flags)).encode()).hexdigest()[:DIGEST_CHARACTERS] if flags else ""
    return Processor(
        name or otherwise, cores, threads, tuple(dict.fromkeys(_FEATURES[flag] for flag in flags if flag in _FEATURES)), digest
    )

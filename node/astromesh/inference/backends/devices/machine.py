"""Processor and memory: read without a process of their own, since no driver is behind them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from astromesh.inference import devices
from astromesh.inference.devices import Processor

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Memory:
    total_bytes: int
    free_bytes: int  # what programs could have now, caches given back


def memory() -> Memory:
    told = psutil.virtual_memory()
    return Memory(told.total, told.available)


def processor(cpuinfo: Path = CPUINFO) -> Processor:
    threads = psutil.cpu_count(logical=True) or 1
    return devices.processor(
        cpuinfo_text(cpuinfo),
        otherwise=platform.processor() or platform.machine(),
        cores=psutil.cpu_count(logical=False) or threads,
        threads=threads,
    )


def cpuinfo_text(cpuinfo: Path = CPUINFO) -> str:
    """Empty on another system than Linux."""
    try:
        return cpuinfo.read_text(errors="replace")
    except OSError:
        return ""

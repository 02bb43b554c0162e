"""Where a running process spends its time: py-spy's samples, counted by function and by package.

Sampled from outside, so that the process is the one that users run, all its threads included. Where the kernel does not say which threads
are asleep (in sandboxes), py-spy takes waiting for work; so frames that only wait are counted apart, and shares are of the rest.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# py-spy works on the same cores: beside 400 samples a second a node answered 925 requests a second, beside 100 1,091, alone 2,491.
SAMPLES_PER_SECOND = 100
TOP = 30
WAITING = ("EpollSelector.select", "KqueueSelector.select", "_worker  concurrent/", "Condition.wait", "Event.wait")
FRAME = re.compile(r"^(?P<function>.+?) \((?P<file>[^()]+?)(?::\d+)?\)$")


@dataclass(frozen=True, slots=True)
class Hotspots:
    """Samples by function: `own`, while it was the innermost; `whole`, while it was anywhere on the stack. `waiting` is in neither."""

    samples: int
    waiting: int
    own: Counter[str]
    whole: Counter[str]
    packages: Counter[str]

    def __str__(self) -> str:
        def table(title: str, counts: Counter[str]) -> list[str]:
            rows = [f"{100 * count / self.samples:6.1f} %  {name}" for name, count in counts.most_common(TOP)]
            return [title, *rows, ""]

        if not self.samples:
            return "no samples: the process was idle"
        own = table("own time by function", self.own)
        whole = table("time including callees", self.whole)
        return "\n".join(
            [*table("own time by package", self.packages), *own, *whole, f"{self.samples} samples of work, {self.waiting} of waiting"]
        )


def package_of(file: str) -> str:
    """`astromesh/runtime/stage.py` → `astromesh.runtime`; `aiohttp/web.py` → `aiohttp`; a module at the top is its own."""
    parts = Path(file.split("site-packages/")[-1]).parts
    if parts[0] in {"astromesh", "maia"} and len(parts) > 2:
        return f"{parts[0]}.{parts[1]}"
    return parts[0].removesuffix(".py")


def counted(raw: str) -> Hotspots:
    """From py-spy's raw format: a stack a line, outermost frame first, then its number of samples."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    samples = waiting = 0
    for line in raw.splitlines():
        stack, _, number = line.rpartition(" ")
        frames = [match for frame in stack.split(";") if (match := FRAME.match(frame)) is not None]
        if not frames:
            continue
        count = int(number)
        names = [f"{frame['function']}  {frame['file']}" for frame in frames]
        if names[-1].startswith(WAITING):
            waiting += count
            continue
        samples += count
        own[names[-1]] += count
        packages[package_of(frames[-1]["file"])] += count
        for name in dict.fromkeys(names):  # once each, however deep it recurses
            whole[name] += count
    return Hotspots(samples, waiting, own, whole, packages)


async def hotspots(pid: int, *, seconds: float) -> Hotspots:
    """Watches a process for some seconds. Raises `RuntimeError` where py-spy is missing or may not look."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        raise RuntimeError("profiling needs py-spy: pip install py-spy")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "stacks"
        sampling = ["--nonblocking", "--duration", str(round(seconds)), "--rate", str(SAMPLES_PER_SECOND), "--function"]
        options = [*sampling, "--format", "raw", "--output", str(out)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(program, "record", *options, "--pid", str(pid), stdout=pipe, stderr=pipe)
        try:
            _, complaint = await asyncio.wait_for(process.communicate(), seconds + 30)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0 or not out.exists():
            raise RuntimeError(f"py-spy could not watch process {pid}: {complaint.decode(errors='replace').strip()}")
        return counted(out.read_text())

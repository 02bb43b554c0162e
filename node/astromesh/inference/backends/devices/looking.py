"""Asks each source in a short-lived process and gives it its time. Blocks: an event loop calls it in a thread."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from astromesh.inference.backends.devices.machine import memory
from astromesh.inference.devices import Inventory, Look, Source, read_look

SOURCES: tuple[Source, ...] = ("nvidia", "amd", "engine")

# A driver that starts cold takes three seconds with eight cards; one that has not answered after ten hangs.
LOOK_TIMEOUT_S = 10.0
# A process that was killed while it waits for its driver ends when the driver lets go, which may be never. Nobody waits for that.
KILLED_S = 1.0
ANSWER_BYTES_MAX = 256 * 1024

_ROOM = "astromesh.inference.backends.devices"
# Libraries of an engine that can use nothing but the processor.
_PROCESSOR_ONLY = ("ggml-base", "ggml-cpu", "ggml-blas", "ggml-rpc")


class LookFailed(Exception):
    """The question could not be answered. The message says why."""


class Looker:
    """`commands` are for tests; what is not among them is as always."""

    def __init__(self, *, commands: Mapping[Source, Sequence[str]] | None = None, timeout_s: float = LOOK_TIMEOUT_S) -> None:
        self._commands = dict(commands or {})
        self._timeout_s = timeout_s
        self._asked: dict[Source, subprocess.Popen[bytes]] = {}
        self._guard = threading.Lock()
        self._turns: dict[Source, threading.Lock] = {source: threading.Lock() for source in SOURCES}
        self._stopped = False

    def inventory(self) -> Inventory:
        """All sources, one after the other, and the memory as it is now."""
        return with_memory(Inventory(tuple(self.look(source) for source in SOURCES)))

    def survey(self) -> Inventory:
        """What the engine can put layers on, with the figures of now. Without such an engine only the memory, and no process is started."""
        engine = self.look("engine")
        if not engine.found:
            return with_memory(Inventory((engine,)))
        return with_memory(Inventory((self.look("nvidia"), self.look("amd"), engine)))

    def look(self, source: Source) -> Look:
        try:
            if source != "engine":
                return read_look(self._ask(source, self._command(source)), source=source)
            folder = libraries()
            if folder is None and source not in self._commands:
                return Look("engine", "absent", "no engine is installed")
            if folder is not None and source not in self._commands and not beyond_the_processor(folder):
                # Most are; there is no need for a process to see it.
                return Look("engine", "absent", "the engine is built for the processor alone")
            return read_look(self.report().get("look"), source="engine")
        except (LookFailed, ValueError) as failure:
            return Look(source, "failed", str(failure))

    def report(self) -> dict[str, Any]:
        """What the engine says of itself (`engine.report`). Raises `LookFailed`."""
        folder = libraries()
        if folder is None and "engine" not in self._commands:
            raise LookFailed("no engine is installed")
        document = self._ask("engine", self._command("engine", str(folder)))
        if not isinstance(document, dict):
            raise LookFailed("the engine's answer is none")
        return document

    @property
    def asking(self) -> bool:
        """Whether a process of it is under way."""
        with self._guard:
            return any(process.poll() is None for process in self._asked.values())

    def stop(self) -> None:
        """Whoever waits for an answer gets none."""
        with self._guard:
            self._stopped = True
            for process in self._asked.values():
                process.kill()

    def _command(self, source: Source, *arguments: str) -> Sequence[str]:
        return self._commands.get(source) or (sys.executable, "-P", "-m", f"{_ROOM}.{source}", *arguments)

    def _ask(self, source: Source, command: Sequence[str]) -> Any:
        with self._turns[source]:
            process = self._start(source, command)
            try:
                out, err = process.communicate(timeout=self._timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                try:
                    process.communicate(timeout=KILLED_S)
                except subprocess.TimeoutExpired:
                    _abandon(process)
                raise LookFailed(f"its driver has not answered within {self._timeout_s:g} s") from None
        if process.returncode != 0:
            raise LookFailed(f"the process that looked {_in_words(process.returncode)}{_last_line(err)}")
        try:
            return json.loads(out[:ANSWER_BYTES_MAX])
        except ValueError as error:
            raise LookFailed("the process that looked gave no answer that can be read") from error

    def _start(self, source: Source, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._guard:
            before = self._asked.get(source)
            if self._stopped:
                raise LookFailed("the node is shutting down")
            if before is not None and before.poll() is None:
                raise LookFailed("the process that asked last time still hangs in its driver")
            try:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            except OSError as error:
                raise LookFailed(f"no process could be started to look: {error}") from error
            self._asked[source] = process
            return process


def _abandon(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def with_memory(inventory: Inventory) -> Inventory:
    told = memory()
    return replace(inventory, memory_total_bytes=told.total_bytes, memory_free_bytes=told.free_bytes)


def libraries() -> Path | None:
    """The folder of the engine's libraries, found without importing it. None where no engine is installed."""
    found = importlib.util.find_spec("llama_cpp")
    places = list(found.submodule_search_locations or ()) if found is not None else []
    return Path(places[0]) / "lib" if places else None


def beyond_the_processor(folder: Path) -> bool:
    """Whether the engine was built to use anything else, by the names of its libraries."""
    names = {path.name.removeprefix("lib").partition(".")[0] for path in folder.glob("*ggml-*")}
    return any(not name.startswith(_PROCESSOR_ONLY) for name in names)


def _in_words(code: int) -> str:
    if code == -signal.SIGILL:
        return "met an instruction that this processor does not have: the engine was built for another one"
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _last_line(err: bytes) -> str:
    lines = [line.strip() for line in err.decode(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1]}" if lines else ""

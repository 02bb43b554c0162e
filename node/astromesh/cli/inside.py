"""A node inside this process, for a question while no node runs.

It lives on a thread with a loop of its own, so that a verb reads it just as it reads a node elsewhere: one event after the other.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Coroutine, Generator
from concurrent.futures import Future
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from astromesh.cli.client import Event
from astromesh.cli.terminal import ProgressLine
from astromesh.errors import AstromeshError, MissingExtra, ModelUnavailable, StoreError
from astromesh.inference import registry

if TYPE_CHECKING:
    from astromesh.runtime.engine import Run
    from astromesh.service.config_dir import Configuration
    from astromesh.service.node import Node
    from astromesh.service.settings import NodeSettings

LOAD_S = 600.0  # the largest models that fit on one machine, from a slow disk
POLL_S = 0.05
CLOSE_S = 30.0  # runs under way have 20 s of their own; a node that hangs must not keep the terminal

T = TypeVar("T")


class ModelNotInstalled(ModelUnavailable):
    """The agent's model is one of this mesh's own, and this machine has none of that name."""

    def __init__(self, message: str, *, model: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.model = model


class NodeInside:
    def __init__(self, settings: NodeSettings, configuration: Configuration, *, quiet: bool) -> None:
        """`quiet`: stderr is read by a program, so it gets neither warnings nor progress."""
        self._settings = settings
        self._quiet = quiet
        self._configuration = configuration
        self._opened: Future[Node] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._live, name="node inside", daemon=True)

    def __enter__(self) -> NodeInside:
        _open_logs(quiet=self._quiet)
        self._thread.start()
        try:
            self._node = self._opened.result()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def prepare(self, agent: str) -> None:
        """Waits for the agent's model with a progress line. Raises `ModelUnavailable` where it cannot be had."""
        known = self._node.runtime.agents.get(agent)
        if known is None or (first := known.choice().first).provider is not None:
            return
        line = ProgressLine(shown=not self._quiet)
        deadline = monotonic() + LOAD_S
        try:
            while (row := self._row(first.model)) is None or row["state"] not in ("loaded", "remote"):
                if row is None or row.get("error") or row.get("refused"):
                    raise self._missing(first.model, agent, problem="" if row is None else row.get("error") or row["refused"])
                if row["state"] == "on_disk":
                    self._call(self._load(first.model))
                if monotonic() > deadline:
                    raise ModelUnavailable(f"model {first.model} did not load within {LOAD_S:g} s", hint="is the machine out of memory?")
                line.say(f"loading {first.model} {row.get('progress', 0.0):4.0%}")
                sleep(POLL_S)
        finally:
            line.end()

    def run(self, agent: str, query: str, *, session_id: str | None) -> Generator[Event, None, None]:
        """The events of a run as they happen, to its `done`. Closing the iterator cancels the run."""
        run = self._call(self._start(agent, query, session_id))
        try:
            while (event := self._call(_next(run))) is not None:
                yield event
                if event.kind == "done":
                    return
        finally:
            self._call(run.close())
        raise AstromeshError("the run ended without a result")

    def remembers(self, agent: str) -> bool | None:
        """Whether the agent knows earlier questions of a session; None where there is no such agent."""
        known = self._node.runtime.agents.get(agent)
        return None if known is None else known.memory is not None

    def _row(self, model: str) -> dict[str, Any] | None:
        return next((row for row in self._node.house.model_rows() if row["name"] == model), None)

    def _missing(self, model: str, agent: str, *, problem: str) -> AstromeshError:
        """Why the model does not load, and what brings it: the model itself, or the engine."""
        from astromesh.inference.backends.folder import open_store
        from astromesh.inference.engines import HOW_TO_GET_ONE
        from astromesh.runtime.engines import engine_for, installed

        try:
            open_store(self._settings.models_dir).resolve(model)
        except StoreError as missing:
            if not problem or registry.find(model) is not None:
                said = f"agent {agent} uses the model {model}: {missing.message}"
                return ModelNotInstalled(said, model=model, hint=missing.hint)
        if not installed():
            return MissingExtra(engine_for("gguf").absent, hint=HOW_TO_GET_ONE)
        hint = "" if problem else "name it under spec.inference.models of runtime.yaml"
        return ModelUnavailable(problem or f"model {model} is installed and not loaded", hint=hint)

    async def _load(self, model: str) -> None:
        """It was installed, and found no room of its own accord when the node opened."""
        self._node.shelf.load(model)

    async def _start(self, agent: str, query: str, session_id: str | None) -> Run:
        from astromesh.runtime.events import RunRequest

        asked = RunRequest(agent, query, session_id=session_id, context={}, watched=True)
        return self._node.runtime.start(asked, request_id=uuid4().hex)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits on the node's thread. Interrupted here, it is cancelled there."""
        assert self._loop is not None, "the node is open"
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _live(self) -> None:
        asyncio.run(self._life())

    async def _life(self) -> None:
        """Opened and closed by one task, as its parts demand."""
        from astromesh.service.node import open_node

        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with open_node(self._settings, self._configuration, doors=False) as node:
                self._opened.set_result(node)
                await self._over.wait()
        except BaseException as failure:
            if self._opened.done():
                raise
            self._opened.set_exception(failure)

    def _close(self) -> None:
        if self._loop is not None and self._over is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(CLOSE_S)


async def _next(run: Run) -> Event | None:
    event = await anext(run.events, None)
    return None if event is None else Event(event.kind, dict(event.data))


def _open_logs(*, quiet: bool) -> None:
    """What a node would have in its log, as far as it is a warning."""
    handler = logging.NullHandler() if quiet else logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])

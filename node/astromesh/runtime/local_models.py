"""The models that this node answers for: its own worker processes, and the model servers that it shares with the mesh.

A model of its own is found first (pulled, or its file read through to know its digest) and then loaded, both beside everything else: a node
is up before its models are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from astromesh.dialogue import ModelEvent, ModelRequest
from astromesh.errors import AstromeshError, ModelUnavailable
from astromesh.fleet.offers import ModelState, OfferedModel
from astromesh.inference.port import EngineState, InferenceEngine, ModelSpecification, Progress
from astromesh.providers.port import ModelProvider
from astromesh.runtime.health import Watched
from astromesh.runtime.models import LocalModel

log = logging.getLogger(__name__)

Find = Callable[[Progress], ModelSpecification]
"""Where a model is; may take long and blocks, so it is called in a thread. Raises `AstromeshError`."""

_OFFERED_AS: dict[EngineState, ModelState] = {"loaded": "loaded", "loading": "loading", "unloaded": "on_disk", "failed": "on_disk"}


class LocalModels:
    """`changed` is called whenever what is offered may have changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self._own: dict[str, OwnModel] = {}
        self._shared: dict[str, ModelProvider] = {}

    def add_own(self, name: str, find: Find, *, engine: Callable[[ModelSpecification], InferenceEngine]) -> LocalModel:
        own = self._own[name] = OwnModel(name, find, engine=engine, changed=self.changed)
        return LocalModel(own, lambda: own.state == "loaded")

    def add_shared(self, name: str, provider: ModelProvider, *, watched: Watched) -> LocalModel:
        """`watched` knows whether the server behind it answers."""
        self._shared[name] = provider
        return LocalModel(provider, lambda: watched.health != "down", watched.doubt)

    @property
    def queued(self) -> int:
        """Requests that wait for a worker."""
        return sum(own.engine.stats.queued for own in self._own.values() if own.engine is not None)

    def load(self) -> None:
        """Begins to load every model. Requests that come before are told to come back."""
        for own in self._own.values():
            own.load()

    async def close(self) -> None:
        await asyncio.gather(*(own.close() for own in self._own.values()))

    def offered(self) -> tuple[OfferedModel, ...]:
        """In the order of their names. A model that cannot be loaded is not offered."""
        own = (OfferedModel(name, _OFFERED_AS[one.state], one.identity) for name, one in self._own.items() if one.state != "failed")
        return tuple(sorted((*own, *(OfferedModel(name, "remote") for name in self._shared)), key=lambda model: model.name))

    def rows(self) -> list[dict[str, Any]]:
        """For people: `{name, state, identity, created, progress?, error?}`."""
        rows = [own.row() for own in self._own.values()]
        return rows + [{"name": name, "state": "remote", "identity": "", "created": 0} for name in self._shared]

    def figures(self) -> Iterable[Metric]:
        """For Prometheus, read at the moment of the scrape."""
        return _figures([own.engine for own in self._own.values() if own.engine is not None])


class OwnModel:
    """One model of this node as a provider, from before its file is found to the end of its worker."""

    def __init__(
        self, name: str, find: Find, *, engine: Callable[[ModelSpecification], InferenceEngine], changed: Callable[[], None]
    ) -> None:
        self.name = name
        self.engine: InferenceEngine | None = None
        self._find = find
        self._build = engine
        self._changed = changed
        self._problem = ""
        self._progress = 0.0
        self._created = 0
        self._loading: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def state(self) -> EngineState:
        if self._problem:
            return "failed"
        return self.engine.state if self.engine is not None else "loading"

    @property
    def identity(self) -> str:
        return self.engine.identity if self.engine is not None else ""

    def load(self) -> None:
        self._loading = asyncio.create_task(self._load(), name=f"loading {self.name}")

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        if self.engine is None:
            raise ModelUnavailable(f"model {self.name} is not there yet", hint="astromesh-node models list shows its state")
        stream = self.engine.complete(request, timeout_s=timeout_s)
        try:
            async for event in stream:
                yield event
        finally:
            await stream.aclose()

    async def close(self) -> None:
        self._closing = True
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        if self.engine is not None:
            await self.engine.close()

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {"name": self.name, "state": _OFFERED_AS[self.state], "identity": self.identity, "created": self._created}
        if self.state == "loading":
            row["progress"] = round(self.engine.load_progress if self.engine is not None else self._progress, 3)
        if problem := self._problem or (self.engine.problem if self.engine is not None else ""):
            row["error"] = problem
        return row

    async def _load(self) -> None:
        try:
            found = await asyncio.to_thread(self._find, self._note)
            self._created = int(found.path.stat().st_mtime)
            self.engine = self._build(found)
            await self.engine.start()
            log.info("model %s is loaded", self.name)
        except AstromeshError as failure:
            self._problem = failure.message
            log.warning("model %s: %s. %s", self.name, failure.message, failure.hint)
            self._changed()
        except Exception as failure:
            self._problem = f"it cannot be loaded: {type(failure).__name__}"
            log.exception("model %s cannot be loaded", self.name)
            self._changed()

    def _note(self, done: int, total: int, what: str) -> None:
        if self._closing:
            # A thread cannot be cancelled, but it comes by here: a node that stops must not wait for a download.
            raise ModelUnavailable(f"model {self.name}: the node stopped while {what}")
        self._progress = done / total if total else 0.0


def _figures(engines: Iterable[InferenceEngine]) -> Iterator[Metric]:
    running = GaugeMetricFamily("astromesh_inference_running", "Completions that a worker is busy with.", labels=["model"])
    queued = GaugeMetricFamily("astromesh_inference_queued", "Completions that wait for a worker.", labels=["model"])
    finished = CounterMetricFamily("astromesh_inference_completions", "Completions that a worker has finished.", labels=["model"])
    restarts = CounterMetricFamily("astromesh_inference_worker_restarts", "Workers that had to be started again.", labels=["model"])
    tokens = CounterMetricFamily("astromesh_inference_tokens", "Tokens that a worker has read and made.", labels=["model", "direction"])
    for engine in engines:
        stats = engine.stats
        running.add_metric([engine.name], stats.running)
        queued.add_metric([engine.name], stats.queued)
        finished.add_metric([engine.name], stats.finished)
        restarts.add_metric([engine.name], stats.restarts)
        tokens.add_metric([engine.name, "in"], stats.tokens_in)
        tokens.add_metric([engine.name, "out"], stats.tokens_out)
    yield from (running, queued, finished, restarts, tokens)

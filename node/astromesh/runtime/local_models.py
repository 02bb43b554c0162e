"""The models that this node answers for: its own worker processes, and the model servers that it shares with the mesh."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from astromesh.errors import AstromeshError
from astromesh.fleet.offers import ModelState, OfferedModel
from astromesh.inference.port import EngineState, InferenceEngine
from astromesh.providers.port import ModelProvider
from astromesh.runtime.models import LocalModel

log = logging.getLogger(__name__)

_OFFERED_AS: dict[EngineState, ModelState] = {"loaded": "loaded", "loading": "loading", "unloaded": "on_disk", "failed": "on_disk"}


class LocalModels:
    """`changed` is called whenever what is offered may have changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self._engines: dict[str, InferenceEngine] = {}
        self._created: dict[str, int] = {}
        self._shared: dict[str, ModelProvider] = {}
        self._loading: list[asyncio.Task[None]] = []

    def add_engine(self, engine: InferenceEngine, *, created: int) -> LocalModel:
        """`created`: when its file was installed, seconds since the epoch."""
        self._engines[engine.name] = engine
        self._created[engine.name] = created
        return LocalModel(_Engine(engine), lambda: engine.state == "loaded")

    def add_shared(self, name: str, provider: ModelProvider) -> LocalModel:
        self._shared[name] = provider
        return LocalModel(provider, lambda: True)

    def load(self) -> None:
        """Begins to load every model. Requests that come before are told to come back."""
        for engine in self._engines.values():
            self._loading.append(asyncio.create_task(self._load(engine), name=f"loading {engine.name}"))

    async def close(self) -> None:
        for task in self._loading:
            task.cancel()
        await asyncio.gather(*self._loading, return_exceptions=True)
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))

    def offered(self) -> tuple[OfferedModel, ...]:
        """In the order of their names. A model that cannot be loaded is not offered."""
        own = (
            OfferedModel(name, _OFFERED_AS[engine.state], engine.identity)
            for name, engine in self._engines.items()
            if engine.state != "failed"
        )
        return tuple(sorted((*own, *(OfferedModel(name, "remote") for name in self._shared)), key=lambda model: model.name))

    def rows(self) -> list[dict[str, Any]]:
        """For people: `{name, state, identity, created, progress?, error?}`."""
        rows: list[dict[str, Any]] = []
        for name, engine in self._engines.items():
            row: dict[str, Any] = {
                "name": name,
                "state": _OFFERED_AS[engine.state],
                "identity": engine.identity,
                "created": self._created[name],
            }
            if engine.state == "loading":
                row["progress"] = round(engine.load_progress, 3)
            if engine.problem:
                row["error"] = engine.problem
            rows.append(row)
        rows += [{"name": name, "state": "remote", "identity": "", "created": 0} for name in self._shared]
        return rows

    def figures(self) -> Iterable[Metric]:
        """For Prometheus, read at the moment of the scrape."""
        return _figures(self._engines.values())

    async def _load(self, engine: InferenceEngine) -> None:
        try:
            await engine.start()
            log.info("model %s is loaded", engine.name)
        except AstromeshError as failure:
            log.warning("%s. %s", failure.message, failure.hint)


class _Engine:
    """A worker process as a model provider."""

    def __init__(self, engine: InferenceEngine) -> None:
        self.complete = engine.complete
        self.close = engine.close


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

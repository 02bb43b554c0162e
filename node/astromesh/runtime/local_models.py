"""The models that this node answers for: its own worker processes, and the model servers that it shares with the mesh.

Each of its own is an `OwnModel`. One goes when nobody has asked for it for long, or when another needs the room; never while somebody reads
from it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from astromesh.errors import AstromeshError, ModelFailed, ModelUnavailable, UnknownModel
from astromesh.fleet.offers import OfferedModel
from astromesh.inference.port import InferenceEngine
from astromesh.inference.residence import Resident, idle, to_unload
from astromesh.providers.port import ModelProvider
from astromesh.runtime.health import Watched
from astromesh.runtime.models import LocalModel
from astromesh.runtime.own_model import Build, Find, FoundModel, OwnModel

log = logging.getLogger(__name__)

# Who finds no room because others are busy waits this long for one of them to finish, and is told so before its own caller gives up.
ROOM_PATIENCE_S = 20.0
ROOM_LOOK_S = 0.2
TIDY_S = 5.0  # how often idle models are looked for


@dataclass(frozen=True, slots=True)
class MemoryRules:
    """`budget_bytes`: what all models together may take. `idle_s`: after which nobody's model goes; 0: never.

    `strict`: the budget was written down, so it binds also those that the configuration names.
    """

    budget_bytes: int
    idle_s: float
    strict: bool = False


def _half() -> MemoryRules:
    return MemoryRules(budget_bytes=psutil.virtual_memory().total // 2, idle_s=0.0)


class LocalModels:
    """`changed` is called whenever what is offered may have changed."""

    def __init__(self, changed: Callable[[], None], *, free_bytes: Callable[[], int] = lambda: psutil.virtual_memory().available) -> None:
        self.changed = changed
        self.rules = _half()
        self.measured: Callable[[FoundModel, float], None] = lambda _model, _tok_s: None  # told a speed that is news
        self._free_bytes = free_bytes
        self.at_start: list[str] = []  # to be loaded by `open`
        self._own: dict[str, OwnModel] = {}
        self._shared: dict[str, ModelProvider] = {}
        self._room = asyncio.Lock()  # one at a time looks for room, or two would find the same
        self._tidying: asyncio.Task[None] | None = None

    def add_own(self, name: str, find: Find, *, engine: Build, named: bool = True, found: FoundModel | None = None) -> LocalModel:
        """`named`: the configuration wants it. `found`: about what `find` will say, which is asked before each load all the same."""
        own = self._own[name] = OwnModel(
            name,
            find,
            engine=engine,
            named=named,
            found=found,
            changed=self.changed,
            make_room=self._make_room,
            measured=self.measured,
        )
        return LocalModel(
            own,
            lambda: own.state == "loaded",
            wakes=lambda: own.state in ("unloaded", "loading"),
            tok_s=lambda: own.tok_s,
            identity=lambda: own.identity,
            problem=lambda: own.problem,
        )

    def add_shared(self, name: str, provider: ModelProvider, *, watched: Watched) -> LocalModel:
        """`watched` knows whether the server behind it answers."""
        self._shared[name] = provider
        return LocalModel(provider, lambda: watched.health != "down", watched.doubt, endpoint=watched.endpoint)

    def withdraw_shared(self) -> list[str]:
        """Forgets the models behind model servers; which they were."""
        names = list(self._shared)
        self._shared.clear()
        return names

    def own(self, name: str) -> OwnModel:
        """Raises `UnknownModel` for one that this node has not itself."""
        if name in self._own:
            return self._own[name]
        if name in self._shared:
            raise UnknownModel(f"model {name} is behind a model server, which loads it as it likes", hint="ask that server")
        raise UnknownModel(
            f"this node has no model {name!r} of its own", hint="astromesh-node models list shows who has it; name that node with --url"
        )

    def names(self) -> tuple[str, ...]:
        """Of its own."""
        return tuple(sorted(self._own))

    def has(self, name: str) -> bool:
        return name in self._own or name in self._shared

    async def forget(self, name: str) -> None:
        """Unloads it and offers it no more."""
        own = self._own.pop(name)
        await own.close()
        self.changed()

    @property
    def queued(self) -> int:
        """Requests that wait for a worker."""
        return sum(own.engine.stats.queued for own in self._own.values() if own.engine is not None)

    def open(self) -> None:
        """Begins to load what is wanted from the start, and from now on unloads what is idle."""
        for name in self.at_start:
            self._own[name].load(unasked=not self._own[name].named)
        self._tidying = asyncio.create_task(self._keep_tidy(), name="unloading idle models")

    async def close(self) -> None:
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.wait([self._tidying])
        await asyncio.gather(*(own.close() for own in self._own.values()))

    def offered(self) -> tuple[OfferedModel, ...]:
        """In the order of their names. A model that cannot be loaded is not offered, unless all it lacks is an engine: who asks is told."""
        own = (one.offered() for one in self._own.values() if one.state != "failed" or one.lacks_engine)
        return tuple(sorted((*own, *(OfferedModel(name, "remote") for name in self._shared)), key=lambda model: model.name))

    def rows(self) -> list[dict[str, Any]]:
        """For people: `{name, state, identity, created, progress?, eta_s?, error?, …}`."""
        rows = [own.row() for own in self._own.values()]
        return rows + [{"name": name, "state": "remote", "identity": "", "created": 0} for name in self._shared]

    def figures(self) -> Iterable[Metric]:
        """For Prometheus, read at the moment of the scrape."""
        return _figures([own.engine for own in self._own.values() if own.engine is not None])

    def residents(self) -> tuple[Resident, ...]:
        """What is in memory or on its way there, in the order of names."""
        return tuple(self._own[name].resident() for name in sorted(self._own) if self._own[name].takes_memory)

    def leaving_for(self, name: str, needed_bytes: int) -> tuple[str, ...] | None:
        """Who would go if this model were loaded now; None: it finds no room."""
        others = [one for one in self.residents() if one.name != name]
        return to_unload(others, needed_bytes=needed_bytes, room_bytes=self.rules.budget_bytes)

    async def _make_room(self, model: OwnModel) -> None:
        """Unloads whom it takes, and counts `model` from then on. Raises `ModelUnavailable`, `ModelFailed`."""
        until_s = monotonic() + ROOM_PATIENCE_S
        while not await self._found_room(model, last=monotonic() >= until_s):  # noqa: ASYNC110  every end of every answer would be an event
            await asyncio.sleep(ROOM_LOOK_S)

    async def _found_room(self, model: OwnModel, *, last: bool) -> bool:
        """Whether there was any. `last`: nobody waits longer for those who are busy."""
        async with self._room:
            needed = model.needed_bytes
            # Looked at again after each that went: its end takes up to two seconds, and meanwhile the next may have got a reader.
            while (leaving := self.leaving_for(model.name, needed)) != ():
                if model.unasked:
                    raise ModelUnavailable(
                        f"there is no room for model {model.name} beside the others", hint="whoever asks for it makes room"
                    )
                if leaving is None:
                    if model.named and not self.rules.strict:
                        break
                    if last or needed > self.rules.budget_bytes:
                        raise self._no_room(model, needed)
                    return False
                log.info("model %s is unloaded to make room for %s", leaving[0], model.name)
                await self._own[leaving[0]].unload()
            if (free := self._free_bytes()) < needed and not model.named:
                raise ModelUnavailable(
                    f"model {model.name} needs {needed / 1e6:,.0f} MB of memory, and {free / 1e6:,.0f} MB are free on this machine",
                    hint="end something else there, or ask a smaller model",
                )
            model.reserved = True
            return True

    def _no_room(self, model: OwnModel, needed: int) -> AstromeshError:
        budget = self.rules.budget_bytes
        if needed > budget:
            return ModelFailed(
                f"model {model.name} needs {needed / 1e6:,.0f} MB of memory, and models may take {budget / 1e6:,.0f} MB on this node",
                code="model_provider_unavailable",
                hint="raise spec.inference.memory_budget_mb, or give it less spec.inference.models[].context",
                definite=True,
            )
        busy = ", ".join(one.name for one in self.residents() if one.busy and one.name != model.name)
        return ModelUnavailable(f"model {model.name} finds no room in memory: busy are {busy}", hint="ask again when one of them is done")

    async def _keep_tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            try:
                await self.tidy(now=monotonic())
            except Exception:
                log.exception("idle models could not be unloaded; it is tried again in %g s", TIDY_S)

    async def tidy(self, *, now: float) -> None:
        """Unloads what nobody asked for in a long time."""
        for name in sorted(self._own):
            # Looked at one by one: while one goes, which takes up to two seconds, another may be asked or forgotten.
            own = self._own.get(name)
            if own is not None and own.takes_memory and idle(own.resident(), now=now, idle_s=self.rules.idle_s):
                log.info("model %s is unloaded: nobody asked for it in %g s", name, self.rules.idle_s)
                await own.unload()


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

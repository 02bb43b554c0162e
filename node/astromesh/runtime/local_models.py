"""The models that this node answers for: its own worker processes, and the model servers that it shares with the mesh.

A model of its own is found first (pulled, or its file read through to know its digest) and then loaded, both beside everything else: a node
is up before its models are. One that is not loaded is loaded when somebody asks for it, and goes again when nobody has for long or when
another needs the room; never while somebody reads from it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from astromesh.dialogue import EncodingRequest, Encodings, ModelEvent, ModelReply, ModelRequest
from astromesh.errors import AstromeshError, InvalidRequest, MissingExtra, ModelBusy, ModelFailed, ModelUnavailable, UnknownModel
from astromesh.fleet.offers import COMPLETES, Capability, ModelState, OfferedModel
from astromesh.inference.encoding import TextEncoder
from astromesh.inference.port import Counting, EngineState, InferenceEngine, ModelSpecification, Progress
from astromesh.inference.residence import Resident, average_tok_s, eta_s, idle, to_unload, told_tok_s
from astromesh.providers.port import ModelProvider
from astromesh.runtime.health import Watched
from astromesh.runtime.models import LocalModel

log = logging.getLogger(__name__)

# A small model is there in a second, and its caller never learns that it was not. One who would wait longer than this is better told when
# to come back: the caller's own patience may be at its end, too.
LOADING_PATIENCE_S = 30.0
# … and who has less time than that is told while he still listens: the answer has to travel, too.
LOADING_SHARE = 0.75
# Who finds no room because others are busy waits this long for one of them to finish, and is told so before its own caller gives up.
ROOM_PATIENCE_S = 20.0
ROOM_LOOK_S = 0.2
TIDY_S = 5.0  # how often idle models are looked for
MEASURED_TOKENS_MIN = 8  # the speed of a shorter answer is that of its first steps


@dataclass(frozen=True, slots=True)
class FoundModel:
    """`needed_bytes`: of this machine's memory, once it is loaded. `tok_s`: as one stream of it was measured in an earlier life."""

    specification: ModelSpecification
    needed_bytes: int = 0
    size_bytes: int = 0
    created: int = 0  # in seconds since the epoch
    capabilities: tuple[Capability, ...] = COMPLETES
    tok_s: float | None = None


Find = Callable[[Progress], FoundModel]
"""Where a model is; may take long and blocks, so it is called in a thread. Raises `AstromeshError`."""

Build = Callable[[FoundModel], InferenceEngine]

_OFFERED_AS: dict[EngineState, ModelState] = {"loaded": "loaded", "loading": "loading", "unloaded": "on_disk", "failed": "on_disk"}


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


class OwnModel:
    """One model of this node as a provider, from before its file is found to the end of its worker, and to the next one."""

    def __init__(
        self,
        name: str,
        find: Find,
        *,
        engine: Build,
        changed: Callable[[], None],
        make_room: Callable[[OwnModel], Any],
        measured: Callable[[FoundModel, float], None],
        named: bool = True,
        found: FoundModel | None = None,
    ) -> None:
        self.name = name
        self.named = named
        self.engine: InferenceEngine | None = None
        self.found = found
        self.unasked = False  # nobody waits for it: it takes room that is free, and no other
        self.reserved = False  # it counts as in memory although its worker is only about to start
        self.active = 0  # completions that run or wait
        self.tok_s: float | None = None
        self._told_tok_s: float | None = None
        self._recall()
        self._find = find
        self._build = engine
        self._changed = changed
        self._make_room = make_room
        self._measured = measured
        self._problem = ""  # why it cannot be loaded; it is not tried again by itself
        self.lacks_engine = False
        self._refusal: AstromeshError | None = None  # why the last load did not begin, which may be otherwise the next time
        self._doing = ""  # what is going on before the worker starts
        self._progress = 0.0
        self._began_s = 0.0
        self._last_load_s: float | None = None
        self._used_s = 0.0
        self._loading: asyncio.Task[None] | None = None
        self._enough = threading.Event()  # for the thread of the present load: a thread cannot be cancelled
        self._closing = False

    @property
    def state(self) -> EngineState:
        if self._problem:
            return "failed"
        if self._loading is not None and not self._loading.done():
            return "loading"
        return self.engine.state if self.engine is not None else "unloaded"

    @property
    def identity(self) -> str:
        return self.found.specification.identity if self.found is not None else ""

    @property
    def needed_bytes(self) -> int:
        return self.found.needed_bytes if self.found is not None else 0

    @property
    def takes_memory(self) -> bool:
        return self.reserved or (self.engine is not None and self.engine.state in ("loading", "loaded"))

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """Empty until its file was found."""
        return self.found.capabilities if self.found is not None else ()

    @property
    def problem(self) -> str:
        """Why it cannot be loaded, or what its worker died of; empty where nothing is wrong."""
        return self._problem or (self.engine.problem if self.engine is not None else "")

    def resident(self) -> Resident:
        busy = bool(self.active) or self.state == "loading"
        return Resident(self.name, self.needed_bytes, self._used_s, busy)

    def offered(self) -> OfferedModel:
        engine = self.engine if self.state == "loaded" else None
        kernel, warmth = (engine.kernel, engine.warmth) if engine is not None else ("", b"")
        state, can = _OFFERED_AS[self.state], self.capabilities or COMPLETES
        return OfferedModel(self.name, state, self.identity, can, kernel=kernel, tok_s=self._told_tok_s, warmth=warmth)

    def load(self, *, unasked: bool = False) -> None:
        """Begins to, unless it is at it or there. One that failed is tried again. `unasked`: only if that displaces nobody."""
        if not unasked:
            self.unasked = False
        if self.state in ("unloaded", "failed") and not self._closing:
            self._problem, self._refusal, self._progress, self._enough = "", None, 0.0, threading.Event()
            self.lacks_engine = False
            self._used_s = self._began_s = monotonic()
            self.unasked = unasked
            self._loading = asyncio.create_task(self._load(), name=f"loading {self.name}")
            self._changed()

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        async with (
            self._in_use(timeout_s, to="complete") as (engine, left_s),
            aclosing(engine.complete(request, timeout_s=left_s)) as stream,
        ):
            async for event in stream:
                if isinstance(event, ModelReply):
                    self._measure(event)
                yield event

    async def encode(self, request: EncodingRequest, *, timeout_s: float) -> Encodings:
        async with self._in_use(timeout_s, to=request.task) as (engine, left_s):
            assert isinstance(engine, TextEncoder), "what an engine can do stands in its capabilities"
            return await engine.encode(request, timeout_s=left_s)

    async def count_tokens(self, texts: Sequence[str], *, timeout_s: float) -> tuple[int, ...]:
        """By the model's own tokenizer. Raises `ModelUnavailable` where it is not loaded: nothing is loaded only to count."""
        engine: object = self.engine
        if not isinstance(engine, Counting):
            raise ModelUnavailable(f"model {self.name} is not loaded on this node by an engine that counts")
        return await engine.count_tokens(texts, timeout_s=timeout_s)

    @asynccontextmanager
    async def _in_use(self, timeout_s: float, *, to: Capability) -> AsyncIterator[tuple[InferenceEngine, float]]:
        """The loaded engine and what is left of the time. It is not unloaded meanwhile.

        Raises `InvalidRequest` for what the model cannot do, `ModelUnavailable`, `ModelFailed`.
        """
        self._must_be_able(to)
        began_s = monotonic()
        self.active += 1
        try:
            if self.state == "failed":
                raise ModelUnavailable(
                    f"model {self.name} cannot be loaded: {self.problem}", hint=f"astromesh-node models load {self.name} tries it again"
                )
            self.load()
            if self._loading is not None and not self._loading.done():
                await asyncio.wait([self._loading], timeout=min(LOADING_SHARE * timeout_s, LOADING_PATIENCE_S))
                if not self._loading.done():
                    raise self._still_loading()
            if self.engine is None or self._problem:
                raise self._refusal or ModelUnavailable(
                    f"model {self.name} is not loaded on this node: {self._problem or 'it was unloaded again'}"
                )
            self._must_be_able(to)  # now it is known what the model is
            self._used_s = monotonic()
            yield self.engine, max(0.0, timeout_s - (monotonic() - began_s))
        finally:
            self.active -= 1
            self._used_s = monotonic()

    def _must_be_able(self, to: Capability) -> None:
        if self.found is not None and to not in self.capabilities:
            can = " and ".join(self.capabilities) or "nothing"
            raise InvalidRequest(
                f"model {self.name} can {can} and not {to}", hint="GET /v1/models shows under capabilities who can", param="model"
            )

    async def unload(self, *, force: bool = False) -> None:
        """Ends its worker; the model stays on disk. Raises `ModelBusy` while somebody reads from it, unless by force."""
        if self.active and not force:
            raise ModelBusy(f"model {self.name} is answering {self.active} requests", hint="wait for them, or unload it with --force")
        if self._loading is not None and not self._loading.done():
            self._enough.set()
            self._loading.cancel()
            await asyncio.wait([self._loading])
        engine, self.engine = self.engine, None
        self._progress = 0.0
        if engine is not None:
            await engine.close()
        self._changed()

    async def close(self) -> None:
        self._closing = True
        await self.unload(force=True)

    def row(self) -> dict[str, Any]:
        found, engine = self.found, self.engine
        row: dict[str, Any] = {
            "name": self.name,
            "state": _OFFERED_AS[self.state],
            "identity": self.identity,
            "created": self.found.created if self.found is not None else 0,
            "capabilities": list(self.capabilities or COMPLETES),
        }
        if found is not None:
            row |= {"size_bytes": found.size_bytes, "needed_bytes": found.needed_bytes}
        if self.state == "loading":
            row |= {"progress": round(self._done(), 3), "eta_s": self.eta_s(), "doing": self._doing or "loading"}
        if self.state == "loaded" and engine is not None:
            row |= {"warm": bool(engine.warmth), "kernel": engine.kernel or None, "active": self.active}
        if self.tok_s is not None:
            row["tok_s"] = round(self.tok_s, 1)
        if self._refusal is not None and self.state == "unloaded":
            row["refused"] = self._refusal.message
        if problem := self.problem:
            row["error"] = problem
        return row

    def eta_s(self) -> int:
        size = self.found.size_bytes if self.found is not None else 0
        elapsed_s = monotonic() - self._began_s
        return eta_s(progress=self._done(), elapsed_s=elapsed_s, size_bytes=size, last_s=self._last_load_s)

    def _done(self) -> float:
        return self.engine.load_progress if self.engine is not None else self._progress

    def _still_loading(self) -> ModelUnavailable:
        return ModelUnavailable(
            f"model {self.name} is still loading on this node ({self._done():.0%})",
            hint="ask again then; astromesh-node models list shows how far it is",
            retry_after_s=self.eta_s(),
        )

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            before, self.engine = self.engine, None
            if before is not None:
                await before.close()
            self.found = await asyncio.to_thread(self._find, partial(self._note, self._enough))
            self._recall()
            try:
                await self._make_room(self)
            except AstromeshError as refusal:
                self._refusal = None if self.unasked else refusal
                report = log.info if self.unasked else log.warning
                report("model %s: %s. %s", self.name, refusal.message, refusal.hint)
                return
            self._doing, self._began_s = "", monotonic()
            self.engine = self._build(self.found)
            await self.engine.start()
            self._last_load_s = monotonic() - self._began_s
            log.info("model %s is loaded", self.name)
        except MissingExtra as missing:
            self.lacks_engine = True
            await self._fail(f"{missing.message}: {missing.hint}")
            log.warning("model %s: %s", self.name, self._problem)
        except AstromeshError as failure:
            await self._fail(failure.message)
            log.warning("model %s: %s. %s", self.name, failure.message, failure.hint)
        except Exception as failure:
            await self._fail(f"it cannot be loaded: {type(failure).__name__}")
            log.exception("model %s cannot be loaded", self.name)
        finally:
            self.reserved = False  # from here on its engine tells
            # The task is not done yet, and what is offered goes by whether it is.
            loop.call_soon(self._changed)

    async def _fail(self, why: str) -> None:
        self._problem = why
        engine, self.engine = self.engine, None
        if engine is not None:
            await engine.close()

    def _note(self, enough: threading.Event, done: int, total: int, what: str) -> None:
        if enough.is_set():
            # A thread cannot be cancelled, but it comes by here: a node that stops must not wait for a download.
            raise ModelUnavailable(f"model {self.name}: the node stopped while {what}")
        if what != self._doing:
            self._doing, self._began_s = what, monotonic()
        self._progress = done / total if total else 0.0

    def _measure(self, reply: ModelReply) -> None:
        rate = reply.timings.get("decode_tok_s", 0.0)
        if reply.usage.tokens_out >= MEASURED_TOKENS_MIN and rate > 0:
            self.tok_s = average_tok_s(self.tok_s, rate)
            told = told_tok_s(self._told_tok_s, self.tok_s)
            if told != self._told_tok_s:
                self._told_tok_s = told
                self._changed()
                if self.found is not None:
                    self._measured(self.found, self.tok_s)

    def _recall(self) -> None:
        """What was measured before this life counts until this one knows better."""
        if self.tok_s is None and self.found is not None:
            self.tok_s, self._told_tok_s = self.found.tok_s, told_tok_s(None, self.found.tok_s)


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

"""One model of this node as a provider, from before its file is found to the end of its worker, and to the next one.

It is found first (pulled, or its file read through to know its digest) and then loaded, both beside everything else: a node is up before
its models are. One that is not loaded is loaded when somebody asks for it. Who has to go for it is for `runtime.local_models` to say.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from astromesh.dialogue import EncodingRequest, Encodings, ModelEvent, ModelReply, ModelRequest
from astromesh.errors import AstromeshError, InvalidRequest, MissingExtra, ModelBusy, ModelUnavailable
from astromesh.fleet.offers import COMPLETES, Capability, ModelState, OfferedModel
from astromesh.inference.encoding import TextEncoder
from astromesh.inference.port import Counting, EngineState, InferenceEngine, ModelSpecification, Progress
from astromesh.inference.residence import Resident, average_tok_s, eta_s, told_tok_s

log = logging.getLogger(__name__)

# A small model is there in a second, and its caller never learns that it was not. One who would wait longer than this is better told when
# to come back: the caller's own patience may be at its end, too.
LOADING_PATIENCE_S = 30.0
# … and who has less time than that is told while he still listens: the answer has to travel, too.
LOADING_SHARE = 0.75
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

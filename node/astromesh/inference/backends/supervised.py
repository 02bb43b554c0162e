"""The node's side of a loaded model: its queue, its requests, and what happens when the worker process dies.

A worker gets no more requests at a time than it can carry out side by side; the others wait here. So when it dies, only those that it had
are lost (they may have been half done, so their error is indefinite), and the others never notice more than a pause. It is started again
with growing pauses. One that dies again and again before the model is loaded is given up: the file or the engine is at fault.

What is asked of a worker, and what it says to that, is for the engines that are made of this: `encoding`, `completing`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import psutil

from astromesh.errors import AstromeshError, ContextExceeded, InvalidRequest, MissingExtra, ModelFailed, ModelUnavailable, Overloaded
from astromesh.inference.answer import Answer
from astromesh.inference.backends.process import WorkerProcess
from astromesh.inference.frames import FrameError, pack
from astromesh.inference.manifest import StoredFile, changed
from astromesh.inference.port import EngineState, EngineStats, ModelSpecification

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Each with its reason; tests shorten them."""

    # Four streams of 200 tokens take 6 s together on a small machine, so the last of 32 waits about a minute. Who would wait longer is
    # better told so at once: another node may be free.
    waiting: int = 32
    # One `llama_decode` of a chunk takes 0.4 s with a small model here and some 20 s with a 7B model on a slow machine. A worker that has
    # work and says nothing for longer than this is stuck, and nothing but its end frees its callers.
    silence_s: float = 60.0
    # Weights come from disk at 100 MB/s in bad cases and a sign of life at each hundredth of them; allocating a large cache is silent.
    load_silence_s: float = 180.0
    # A restart after a crash takes half a second with a small model: worth waiting for. A large one takes minutes, and then the caller
    # is told to come back.
    loading_patience_s: float = 10.0
    restart_pause_s: float = 0.1
    restart_pause_max_s: float = 30.0
    starts_without_success: int = 5


def nobody() -> None:
    """Who listens where nobody does."""


@dataclass(slots=True, eq=False)
class Entry:
    """One request, from its place in the queue to its last event."""

    number: int
    frame: bytes
    arrived_s: float
    # Bounded by the request itself: one event for each token, and those by the context; one for each batch of texts.
    events: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    answer: Answer = field(default_factory=Answer)  # of a completion, as far as it was told
    sent_s: float | None = None  # when the worker got it
    abandoned: bool = False


class WorkerEngine:
    """A model in a worker process. Whoever inherits says which program that is, and understands what it says of its work."""

    command: ClassVar[Sequence[str]]
    needs: ClassVar[tuple[str, ...]]  # the modules that its worker imports
    absent: ClassVar[str]  # what is told where they are not there
    extra_hint: ClassVar[str]
    context_hint: ClassVar[str] = "write that as its context in spec.inference.models"

    def __init__(
        self,
        model: ModelSpecification,
        *,
        limits: EngineLimits | None = None,
        command: Sequence[str] = (),
        on_change: Callable[[], None] = nobody,
    ) -> None:
        """`on_change` is called whenever `state` has become another one."""
        self._on_change = on_change
        self._model = model
        self._limits = limits or EngineLimits()
        self._command = command or self.command
        self._state: EngineState = "unloaded"
        self._progress = 0.0
        self._problem = ""
        self._stats = EngineStats()
        self._numbers = 0
        self._waiting: deque[Entry] = deque()
        self._running: dict[int, Entry] = {}
        self._process: WorkerProcess | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._silent_s: float | None = None  # how long the present worker said nothing, where it was killed for that
        self._loading_since_s = 0.0
        self._deaths_in_a_row = 0
        self._supervisor: asyncio.Task[None] | None = None
        self._settled: asyncio.Future[AstromeshError | None] | None = None

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def identity(self) -> str:
        return self._model.identity

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def load_progress(self) -> float:
        return self._progress

    @property
    def problem(self) -> str:
        return self._problem

    @property
    def kernel(self) -> str:
        """None is claimed, unless an engine knows better."""
        return ""

    @property
    def warmth(self) -> bytes:
        """Nothing is told of what was read, unless an engine knows better."""
        return b""

    @property
    def stats(self) -> EngineStats:
        return replace(self._stats, queued=len(self._waiting), running=len(self._running))

    @property
    def worker_pid(self) -> int | None:
        """For whoever wants to see how a node takes the end of it."""
        return None if self._process is None else self._process.pid

    @classmethod
    def installed(cls) -> bool:
        """Whether its worker would find what it imports. Nothing is imported to know that."""
        return all(importlib.util.find_spec(module) is not None for module in cls.needs)

    # Life.

    async def start(self) -> None:
        if self._command is self.command and not self.installed():
            raise MissingExtra(self.absent, hint=self.extra_hint)
        if self._supervisor is None:
            self._problem, self._progress = "", 0.0
            self._become("loading")
            self._deaths_in_a_row = 0
            self._settled = asyncio.get_running_loop().create_future()
            self._supervisor = asyncio.create_task(self._supervise(), name=f"inference-{self.name}")
        assert self._settled is not None
        error = await asyncio.shield(self._settled)
        if error is not None:
            raise error

    async def close(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.wait([supervisor])
        self._progress = 0.0
        self._become("unloaded")
        gone = ModelUnavailable(f"model {self.name} was unloaded on this node")
        self._fail_running(ModelFailed(gone.message, code="model_provider_unavailable"))
        self._fail_waiting(gone)
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(gone)

    def _become(self, state: EngineState) -> None:
        if state != self._state:
            self._state = state
            if state == "loading":
                self._loading_since_s = asyncio.get_running_loop().time()
                # Whoever waits for a place waits for a worker now, and that with another patience.
                for entry in self._waiting:
                    entry.events.put_nowait(None)
            self._on_change()

    async def _supervise(self) -> None:
        try:
            await self._keep_running()
        except Exception as error:
            # A mistake of ours, or of a worker of another version. Nobody may be left waiting for it.
            self._give_up(f"its supervision broke: {error!r}")
            self._fail_running(ModelFailed(f"model {self.name} broke off: {self._problem}", code="model_provider_unavailable"))
            raise

    async def _keep_running(self) -> None:
        limits = self._limits
        starts_without_success = 0
        while True:
            refusal = await self._run_worker()
            starts_without_success = starts_without_success + 1 if self._state == "loading" else 0
            if refusal is not None or starts_without_success >= limits.starts_without_success:
                self._give_up(refusal or self._problem)
                return
            self._progress = 0.0
            self._become("loading")
            self._stats = replace(self._stats, restarts=self._stats.restarts + 1)
            doublings = min(self._deaths_in_a_row - 1, 16)  # far past the longest pause, and no overflow
            await asyncio.sleep(min(limits.restart_pause_max_s, limits.restart_pause_s * 2**doublings))

    def _give_up(self, why: str) -> None:
        self._problem = why
        self._become("failed")
        failure = ModelFailed(
            f"model {self.name} cannot be loaded: {why}",
            code="model_provider_unavailable",
            definite=True,
            hint=f"astromesh-node models pull {self.name} reads its file, and fetches it if it is damaged; then models load {self.name}",
        )
        self._fail_waiting(failure)
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(failure)

    async def _run_worker(self) -> str | None:
        """One worker from its start to its end. Why the model will never load, where the worker says so; None when it just ended."""
        refusal: str | None = None
        if self._model.size_bytes and (problem := await asyncio.to_thread(self._changed_file)):
            return problem  # other bytes under this identity would be another model
        try:
            process = await WorkerProcess.spawn(self._command)
        except OSError as error:
            return f"no worker process could be started: {error}"
        self._process = process
        ending = "was ended"
        try:
            process.send(pack(load := self._load_frame()))
            self._listen_for_silence()
            async for frame in process.frames():
                if frame["kind"] == "unusable":
                    refusal = f"{frame['message']} ({process.last_words()})" if process.last_words() else str(frame["message"])
                    break
                if frame["kind"] == "loaded":
                    self._compare(frame["context"], asked=load["context"])
                self._hear(frame)
        finally:
            self._process = None
            self._forget_worker()
            self._stop_listening_for_silence()
            ending = await process.end()
        silent_s, self._silent_s = self._silent_s, None
        if silent_s is not None:
            ending = f"said nothing for {silent_s:g} s and was killed"
        self._deaths_in_a_row += 1
        words = process.last_words()
        self._problem = f"its worker (pid {process.pid}) {ending}" + (f"; its last words: {words}" if words else "")
        self._fail_running(
            ModelFailed(
                f"model {self.name} broke off: {self._problem}",
                code="model_provider_unavailable",
                hint="the worker is being restarted; the same request may be sent again",
            )
        )
        return refusal

    def _changed_file(self) -> str:
        model = self._model
        return changed(StoredFile("model", model.path, model.identity, model.size_bytes, model.changed_ns))

    def _load_frame(self) -> dict[str, Any]:
        model = self._model
        return {
            "kind": "load",
            "path": str(model.path),
            "identity": model.identity,
            "context": model.context,
            "parallel": model.parallel,
            "gpu_layers": model.gpu_layers,
            "tensor_split": list(model.tensor_split),
            "prefix_cache_bytes": model.prefix_cache_bytes,
            "threads": model.threads or psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        }

    def _forget_worker(self) -> None:
        """It has ended, and what was known of it is true no more."""

    # What the worker says.

    def _hear(self, frame: Mapping[str, Any]) -> None:
        match frame["kind"]:
            case "progress":
                self._progress = float(frame["fraction"])
            case "loaded":
                self._hear_loaded(frame)
                self._progress, self._problem = 1.0, ""
                self._become("loaded")
                if self._settled is not None and not self._settled.done():
                    self._settled.set_result(None)
                self._send_waiting()
            case "refused":
                kind = ContextExceeded if frame.get("exceeds") else InvalidRequest
                self._hear_refused(frame["number"], kind(frame["message"], hint=frame["hint"], param=frame["param"]))
            case "failed":
                failure = ModelFailed(f"model {self.name} broke off: {frame['message']}", code="model_provider_unavailable")
                self._running.pop(frame["number"]).events.put_nowait(failure)
                self._send_waiting()
            case "cancelled":
                del self._running[frame["number"]]
                self._send_waiting()
            case _:
                self._hear_work(frame)
        self._listen_for_silence()

    def _compare(self, context: int, *, asked: int) -> None:
        if context < asked:
            log.warning(
                "model %s reads %d tokens of a text, not the %d that it is asked for: %s", self.name, context, asked, self.context_hint
            )

    def _hear_loaded(self, frame: Mapping[str, Any]) -> None:
        """What it says of the model that it has loaded."""

    def _hear_refused(self, number: int, refused: InvalidRequest) -> None:
        self._running.pop(number).events.put_nowait(refused)
        self._send_waiting()

    def _hear_work(self, frame: Mapping[str, Any]) -> None:
        raise AssertionError(f"the worker of {self.name} sent a frame of kind {frame['kind']!r}")

    def _end(self, number: int, *, tokens_in: int, tokens_cached: int = 0, tokens_out: int = 0) -> Entry:
        """That request is done: it is counted, and the next one gets its place."""
        entry = self._running.pop(number)
        self._deaths_in_a_row = 0
        self._stats = replace(
            self._stats,
            finished=self._stats.finished + 1,
            tokens_in=self._stats.tokens_in + tokens_in,
            tokens_cached=self._stats.tokens_cached + tokens_cached,
            tokens_out=self._stats.tokens_out + tokens_out,
        )
        return entry

    def _listen_for_silence(self) -> None:
        """A sign of life came, or work was given: the worker has this long for the next one. Idle, it may be silent for ever."""
        self._stop_listening_for_silence()
        if self._state == "loading" or self._running:
            allowed = self._limits.load_silence_s if self._state == "loading" else self._limits.silence_s
            self._silence = asyncio.get_running_loop().call_later(allowed, self._end_silence, allowed)

    def _stop_listening_for_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _end_silence(self, silent_s: float) -> None:
        self._silent_s = silent_s
        if self._process is not None:
            self._process.kill()

    def _fail_running(self, error: AstromeshError) -> None:
        running, self._running = self._running, {}
        for request in running.values():
            request.events.put_nowait(error)

    def _fail_waiting(self, error: AstromeshError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            request.events.put_nowait(error)

    # What callers ask.

    async def _ask(self, frame: Callable[[int], Mapping[str, Any]], *, timeout_s: float, param: str) -> AsyncGenerator[Any, None]:
        """What the worker says to a frame, without end: whoever reads knows which is the last. Closing it cancels the work.

        `frame` makes it, given the number of the request; it may raise `InvalidRequest`. `param` is where its texts came from.
        """
        loop = asyncio.get_running_loop()
        entry = self._enqueue(frame, now=loop.time(), param=param)
        deadline = entry.arrived_s + timeout_s
        try:
            while True:
                until = deadline
                if self._state == "loading" and entry.sent_s is None:
                    until = min(deadline, max(entry.arrived_s, self._loading_since_s) + self._limits.loading_patience_s)
                try:
                    async with asyncio.timeout_at(until):
                        event = await entry.events.get()
                except TimeoutError:
                    if loop.time() < deadline and self._state != "loading":
                        continue  # it was loaded in the meantime
                    raise self._too_late(entry, timeout_s, expired=loop.time() >= deadline) from None
                if event is None:
                    continue  # its worker died, and another one is on its way
                if isinstance(event, AstromeshError):
                    raise event
                yield event
        finally:
            self._abandon(entry)

    def _enqueue(self, frame: Callable[[int], Mapping[str, Any]], *, now: float, param: str) -> Entry:
        if self._state == "unloaded" or self._state == "failed":
            why = f": {self._problem}" if self._problem else ""
            raise ModelUnavailable(
                f"model {self.name} is {self._state} on this node{why}", hint="astromesh-node models list shows its state"
            )
        packed = self._packed(frame, number=self._numbers, param=param)
        if len(self._waiting) >= self._limits.waiting:
            raise Overloaded(
                f"{len(self._waiting)} requests are already waiting for model {self.name} on this node",
                hint="try again, or load the model on one more node",
            )
        entry = Entry(self._numbers, packed, now)
        self._numbers += 1
        self._waiting.append(entry)
        self._send_waiting()
        return entry

    def _packed(self, frame: Callable[[int], Mapping[str, Any]], *, number: int, param: str) -> bytes:
        """Packed before it is queued: what cannot be packed is this caller's mistake, and must not reach the supervision."""
        try:
            return pack(frame(number))
        except UnicodeEncodeError:
            raise InvalidRequest("a text holds half of a surrogate pair, which is no character", param=param) from None
        except (FrameError, OverflowError, TypeError, ValueError) as error:
            raise InvalidRequest(f"the request cannot be handed to the model: {error}", param=param) from error

    def _send_waiting(self) -> None:
        if self._state != "loaded" or self._process is None:
            return
        while self._waiting and len(self._running) < self._model.parallel:
            entry = self._waiting.popleft()
            entry.sent_s = asyncio.get_running_loop().time()
            self._running[entry.number] = entry
            self._process.send(entry.frame)
            if len(self._running) == 1:
                self._listen_for_silence()

    def _too_late(self, entry: Entry, timeout_s: float, *, expired: bool) -> AstromeshError:
        if entry.sent_s is not None:
            return ModelFailed(f"model {self.name} did not finish within {timeout_s:g} s", code="model_timeout", hint="raise the timeout")
        if self._state == "loading" and not expired:
            return ModelUnavailable(f"model {self.name} is still loading on this node ({self._progress:.0%})")
        return ModelFailed(
            f"model {self.name} had no room for this request within {timeout_s:g} s: it never began",
            code="model_timeout",
            definite=True,
            hint="load the model on one more node, or raise the timeout",
        )

    def _abandon(self, entry: Entry) -> None:
        """The caller reads no more. Of a request that has ended there is nothing left to do."""
        if entry in self._waiting:
            self._waiting.remove(entry)
        elif entry.number in self._running and not entry.abandoned:
            entry.abandoned = True
            if self._process is not None:
                self._process.send(pack({"kind": "cancel", "number": entry.number}))

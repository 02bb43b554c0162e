"""The mesh's own thread: it holds `Mesh`, feeds it what the sockets and the clock say, and publishes what it sees.

The node's loop reads `view`, one attribute that is swapped whole, and leaves its wishes in a box that the thread empties once per wake.
Neither side ever waits for the other, but for `start`, `join`, `leave` and `stop`, which await a future.
"""

from __future__ import annotations

import asyncio
import errno
import math
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from random import SystemRandom
from typing import Final, NamedTuple

from maia.catalogue.catalogue import check_offer, check_room
from maia.catalogue.loads import check_load
from maia.catalogue.pacing import Urgency
from maia.config import Address, MeshConfig
from maia.core import Mesh
from maia.drivers.clock import Clock
from maia.drivers.datagrams import DatagramSocket
from maia.drivers.discovery import is_literal, resolve
from maia.drivers.streams import StreamServer, Turns, dial
from maia.errors import DatagramRejected, JoinFailed, MaiaError, MisuseError
from maia.exchanges import Exchange
from maia.keyring import Keyring
from maia.serf.keys import QUESTIONS_MAX
from maia.view import Counters, KeyOperation, KeyQueryEnded, MeshEvent, MeshView, SeedAnswered
from maia.wire.frames import StreamMessage
from maia.wire.messages import PushPull

PUBLISH_PAUSE_S: Final = 0.01  # at most 100 views a second: a reader cannot use more, and each wakes the node's loop
WAKE_PAUSE_S: Final = 0.001  # between two wakes by the clock: no deadline is worth a busy loop
EVENTS_MAX: Final = 8192  # waiting for a subscriber whose loop stands still; the oldest go first, the view still holds the truth
HEARD_MAX: Final = 4096  # as many members as a mesh has
BIND_ATTEMPTS: Final = 32  # for port 0: the UDP port that the kernel gave may be taken for TCP
RESOLVE_PAUSE_S: Final = 5.0  # as long as between two dials at one address; a machine that is not up yet takes longer


class Joining(NamedTuple):
    """A join that waits for one of its seeds to answer. What a name among them stands for is added once it is known."""

    seeds: dict[Address, None]
    joined: Future[None]


class Wishes:
    """What the node's loop wants of the mesh; taken whole by the mesh's thread. Bounded by what is named in it, so never full."""

    def __init__(self) -> None:
        self.offers: dict[str, tuple[bytes | None, Urgency]] = {}  # None withdraws
        self.heard: dict[str, None] = {}
        self.load: bytes | None = None  # None: as before
        self.joins: list[Joining] = []
        self.leaves: list[Future[None]] = []
        self.questions: list[tuple[KeyOperation, bytes | None, Future[KeyQueryEnded]]] = []


class Subscription:
    """One subscriber's events on their way to its loop; one wake-up for many."""

    def __init__(self, callback: Callable[[MeshEvent], None], loop: asyncio.AbstractEventLoop) -> None:
        self._callback = callback
        self._loop = loop
        self._waiting: deque[MeshEvent] = deque(maxlen=EVENTS_MAX)
        self.cancelled = False

    def post(self, events: list[MeshEvent]) -> int:
        """Called on the mesh's thread; returns how many events were lost to the bound."""
        lost = max(0, len(self._waiting) + len(events) - EVENTS_MAX)
        self._waiting.extend(events)
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            self.cancelled = True  # its loop is closed: nobody is there any more
        return lost

    def _deliver(self) -> None:
        while self._waiting and not self.cancelled:
            self._callback(self._waiting.popleft())


class MeshDriver:
    """A node's mesh, as the rest of the node uses it. All methods belong to the node's loop."""

    def __init__(self, config: MeshConfig) -> None:
        self.config = config  # after `start` with the port that was bound
        self.view = MeshView(config.name, {}, 0)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._core: _Core | None = None
        self._lock = threading.Lock()
        self._wishes = Wishes()
        self._wake_posted = False
        self._slots: dict[str, int] = {}  # the bytes in each, so that a refusal does not have to come from another thread
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Bind, start the thread and publish a first view. Raises `OSError` naming the address when the port is in use.

        Raises `MisuseError` for an identity that cannot travel.
        """
        if self._thread is not None:
            raise MisuseError(f"the mesh of {self.config.name} was already started")
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="maia", daemon=True)
        self._thread.start()
        try:
            await asyncio.wrap_future(started)
        except (OSError, MaiaError):
            self._thread.join()
            self._thread = None
            raise

    @property
    def address(self) -> Address:
        return self.config.gossip

    def offer(self, key: str, value: bytes, *, urgency: Urgency = "at once") -> None:
        """Put `value` into a slot of what this node offers. Raises `MisuseError` for what can never travel; returns at once.

        Where only "figures" changed, others are told once a second.
        """
        check_offer(key, value)
        check_room(key, value, self._slots)
        self._slots[key] = len(value)
        with self._lock:
            self._wishes.offers[key] = (value, urgency)
        self._wake()

    def withdraw(self, key: str) -> None:
        """Empty a slot; returns at once."""
        if key not in self._slots:
            return
        self._slots[key] = 0
        with self._lock:
            self._wishes.offers[key] = (None, "at once")
        self._wake()

    def report_load(self, value: bytes) -> None:
        """Tell others with every ack how busy this node is. Raises `MisuseError` for what is too long to travel; returns at once."""
        check_load(value)
        with self._lock:
            self._wishes.load = value
        # No wake: it waits for an ack anyway.

    def heard(self, name: str) -> None:
        """A member answered over a link: it lives, and need not be pinged for an interval."""
        with self._lock:
            if len(self._wishes.heard) < HEARD_MAX:
                self._wishes.heard[name] = None
        # No wake: it only spares a ping, and the next wake is soon enough for that.

    async def join(self, addresses: Iterable[Address], *, timeout_s: float) -> None:
        """Ask seeds, IP or DNS, until one answers. Raises `JoinFailed` after `timeout_s`; the seeds go on being asked all the same."""
        seeds = list(addresses)
        joined: Future[None] = Future()
        with self._lock:
            self._wishes.joins.append(Joining(dict.fromkeys(seeds), joined))
        self._wake()
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wrap_future(joined)
        except TimeoutError as error:
            names = ", ".join(map(str, seeds))
            raise JoinFailed(
                f"no answer from {names} in {timeout_s:g} s; this node goes on as it is and keeps asking: "
                "check that a node gossips there, over UDP and TCP, in the same cluster"
            ) from error

    @property
    def keyring(self) -> Keyring | None:
        """This node's keys as they are now; None where it gossips in the clear."""
        return self._core.mesh.keyring if self._core is not None else self.config.keyring

    async def ask_keys(self, operation: KeyOperation, key: bytes | None, *, timeout_s: float) -> KeyQueryEnded:
        """Ask all living members about their keys, and wait for what they say: mostly a moment, seconds where somebody is silent.

        Raises `MisuseError` where a key is missing or superfluous or too many questions are open, `TimeoutError` after `timeout_s`.
        """
        answered: Future[KeyQueryEnded] = Future()
        with self._lock:
            if len(self._wishes.questions) >= QUESTIONS_MAX:
                raise MisuseError(f"{QUESTIONS_MAX} queries about keys wait for the mesh of {self.config.name} to wake: ask again later")
            self._wishes.questions.append((operation, key, answered))
        self._wake()
        async with asyncio.timeout(timeout_s):
            return await asyncio.wrap_future(answered)

    async def leave(self, *, timeout_s: float) -> None:
        """Say goodbye and return once it is told, or after `timeout_s`. Call `stop` next."""
        told: Future[None] = Future()
        with self._lock:
            self._wishes.leaves.append(told)
        self._wake()
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wrap_future(told)
        except TimeoutError:
            return  # those who did not hear it will find out by themselves

    async def stop(self) -> None:
        """End the thread, without a goodbye unless `leave` was called. Calling it again does nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._core is not None and self._loop is not None and thread.is_alive():
            self._loop.call_soon_threadsafe(self._core.stopping.set)
        await asyncio.to_thread(thread.join)

    def subscribe(self, callback: Callable[[MeshEvent], None]) -> Callable[[], None]:
        """Have `callback` called on the running loop for every event, after the view shows it. Returns how to end that."""
        subscription = Subscription(callback, asyncio.get_running_loop())
        self._subscriptions = [*self._subscriptions, subscription]

        def unsubscribe() -> None:
            subscription.cancelled = True
            self._subscriptions = [other for other in self._subscriptions if other is not subscription]

        return unsubscribe

    def counters(self) -> Counters:
        """A copy of what was counted so far."""
        return self._core.mesh.counters.snapshot() if self._core is not None else Counters()

    def _wake(self) -> None:
        core, loop = self._core, self._loop
        if core is None or loop is None or self._thread is None:
            return  # the wishes wait for the start
        with self._lock:
            if self._wake_posted:
                return
            self._wake_posted = True
        try:
            loop.call_soon_threadsafe(core.wake)
        except RuntimeError:
            self._thread = None  # the mesh's loop has ended, and with it whatever was wished for

    # --- on the mesh's thread ---

    def _run(self, started: Future[None]) -> None:
        asyncio.run(self._live(started))

    async def _live(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        core = _Core(self)
        try:
            await core.open()
        except (OSError, MaiaError) as error:
            started.set_exception(error)
            return
        self._core = core
        self.config = core.mesh.config
        core.wake()
        started.set_result(None)
        try:
            await core.stopping.wait()
        finally:
            await core.close()

    def take_wishes(self) -> Wishes:
        with self._lock:
            wishes, self._wishes = self._wishes, Wishes()
            self._wake_posted = False
        return wishes

    def publish(self, view: MeshView, events: list[MeshEvent]) -> int:
        """Swap the view, then post events; returns how many events were lost."""
        self.view = view
        if not events:
            return 0
        return sum(subscription.post(events) for subscription in self._subscriptions)


class _Core:
    """What lives on the mesh's thread: the sockets, the timer and the `Mesh`."""

    def __init__(self, driver: MeshDriver) -> None:
        self._driver = driver
        self._clock = Clock()
        self.stopping = asyncio.Event()
        self.mesh: Mesh
        self._socket: DatagramSocket
        self._server: StreamServer
        self._turns = Turns()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_s = math.inf  # when the timer is due
        self._tasks: set[asyncio.Task[None]] = set()
        self._joins: list[Joining] = []
        self._looked_up: dict[Address, None] = {}  # seeds whose names nobody knows yet
        self._leaves: list[Future[None]] = []
        self._questions: dict[int, Future[KeyQueryEnded]] = {}
        self._events: list[MeshEvent] = []
        self._published_s = 0.0

    async def open(self) -> None:
        config = self._driver.config
        for attempt in range(BIND_ATTEMPTS):
            try:
                await self._bind(config)
            except OSError as error:
                if error.errno == errno.EADDRINUSE and config.gossip.port == 0 and attempt + 1 < BIND_ATTEMPTS:
                    continue
                raise OSError(error.errno, f"cannot gossip on {config.gossip}: {error.strerror or error}") from error
            return

    async def _bind(self, config: MeshConfig) -> None:
        datagram_socket = DatagramSocket(config.gossip)
        try:
            mesh = Mesh(replace(config, gossip=datagram_socket.address), random=SystemRandom(), now=self._clock.now())
            server = StreamServer(
                self._answer,
                decoder=mesh.decoder,
                is_member=mesh.has_member_on,
                counters=mesh.counters,
                turns=self._turns,
                streams_max=config.limits.streams_max,
            )
            await server.open(datagram_socket.address)
        except (OSError, MaiaError):
            datagram_socket.close()
            raise
        self._socket, self._server, self.mesh = datagram_socket, server, mesh
        datagram_socket.listen(self._receive, self.wake)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()
        await self._server.close()
        for future in (*(joining.joined for joining in self._joins), *self._leaves):
            future.cancel()
        for question in self._questions.values():
            question.cancel()

    def wake(self) -> None:
        """Do what was wished for and what is due, and send, publish and sleep again."""
        now = self._clock.now()
        mesh = self.mesh
        if now >= self._wake_s:
            mesh.counters.lagged(now - self._wake_s)
        try:
            self._grant(self._driver.take_wishes(), now)
            mesh.stalled(self._clock.jumped_s(), now=now)
            if mesh.deadline() <= now:
                mesh.tick(now=now)
            self._flush(now)
        finally:
            # Whatever went wrong above is logged by the loop; it must not be the last thing that this mesh did.
            self._sleep(now)

    def _receive(self, payload: bytes, sender: Address) -> None:
        self.mesh.receive(payload, sender=sender, now=self._clock.now())

    def _answer(self, request: StreamMessage) -> bytes:
        reply = self.mesh.answer(request, now=self._clock.now())
        asyncio.get_running_loop().call_soon(self.wake)
        return reply

    def _grant(self, wishes: Wishes, now: float) -> None:
        for name in wishes.heard:
            self.mesh.heard(name, now=now)
        if wishes.load is not None:
            self.mesh.report_load(wishes.load)
        for key, (value, urgency) in wishes.offers.items():
            if value is None:
                self.mesh.withdraw(key, now=now)
            else:
                self.mesh.offer(key, value, now=now, urgency=urgency)
        for joining in wishes.joins:
            self._join(joining, now)
        for operation, question_key, answered in wishes.questions:
            try:
                self._questions[self.mesh.ask_keys(operation, question_key, now=now)] = answered
            except MisuseError as mistake:
                if not answered.done():
                    answered.set_exception(mistake)
        if wishes.leaves:
            self._leaves += wishes.leaves
            self.mesh.leave(now=now)

    def _join(self, joining: Joining, now: float) -> None:
        self._joins = [other for other in self._joins if not other.joined.done()]
        self._joins.append(joining)
        names = [seed for seed in joining.seeds if not is_literal(seed.host)]
        asked = self.mesh.join([seed for seed in joining.seeds if is_literal(seed.host)], now=now)
        if asked == 0 and not names:
            self._resolve_joins(joining.seeds)  # nobody to wait for but ourselves
        for seed in names:
            if seed not in self._looked_up and len(self._looked_up) < self.mesh.config.limits.seeds_max:
                self._looked_up[seed] = None
                self._spawn(self._join_by_name(seed), f"maia-seed-{seed}")

    async def _join_by_name(self, seed: Address) -> None:
        found = await resolve(seed)
        while not found:
            await asyncio.sleep(RESOLVE_PAUSE_S)
            found = await resolve(seed)
        del self._looked_up[seed]
        for joining in self._joins:
            if seed in joining.seeds:
                joining.seeds.update(dict.fromkeys(found))
        if self.mesh.join(found, now=self._clock.now()) == 0:
            self._resolve_joins((seed,))
        self.wake()

    def _resolve_joins(self, answered: Iterable[Address]) -> None:
        """Those that waited for one of these seeds."""
        for seed in answered:
            for joining in self._joins:
                if seed in joining.seeds and not joining.joined.done():
                    joining.joined.set_result(None)
        self._joins = [joining for joining in self._joins if not joining.joined.done()]

    def _flush(self, now: float) -> None:
        mesh = self.mesh
        for datagram in mesh.datagrams():
            self._socket.send(datagram.payload, datagram.target)
        for exchange in mesh.exchanges():
            self._spawn(self._exchange(exchange), f"maia-exchange-{exchange.target}")
        events = mesh.events()
        self._events += events
        answered = [event.address for event in events if isinstance(event, SeedAnswered)]
        # Whoever waited for a join finds the members in the view.
        if answered or now >= self._published_s + PUBLISH_PAUSE_S:
            self._publish(now)
        if answered:
            self._resolve_joins(answered)
        for event in events:
            if isinstance(event, KeyQueryEnded):
                question = self._questions.pop(event.number, None)
                if question is not None and not question.done():
                    question.set_result(event)
        if self._leaves and mesh.farewell_told:
            for future in self._leaves:
                if not future.done():
                    future.set_result(None)
            self._leaves.clear()

    def _sleep(self, now: float) -> None:
        wake_s = max(self.mesh.deadline(), now + WAKE_PAUSE_S)
        if self._events:
            wake_s = min(wake_s, max(now, self._published_s + PUBLISH_PAUSE_S))
        if self._timer is not None:
            self._timer.cancel()
        self._wake_s = wake_s
        self._timer = asyncio.get_running_loop().call_at(wake_s, self.wake)

    def _publish(self, now: float) -> None:
        view = self.mesh.view(now=now)
        if view is self._driver.view and not self._events:
            return
        self._published_s = now
        events, self._events = self._events, []
        self.mesh.counters.events_dropped += self._driver.publish(view, events)

    async def _exchange(self, exchange: Exchange) -> None:
        try:
            reply = await dial(
                exchange.target,
                exchange.request,
                timeout_s=exchange.timeout_s,
                decoder=self.mesh.decoder(),
                counters=self.mesh.counters,
                turns=self._turns,
            )
            async with self._turns.turn() if isinstance(reply, PushPull) else nullcontext():
                self.mesh.reply(exchange.number, reply, now=self._clock.now())
        except DatagramRejected as error:
            self.mesh.counters.reject(error.reason, exchange.target)
            self.mesh.exchange_failed(exchange.number)
        except (OSError, TimeoutError):
            self.mesh.exchange_failed(exchange.number)
        self.wake()

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

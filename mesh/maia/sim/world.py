"""Virtual time, one heap of events, and nodes that each hold the shipped `Mesh`.

Every datagram and stream crosses as encoded bytes. A node that is down loses its memory but what it persisted; one that is paused loses
nothing and hears everything at once when it goes on, as after SIGSTOP.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

from maia.config import LAN_FAST, Address, MeshConfig, Profile
from maia.core import Mesh
from maia.errors import DatagramRejected
from maia.exchanges import Exchange
from maia.identity import PRIVATE_KEY_BYTES, KeyPair
from maia.keyring import Keyring
from maia.sim.weather import FAIR, Sky, Weather
from maia.view import GenerationRaised, IncarnationRaised, MeshEvent, MeshView

REMEMBERED_EVENTS: Final = 50  # of each node, for the report of a broken invariant
INBOX_MAX: Final = 512  # datagrams that a paused node's socket keeps
STREAM_TIMEOUT_S: Final = 10.0
TICK, DATAGRAM, REQUEST, REPLY, FAILURE, ACT = range(6)


@dataclass(frozen=True, slots=True)
class NodeStarted:
    keep_state: bool


@dataclass(frozen=True, slots=True)
class NodeCrashed:
    pass


@dataclass(frozen=True, slots=True)
class NodePaused:
    pass


@dataclass(frozen=True, slots=True)
class NodeResumed:
    pass


@dataclass(frozen=True, slots=True)
class NodeCutOff:
    """From some of the others, in one direction or both."""


@dataclass(frozen=True, slots=True)
class NodeReconnected:
    pass


@dataclass(frozen=True, slots=True)
class NodeLeaving:
    pass


NodeEvent = NodeStarted | NodeCrashed | NodePaused | NodeResumed | NodeCutOff | NodeReconnected | NodeLeaving
Witness = Callable[["World", "SimulatedNode", MeshEvent | NodeEvent], None]


class SimulatedNode:
    """One machine: its mesh while it is up, and what it persists."""

    def __init__(self, index: int, config: MeshConfig) -> None:
        self.index = index
        self.config = config
        self.name = config.name
        self.address = config.gossip
        self.seeds: tuple[Address, ...] = ()
        self.offers: dict[str, bytes] = {}  # what its owner wants offered, also after a restart
        self.mesh: Mesh | None = None
        self.life = 0  # grows with each start, so that nothing of an earlier life is delivered to a later one
        self.paused = False
        self.inbox: deque[tuple[bytes, Address]] = deque(maxlen=INBOX_MAX)
        self.tick_s = float("inf")
        self.incarnation = config.incarnation  # persisted
        self.generation = config.generation  # persisted
        self.history: deque[tuple[float, MeshEvent | NodeEvent]] = deque(maxlen=REMEMBERED_EVENTS)

    @property
    def up(self) -> bool:
        return self.mesh is not None


class World:
    """Nodes under a sky. `witness` is shown every event of every node at the moment at which it happens."""

    def __init__(
        self,
        seed: int,
        *,
        nodes: int,
        profile: Profile = LAN_FAST,
        weather: Weather = FAIR,
        keyring: Keyring | None = None,
        witness: Witness | None = None,
    ) -> None:
        self.seed = seed
        self.now = 0.0
        self.random = Random(f"world {seed}")
        self.sky = Sky(weather, Random(f"sky {seed}"))
        self.profile = profile
        self.keyring = keyring
        self.packets = 0
        self.fingerprint = 0  # over every packet and event, in order: equal for equal runs
        self.witness = witness
        self.nodes = [SimulatedNode(index, self._config(index)) for index in range(nodes)]
        self._index_of = {node.address: node.index for node in self.nodes}
        self._by_name = {node.name: node for node in self.nodes}
        self._heap: list[tuple[float, int, int, int, int, Any, Any]] = []
        self._numbered = 0

    def _config(self, index: int) -> MeshConfig:
        return MeshConfig(
            name=f"node{index:03}-{index:06x}",
            title=f"node{index:03}",
            signer=KeyPair(index.to_bytes(PRIVATE_KEY_BYTES, "big")),
            generation=1,
            gossip=Address(f"10.0.{index // 250}.{index % 250 + 1}", 7946),
            api=f"10.0.{index // 250}.{index % 250 + 1}:8000",
            profile=self.profile,
            keyring=self.keyring,
        )

    # --- what a scenario does ---

    def boot_all(self, *, within_s: float = 0.0) -> None:
        """Start every node; all but the first know the first as their seed."""
        for node in self.nodes:
            node.seeds = (self.nodes[0].address,) if node.index else ()
            node.offers.setdefault("models/0", f"model of {node.name}".encode())
            if within_s:
                self.at(self.now + within_s * self.random.random(), partial(self.boot, node))
            else:
                self.boot(node)

    def boot(self, node: SimulatedNode, *, keep_state: bool = True) -> None:
        """Start a node that is down. Without its state it only knows its identity, its seeds and the time."""
        if node.up:
            return
        node.life += 1
        node.generation = node.generation + 1 if keep_state else max(node.generation + 1, round(self.now * 1000) + 2)
        node.incarnation = node.incarnation + 1 if keep_state else 1
        fields = {field: getattr(node.config, field) for field in ("name", "title", "signer", "gossip", "api", "profile", "keyring")}
        config = MeshConfig(**fields, generation=node.generation, incarnation=node.incarnation)
        node.mesh = Mesh(config, random=Random(f"node {self.seed} {node.index} {node.life}"), now=self.now)
        node.paused = False
        node.tick_s = float("inf")
        self._note(node, NodeStarted(keep_state))
        for key, value in node.offers.items():
            node.mesh.offer(key, value, now=self.now)
        node.mesh.join(node.seeds, now=self.now)
        self._pump(node, node.mesh)

    def crash(self, node: SimulatedNode) -> None:
        node.mesh = None
        node.paused = False
        node.inbox.clear()
        self._note(node, NodeCrashed())

    def pause(self, node: SimulatedNode) -> None:
        if node.up:
            node.paused = True
            self._note(node, NodePaused())

    def resume(self, node: SimulatedNode) -> None:
        if not node.paused or node.mesh is None:
            return
        node.paused = False
        node.tick_s = float("inf")  # what was due meanwhile was passed over
        self._note(node, NodeResumed())
        while node.inbox:
            payload, sender = node.inbox.popleft()
            node.mesh.receive(payload, sender=sender, now=self.now)
        node.mesh.tick(now=self.now)
        self._pump(node, node.mesh)

    def partition(self, groups: Sequence[Sequence[int]]) -> None:
        """Nothing passes between nodes of different groups until `heal`."""
        self.sky.partition(groups)
        for index in sorted(index for group in groups for index in group):
            self._note(self.nodes[index], NodeCutOff())

    def cut(self, sender: int, receiver: int) -> None:
        """Nothing passes from `sender` to `receiver`; the other way stays open."""
        self.sky.cut(sender, receiver)
        for index in (sender, receiver):
            self._note(self.nodes[index], NodeCutOff())

    def heal(self) -> None:
        """Everything passes again."""
        for index in self.sky.heal():
            self._note(self.nodes[index], NodeReconnected())

    def leave(self, node: SimulatedNode) -> None:
        if node.mesh is not None:
            self._note(node, NodeLeaving())
            node.mesh.leave(now=self.now)
            self._pump(node, node.mesh)

    def offer(self, node: SimulatedNode, key: str, value: bytes) -> None:
        node.offers[key] = value
        if node.mesh is not None:
            node.mesh.offer(key, value, now=self.now)
            self._pump(node, node.mesh)

    def slip(self, datagram: bytes, *, sender: SimulatedNode, receiver: SimulatedNode) -> None:
        """Have a datagram arrive now as if from `sender`, whoever wrote it."""
        self._push(self.now, DATAGRAM, receiver.index, 0, datagram, sender.address)

    def at(self, when_s: float, act: Callable[[], None]) -> None:
        self._push(when_s, ACT, -1, 0, act, None)

    # --- what an oracle reads ---

    def node_named(self, name: str) -> SimulatedNode:
        return self._by_name[name]

    def running(self) -> list[SimulatedNode]:
        return [node for node in self.nodes if node.mesh is not None and not node.paused]

    def view(self, node: SimulatedNode) -> MeshView:
        assert node.mesh is not None, f"{node.name} is down"
        return node.mesh.view(now=self.now)

    # --- time ---

    def run(self, until_s: float) -> None:
        """Let time pass until `until_s`."""
        heap, nodes = self._heap, self.nodes
        while heap and heap[0][0] <= until_s:
            self.now, _, kind, index, life, payload, extra = heappop(heap)
            if kind == ACT:
                payload()
                continue
            node = nodes[index]
            mesh = node.mesh
            if kind == DATAGRAM:
                if mesh is None:
                    continue
                if node.paused:
                    node.inbox.append((payload, extra))
                    continue
                self.packets += 1
                self.fingerprint = zlib.crc32(payload, self.fingerprint)
                mesh.receive(payload, sender=extra, now=self.now)
            elif kind == TICK:
                if mesh is None or node.paused or self.now != node.tick_s or life != node.life:
                    continue
                node.tick_s = float("inf")
                mesh.tick(now=self.now)
            elif not self._stream(node, kind, life, payload, extra):
                continue
            if mesh is not None:
                self._pump(node, mesh)
        self.now = until_s

    def _push(self, when_s: float, kind: int, index: int, life: int, payload: Any, extra: Any) -> None:
        self._numbered += 1
        heappush(self._heap, (when_s, self._numbered, kind, index, life, payload, extra))

    def _pump(self, node: SimulatedNode, mesh: Mesh) -> None:
        now = self.now
        for payload, target in mesh.datagrams():
            index = self._index_of.get(target)
            if index is not None:
                for delay_s in self.sky.delays_s(node.index, index):
                    self._numbered += 1
                    heappush(self._heap, (now + delay_s, self._numbered, DATAGRAM, index, 0, payload, node.address))
        for exchange in mesh.exchanges():
            self._dial(node, exchange)
        for event in mesh.events():
            self._happened(node, event)
        due_s = mesh.deadline()
        if due_s < now:
            due_s = now
        if due_s < node.tick_s:
            node.tick_s = due_s
            self._numbered += 1
            heappush(self._heap, (due_s, self._numbered, TICK, node.index, node.life, None, None))

    def _happened(self, node: SimulatedNode, event: MeshEvent) -> None:
        if isinstance(event, IncarnationRaised):
            node.incarnation = event.incarnation
        elif isinstance(event, GenerationRaised):
            node.generation = event.generation
        self._note(node, event)

    def _note(self, node: SimulatedNode, event: MeshEvent | NodeEvent) -> None:
        node.history.append((self.now, event))
        self.fingerprint = zlib.crc32(f"{self.now!r} {node.index} {event}".encode(), self.fingerprint)
        if self.witness is not None:
            self.witness(self, node, event)

    # --- streams ---

    def _dial(self, node: SimulatedNode, exchange: Exchange) -> None:
        index = self._index_of.get(exchange.target)
        if index is None or not self._connects(node.index, index):
            self._push(self.now + STREAM_TIMEOUT_S, FAILURE, node.index, node.life, exchange.number, None)
            return
        # A handshake, then the request: one and a half round trips.
        when_s = self.now + 3 * self.sky.latency_s()
        self._push(when_s, REQUEST, index, 0, exchange.request, (node.index, node.life, exchange.number))

    def _connects(self, one: int, other: int) -> bool:
        return self.sky.passes(one, other) and self.sky.passes(other, one)

    def _stream(self, node: SimulatedNode, kind: int, life: int, payload: Any, extra: Any) -> bool:
        """Carry one step of an exchange; False where it changed nothing here."""
        mesh = node.mesh
        if kind == REQUEST:
            dialler, dialler_life, number = extra
            if mesh is None:
                self._push(self.now + self.sky.latency_s(), FAILURE, dialler, dialler_life, number, None)
                return False
            if node.paused or not self._connects(dialler, node.index):
                self._push(self.now + STREAM_TIMEOUT_S, FAILURE, dialler, dialler_life, number, None)
                return False
            try:
                request = mesh.decoder().feed(payload)
                assert request is not None, "a whole request was sent"
                reply = mesh.answer(request, now=self.now)
            except DatagramRejected as error:
                mesh.counters.reject(error.reason)
                self._push(self.now + self.sky.latency_s(), FAILURE, dialler, dialler_life, number, None)
                return False
            self._push(self.now + self.sky.latency_s(), REPLY, dialler, dialler_life, reply, number)
            return True
        if mesh is None or life != node.life:
            return False
        if node.paused or kind == FAILURE:
            mesh.exchange_failed(payload if kind == FAILURE else extra)
            return not node.paused
        try:
            answer = mesh.decoder().feed(payload)
            assert answer is not None, "a whole answer was sent"
            mesh.reply(extra, answer, now=self.now)
        except DatagramRejected as error:
            mesh.counters.reject(error.reason)
        return True

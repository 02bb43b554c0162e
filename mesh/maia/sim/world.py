"""Virtual time, one heap of events, and nodes that each hold the shipped `Mesh`.

Every datagram and stream crosses as encoded bytes. A node that is down loses its memory but what it persisted; one that is paused loses
nothing and hears everything at once when it goes on, as after SIGSTOP. Each node has a clock of its own, which began somewhere else than
the others' and may go a little faster: whoever compares two nodes' times finds out.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

from maia.catalogue.pacing import Urgency
from maia.config import LAN_FAST, Address, MeshConfig, Profile
from maia.core import Mesh
from maia.errors import DatagramRejected
from maia.exchanges import Exchange
from maia.identity import PRIVATE_KEY_BYTES, KeyPair
from maia.keyring import Keyring
from maia.sim.squeezing import squeezed
from maia.sim.weather import FAIR, Cut, Sky, Weather
from maia.view import GenerationRaised, IncarnationRaised, MeshEvent, MeshView

REMEMBERED_EVENTS: Final = 50  # of each node, for the report of a broken invariant
INBOX_MAX: Final = 512  # datagrams that a paused node's socket keeps
CLOCK_FROM_MAX_S: Final = 100_000.0  # a monotonic clock counts from the start of its machine
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
    """From more than one of the others, in one direction or both: a single failed link excuses nobody."""


@dataclass(frozen=True, slots=True)
class NodeReconnected:
    pass


@dataclass(frozen=True, slots=True)
class NodeLeaving:
    pass


@dataclass(frozen=True, slots=True)
class GarbageArrived:
    """Bytes that nobody meant, and what became of the node's view: its version before and after, and what the node said to them."""

    view_before: int
    view_after: int
    answers: int


NodeEvent = NodeStarted | NodeCrashed | NodePaused | NodeResumed | NodeCutOff | NodeReconnected | NodeLeaving | GarbageArrived
Witness = Callable[["World", "SimulatedNode", MeshEvent | NodeEvent], None]


def address_of(index: int, *, network: int = 0) -> Address:
    """Of the node with that index, in a network of its own or in another."""
    return Address(f"10.{network}.{index // 250}.{index % 250 + 1}", 7946)


class SimulatedNode:
    """One machine: its mesh while it is up, and what it persists. Its clock shows `clock_from_s` at the beginning of the world."""

    def __init__(self, index: int, config: MeshConfig, *, clock_from_s: float, clock_rate: float) -> None:
        self.index = index
        self.config = config  # what the next start begins with, but for what it persists
        self.name = config.name
        self.clock_from_s = clock_from_s
        self.clock_rate = clock_rate
        self.clock_s = clock_from_s  # never falls, not even by what a conversion rounds off
        self.seeds: tuple[Address, ...] = ()
        self.offers: dict[str, bytes] = {}  # what its owner wants offered, also after a restart
        self.mesh: Mesh | None = None
        self.life = 0  # grows with each start, so that nothing of an earlier life is delivered to a later one
        self.paused = False
        self.inbox: deque[tuple[bytes, Address]] = deque(maxlen=INBOX_MAX)
        self.tick_s = float("inf")
        self.due_s = float("inf")  # the same on its own clock
        self.ticks = 0
        self.incarnation = config.incarnation  # persisted
        self.generation = config.generation  # persisted
        self.history: deque[tuple[float, MeshEvent | NodeEvent]] = deque(maxlen=REMEMBERED_EVENTS)

    @property
    def up(self) -> bool:
        return self.mesh is not None

    @property
    def address(self) -> Address:
        return self.config.gossip

    def read_clock(self, now: float) -> float:
        clock_s = self.clock_from_s + now * self.clock_rate
        if clock_s > self.clock_s:
            self.clock_s = clock_s
        return self.clock_s


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
        drift: float = 0.0,
        witness: Witness | None = None,
    ) -> None:
        self.seed = seed
        self.now = 0.0
        self.random = Random(f"world {seed}")
        self.sky = Sky(weather, Random(f"sky {seed}"))
        self.profile = profile
        self.keyring = keyring
        self.packets = 0
        self.stamps = 0  # given to values so far; see `stamps`
        self.fingerprint = 0  # over every packet and event, in order: equal for equal runs
        self.witness = witness
        clocks = Random(f"clocks {seed}")
        self.nodes = [
            SimulatedNode(
                index,
                self._config(index),
                clock_from_s=round(clocks.random() * CLOCK_FROM_MAX_S),
                clock_rate=1 + drift * (2 * clocks.random() - 1),
            )
            for index in range(nodes)
        ]
        self.acting: SimulatedNode | None = None  # whose turn it is, for the report of an error
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
            gossip=address_of(index),
            api=f"{address_of(index).host}:8000",
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
        config = replace(node.config, generation=node.generation, incarnation=node.incarnation)
        now = node.read_clock(self.now)
        node.mesh = Mesh(config, random=Random(f"node {self.seed} {node.index} {node.life}"), now=now)
        node.paused = False
        node.tick_s = float("inf")
        self._note(node, NodeStarted(keep_state))
        for key, value in node.offers.items():
            node.mesh.offer(key, value, now=now)
        node.mesh.join(node.seeds, now=now)
        self._pump(node, node.mesh)

    def crash(self, node: SimulatedNode) -> None:
        if not node.up:
            return
        node.mesh = None
        node.paused = False
        node.inbox.clear()
        self._note(node, NodeCrashed())

    def move(self, node: SimulatedNode, address: Address) -> None:
        """Give a node that is down another address. Raises `AssertionError` where it runs, or somebody has that address."""
        assert not node.up, f"{node.name} runs, and keeps its address"
        assert address not in self._index_of, f"{address} is {self.nodes[self._index_of[address]].name}'s"
        del self._index_of[node.address]
        self._index_of[address] = node.index
        node.config = replace(node.config, gossip=address)

    def rekey(self, node: SimulatedNode, keyring: Keyring) -> None:
        """Give a node other keys; one that is paused or down takes them when it goes on."""
        node.config = replace(node.config, keyring=keyring)
        if node.mesh is not None and not node.paused:
            node.mesh.use_keyring(keyring)

    def pause(self, node: SimulatedNode) -> None:
        if node.up and not node.paused:
            node.paused = True
            self._note(node, NodePaused())

    def resume(self, node: SimulatedNode) -> None:
        if not node.paused or node.mesh is None:
            return
        node.paused = False
        node.tick_s = float("inf")  # what was due meanwhile was passed over
        self._note(node, NodeResumed())
        if node.config.keyring is not None and node.mesh.config.keyring != node.config.keyring:
            node.mesh.use_keyring(node.config.keyring)
        now = node.read_clock(self.now)
        while node.inbox:
            payload, sender = node.inbox.popleft()
            node.mesh.receive(payload, sender=sender, now=now)
        node.mesh.tick(now=now)
        self._pump(node, node.mesh)

    def partition(self, groups: Sequence[Sequence[int]]) -> None:
        """Nothing passes between nodes of different groups until `heal`."""
        self.sky.partition(groups)
        self._note_cuts(sorted(index for group in groups for index in group))

    def cut(self, sender: int, receiver: int, *, what: Cut = "everything") -> None:
        """Nothing passes from `sender` to `receiver`, or no datagram; the other way stays open."""
        self.sky.cut(sender, receiver, what=what)
        self._note_cuts([sender, receiver])

    def _note_cuts(self, indices: list[int]) -> None:
        for index in indices:
            if self.sky.severed(index) > 1:
                self._note(self.nodes[index], NodeCutOff())

    def heal(self) -> None:
        """Everything passes again."""
        severed = [node for node in self.nodes if self.sky.severed(node.index) > 1]
        self.sky.heal()
        for node in severed:
            self._note(node, NodeReconnected())

    def leave(self, node: SimulatedNode) -> None:
        if node.mesh is not None:
            self._note(node, NodeLeaving())
            node.mesh.leave(now=node.read_clock(self.now))
            self._pump(node, node.mesh)

    def offer(self, node: SimulatedNode, key: str, value: bytes, *, urgency: Urgency = "at once") -> None:
        node.offers[key] = value
        if node.mesh is not None:
            node.mesh.offer(key, value, now=node.read_clock(self.now), urgency=urgency)
            self._pump(node, node.mesh)

    def withdraw(self, node: SimulatedNode, key: str) -> None:
        node.offers.pop(key, None)
        if node.mesh is not None:
            node.mesh.withdraw(key, now=node.read_clock(self.now))
            self._pump(node, node.mesh)

    def slip(self, datagram: bytes, *, sender: SimulatedNode, receiver: SimulatedNode) -> None:
        """Have a datagram arrive now as if from `sender`, whoever wrote it."""
        self._push(self.now, DATAGRAM, receiver.index, 0, datagram, sender.address)

    def litter(self, garbage: bytes, *, sender: SimulatedNode, receiver: SimulatedNode) -> None:
        """Have bytes arrive that mean nothing, and note what they changed."""
        mesh = receiver.mesh
        if mesh is None or receiver.paused:
            return
        now = receiver.read_clock(self.now)
        before = mesh.view(now=now).version
        mesh.receive(garbage, sender=sender.address, now=now)
        answers = mesh.datagrams()
        self._note(receiver, GarbageArrived(before, mesh.view(now=now).version, len(answers)))
        self._pump(receiver, mesh)

    def at(self, when_s: float, act: Callable[[], None]) -> None:
        self._push(when_s, ACT, -1, 0, act, None)

    # --- what an oracle reads ---

    def node_named(self, name: str) -> SimulatedNode:
        return self._by_name[name]

    def profiles(self) -> list[Profile]:
        """Those that any node has, each once."""
        return list({node.config.profile.name: node.config.profile for node in self.nodes}.values())

    def running(self) -> list[SimulatedNode]:
        return [node for node in self.nodes if node.mesh is not None and not node.paused]

    def view(self, node: SimulatedNode) -> MeshView:
        assert node.mesh is not None, f"{node.name} is down"
        return node.mesh.view(now=node.read_clock(self.now))

    # --- time ---

    def run(self, until_s: float) -> None:
        """Let time pass until `until_s`."""
        heap, nodes = self._heap, self.nodes
        while heap and heap[0][0] <= until_s:
            self.now, _, kind, index, life, payload, extra = heappop(heap)
            if kind == ACT:
                payload()
                continue
            node = self.acting = nodes[index]
            mesh = node.mesh
            if kind == DATAGRAM:
                if mesh is None:
                    continue
                if node.paused:
                    node.inbox.append((payload, extra))
                    continue
                self.packets += 1
                self.fingerprint = zlib.crc32(payload, self.fingerprint)
                mesh.receive(payload, sender=extra, now=node.read_clock(self.now))
            elif kind == TICK:
                if mesh is None or node.paused or self.now != node.tick_s or life != node.life:
                    continue
                node.tick_s = float("inf")
                if mesh.deadline() > max(node.read_clock(self.now), node.due_s):
                    # An answer came meanwhile, and moved what was due.
                    self._wind(node, mesh)
                    continue
                node.ticks += 1
                # The way from its clock to ours and back may end a rounding before the moment it asked for.
                node.clock_s = max(node.read_clock(self.now), node.due_s)
                mesh.tick(now=node.clock_s)
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
                delays_s = self.sky.delays_s(node.index, index)
                if delays_s and self.sky.squeezes():
                    payload = squeezed(payload)
                for delay_s in delays_s:
                    self._numbered += 1
                    heappush(self._heap, (now + delay_s, self._numbered, DATAGRAM, index, 0, payload, node.address))
        for exchange in mesh.exchanges():
            self._dial(node, exchange)
        for event in mesh.events():
            self._happened(node, event)
        self._wind(node, mesh)

    def _wind(self, node: SimulatedNode, mesh: Mesh) -> None:
        """Wake a node when it asks for it, unless it will be earlier."""
        now = self.now
        asked_s = mesh.deadline()
        due_s = (asked_s - node.clock_from_s) / node.clock_rate
        if due_s < now:
            due_s = now
        if due_s < node.tick_s:
            node.tick_s, node.due_s = due_s, asked_s
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
        assert node.mesh is not None, "who is down dials nobody"
        node.mesh.counters.stream_bytes_out += len(exchange.request)
        index = self._index_of.get(exchange.target)
        if index is None or not self._connects(node.index, index):
            self._push(self.now + STREAM_TIMEOUT_S, FAILURE, node.index, node.life, exchange.number, None)
            return
        when_s = self.now + self.sky.handshake_s() + self.sky.message_s()
        self._push(when_s, REQUEST, index, 0, exchange.request, (node.index, node.life, exchange.number))

    def _connects(self, one: int, other: int) -> bool:
        return self.sky.connects(one, other)

    def _stream(self, node: SimulatedNode, kind: int, life: int, payload: Any, extra: Any) -> bool:
        """Carry one step of an exchange; False where it changed nothing here."""
        mesh = node.mesh
        now = node.read_clock(self.now)
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
                reply = mesh.answer(request, now=now)
            except DatagramRejected as error:
                mesh.counters.reject(error.reason)
                self._push(self.now + self.sky.latency_s(), FAILURE, dialler, dialler_life, number, None)
                return False
            mesh.counters.stream_bytes_out += len(reply)
            self._push(self.now + self.sky.message_s(), REPLY, dialler, dialler_life, reply, number)
            return True
        if mesh is None or life != node.life:
            return False
        if node.paused or kind == FAILURE:
            mesh.exchange_failed(payload if kind == FAILURE else extra)
            return not node.paused
        try:
            answer = mesh.decoder().feed(payload)
            assert answer is not None, "a whole answer was sent"
            mesh.reply(extra, answer, now=now)
        except DatagramRejected as error:
            mesh.counters.reject(error.reason)
        return True

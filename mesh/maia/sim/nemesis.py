"""What happens to nodes and between them: a seeded plan of faults, made before the run and carried out during it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final, assert_never

from maia.keyring import Keyring
from maia.sim.stamps import stamped
from maia.sim.world import World, address_of

FAREWELL_S: Final = 2.0  # between saying goodbye and the end of the process
STARVED_SHARE: Final = 0.4  # of a starved node's time, in which it stands still
ROTATION_PAUSE_S: Final = 2.0  # between the three steps of a rotation
KEY_BYTES: Final = 32
GARBAGE_BYTES_MAX: Final = 1200
MOVED_TO_NETWORK: Final = 9  # never used by a node from its start
OFFER_BYTES_MAX: Final = 600
SEED: Final = 0  # the index of whom all others join by
JOINED_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Crash:
    at_s: float
    node: int


@dataclass(frozen=True, slots=True)
class Restart:
    at_s: float
    node: int
    keep_state: bool


@dataclass(frozen=True, slots=True)
class Blackout:
    """Everyone crashes at once, and everyone returns, those included who were down."""

    at_s: float
    for_s: float
    keep_state: bool


@dataclass(frozen=True, slots=True)
class Leave:
    at_s: float
    node: int


@dataclass(frozen=True, slots=True)
class Move:
    """A node stops, and starts again at another address."""

    at_s: float
    node: int
    for_s: float
    network: int


@dataclass(frozen=True, slots=True)
class Pause:
    at_s: float
    node: int
    for_s: float


@dataclass(frozen=True, slots=True)
class Starvation:
    """A node that stands still again and again, each time for `stall_s`."""

    at_s: float
    node: int
    for_s: float
    stall_s: float


@dataclass(frozen=True, slots=True)
class Partition:
    at_s: float
    for_s: float
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class FailedLink:
    """Between two nodes, in one direction or both."""

    at_s: float
    for_s: float
    one: int
    other: int
    both_ways: bool


@dataclass(frozen=True, slots=True)
class Deafness:
    """Nothing reaches a node, and all that it says is heard."""

    at_s: float
    for_s: float
    node: int


@dataclass(frozen=True, slots=True)
class Firewall:
    """Lets no datagram of a node pass, and every stream."""

    at_s: float
    for_s: float
    node: int


@dataclass(frozen=True, slots=True)
class Rotation:
    """Another key for everyone: installed, used, and the old one removed. Who is away gets the keyring with its next start."""

    at_s: float
    key: bytes


@dataclass(frozen=True, slots=True)
class Churn:
    """A node changes what it offers, a few times."""

    at_s: float
    node: int
    changes: int
    bytes_long: int


@dataclass(frozen=True, slots=True)
class Garbage:
    at_s: float
    sender: int
    receiver: int
    garbage: bytes


Fault = (
    Crash
    | Restart
    | Blackout
    | Leave
    | Move
    | Pause
    | Starvation
    | Partition
    | FailedLink
    | Deafness
    | Firewall
    | Rotation
    | Churn
    | Garbage
)


class Planner:
    """Writes one plan. At most a third of the nodes is ever down at once, one thing at a time is wrong with the network, and everything
    is mended in the end but for those who stay down.
    """

    def __init__(self, seed: int, *, nodes: int, step_s: float, end_s: float, sealed: bool) -> None:
        self._random = Random(f"nemesis {seed}")
        self._nodes = nodes
        self._step_s = step_s
        self._end_s = end_s
        self._sealed = sealed
        self._down: dict[int, None] = {}
        self._network_mended_s = 0.0
        self._busy_s: dict[int, float] = {}  # until when something is wrong with a node
        self._moves = 0

    def next(self, at_s: float) -> list[Fault]:
        """What begins about now: one fault, and perhaps a little garbage with it."""
        random = self._random
        at_s += 0.5 * self._step_s * random.random()
        planned = self._choose(at_s)
        if random.random() < 0.5:
            sender, receiver = random.randrange(self._nodes), random.randrange(self._nodes)
            planned.append(Garbage(at_s, sender, receiver, random.randbytes(1 + random.randrange(GARBAGE_BYTES_MAX))))
        return planned

    def _choose(self, at_s: float) -> list[Fault]:
        random = self._random
        left_s = self._end_s - at_s
        brief_s = min(left_s, 0.1 + 0.4 * self._step_s * random.random())
        long_s = min(left_s, brief_s + 3 * self._step_s * random.random())
        idle = [node for node in range(self._nodes) if node not in self._down and self._busy_s.get(node, 0.0) <= at_s]
        if not idle:
            return []
        node = idle[random.randrange(len(idle))]
        choice = random.randrange(20)
        if choice < 3 and len(self._down) < self._nodes // 3:
            self._down[node] = None
            return [Leave(at_s, node) if choice == 0 else Crash(at_s, node)]
        if choice < 7 and self._down:
            back = list(self._down)[random.randrange(len(self._down))]
            del self._down[back]
            # Whoever leaves is still saying goodbye for a moment.
            return [Restart(at_s + FAREWELL_S, back, random.random() < 0.5)]
        if choice < 9:
            self._busy_s[node] = at_s + long_s
            return [Pause(at_s, node, long_s)]
        if choice < 10:
            self._busy_s[node] = at_s + long_s
            return [Starvation(at_s, node, long_s, 0.05 + 0.35 * random.random())]
        if choice < 11 and node and SEED not in self._down:
            # Somewhere else nobody looks for it, so it has to find the others, and knows none but its seed.
            self._moves += 1
            self._busy_s[SEED] = max(self._busy_s.get(SEED, 0.0), at_s + brief_s + JOINED_S)
            self._busy_s[node] = at_s + brief_s
            return [Move(at_s, node, brief_s, MOVED_TO_NETWORK + self._moves)]
        if choice < 12 and not self._down and all(mended_s <= at_s for mended_s in self._busy_s.values()):
            for every in range(self._nodes):
                self._busy_s[every] = at_s + brief_s
            return [Blackout(at_s, brief_s, random.random() < 0.5)]
        if choice < 13 and self._sealed:
            return [Rotation(at_s, random.randbytes(KEY_BYTES))]
        if choice < 17 and self._network_mended_s <= at_s:
            self._network_mended_s = at_s + long_s
            return [self._network_fault(at_s, long_s, node)]
        return [Churn(at_s, node, 1 + random.randrange(8), random.randrange(OFFER_BYTES_MAX))]

    def _network_fault(self, at_s: float, for_s: float, node: int) -> Fault:
        random = self._random
        choice = random.randrange(5)
        if choice == 0:
            return Firewall(at_s, for_s, node)
        if choice == 4:
            return Deafness(at_s, for_s, node)
        if choice == 1:
            other = (node + 1 + random.randrange(self._nodes - 1)) % self._nodes
            return FailedLink(at_s, for_s, node, other, random.random() < 0.5)
        everyone = list(range(self._nodes))
        random.shuffle(everyone)
        # Most often somebody is alone, since then all the others may blame nobody else.
        border = 1 + (random.randrange(self._nodes - 1) if random.random() < 0.5 else 0)
        return Partition(at_s, for_s, (tuple(everyone[:border]), tuple(everyone[border:])))


def plan(seed: int, *, nodes: int, seconds: float, faults: int, sealed: bool = False) -> list[Fault]:
    """`faults` troubles over the first two thirds of the run, evenly, and mended by then."""
    end_s = seconds * 2 / 3
    step_s = end_s / max(1, faults)
    planner = Planner(seed, nodes=nodes, step_s=step_s, end_s=end_s, sealed=sealed)
    return [fault for number in range(faults) for fault in planner.next(step_s * number)]


def unleash(world: World, faults: list[Fault]) -> None:
    """Have the world carry out a plan."""
    for fault in faults:
        world.at(fault.at_s, partial(strike, world, fault))


def strike(world: World, fault: Fault) -> None:
    """Begin a fault now, and see to its end."""
    match fault:
        case Crash():
            world.crash(world.nodes[fault.node])
        case Restart():
            world.boot(world.nodes[fault.node], keep_state=fault.keep_state)
        case Blackout():
            for node in world.nodes:
                world.crash(node)
                world.at(world.now + fault.for_s, partial(world.boot, node, keep_state=fault.keep_state))
        case Leave():
            world.leave(world.nodes[fault.node])
            world.at(world.now + FAREWELL_S, partial(world.crash, world.nodes[fault.node]))
        case Move():
            node = world.nodes[fault.node]
            world.crash(node)
            world.move(node, address_of(node.index, network=fault.network))
            world.at(world.now + fault.for_s, partial(world.boot, node))
        case Pause():
            node = world.nodes[fault.node]
            world.pause(node)
            world.at(world.now + fault.for_s, partial(world.resume, node))
        case Starvation():
            starve(world, fault, until_s=world.now + fault.for_s)
        case Partition():
            world.partition(fault.groups)
            world.at(world.now + fault.for_s, world.heal)
        case FailedLink():
            world.cut(fault.one, fault.other)
            if fault.both_ways:
                world.cut(fault.other, fault.one)
            world.at(world.now + fault.for_s, world.heal)
        case Deafness():
            for node in world.nodes:
                if node.index != fault.node:
                    world.cut(node.index, fault.node)
            world.at(world.now + fault.for_s, world.heal)
        case Firewall():
            for node in world.nodes:
                if node.index != fault.node:
                    world.cut(fault.node, node.index, what="datagrams")
                    world.cut(node.index, fault.node, what="datagrams")
            world.at(world.now + fault.for_s, world.heal)
        case Rotation():
            rotate(world, fault.key)
        case Churn():
            for _ in range(fault.changes):
                change(world, fault.node, bytes_long=fault.bytes_long)
        case Garbage():
            world.litter(fault.garbage, sender=world.nodes[fault.sender], receiver=world.nodes[fault.receiver])
        case _:
            assert_never(fault)


def starve(world: World, fault: Starvation, *, until_s: float) -> None:
    """Stop a node for one stall, and again, until it is over."""
    node = world.nodes[fault.node]
    if world.now >= until_s:
        return
    world.pause(node)
    world.at(world.now + fault.stall_s, partial(world.resume, node))
    world.at(world.now + fault.stall_s / STARVED_SHARE, partial(starve, world, fault, until_s=until_s))


def rotate(world: World, key: bytes) -> None:
    """Install a key everywhere now, use it a moment later, and then remove the others."""
    for node in world.nodes:
        assert node.config.keyring is not None, "only a sealed mesh rotates its keys"
        world.rekey(node, node.config.keyring.install(key))
    world.at(world.now + ROTATION_PAUSE_S, partial(_use, world, key))
    world.at(world.now + 2 * ROTATION_PAUSE_S, partial(_remove_others, world, key))


def _use(world: World, key: bytes) -> None:
    for node in world.nodes:
        assert node.config.keyring is not None
        if key in node.config.keyring.keys:
            world.rekey(node, node.config.keyring.use(key))


def _remove_others(world: World, key: bytes) -> None:
    for node in world.nodes:
        assert node.config.keyring is not None
        if node.config.keyring.primary == key:
            world.rekey(node, Keyring((key,)))


def change(world: World, index: int, *, bytes_long: int) -> None:
    """Another value in one of a few slots, or a withdrawal."""
    node = world.nodes[index]
    key = f"models/{world.random.randrange(4)}"
    if key in node.offers and world.random.random() < 0.2:
        world.withdraw(node, key)
    else:
        world.stamps += 1
        world.offer(node, key, stamped(world.stamps, bytes_long=bytes_long))

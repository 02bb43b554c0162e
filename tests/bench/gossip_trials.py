"""One simulated mesh each: what is done to it, and what is read off it. Everything is in virtual time, so a figure is the same everywhere.

Each trial is a value that names all it depends on; `carry_out` turns it into numbers and may run in any process.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Literal, assert_never

from maia.config import PROFILES, Profile
from maia.core import Mesh
from maia.membership.suspicion import suspicion_bounds_s
from maia.sim.acquaintance import boot_acquainted
from maia.sim.weather import Weather
from maia.sim.world import NodeEvent, SimulatedNode, World
from maia.view import MemberDied, MeshEvent, OffersChanged

LOSS = 0.02
UDP_HEADER_BYTES = 28  # IPv4 and UDP
WARM_UP_S = 2.0  # every timer has come once, and what each node says of itself at its start is told
STEP_S = 0.05
OFFER_BYTES = 150  # a model's: name, context, template, digest
CHANGE_WAIT_S = 15.0  # three times the longest pause between two pulls
STARVED = 0

Sky = Literal["calm", "loss", "loss and one starved", "loss and stalls"]
SKIES: dict[Sky, str] = {
    "calm": "no loss",
    "loss": "2 % loss",
    "loss and one starved": "2 % loss; one node stands still for 0.1–0.4 s after every 0.1–0.9 s",
    "loss and stalls": "2 % loss; every node stands still for 0.2–1 s after every 2–18 s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashes:
    """Kill some nodes, one after the other."""

    profile: str
    nodes: int
    seed: int
    crashes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Change single offers, each once everybody knows the one before."""

    profile: str
    nodes: int
    seed: int
    changes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Let time pass while `per_second` offers change in the whole mesh; none is idleness."""

    profile: str
    nodes: int
    seed: int
    seconds: float
    per_second: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Let time pass under a sky; nobody dies, so every verdict is wrong."""

    profile: str
    nodes: int
    seed: int
    seconds: float
    sky: Sky


Trial = Crashes | Changes | Traffic | Patience


@dataclass(slots=True, kw_only=True)
class Reading:
    """What a trial showed. Times are from the deed, in seconds."""

    first_s: list[float] = field(default_factory=list)  # of each crash, the first survivor's verdict
    last_s: list[float] = field(default_factory=list)  # of each crash or change, the last one's
    missed: int = 0  # crashes or changes that somebody did not learn of in time
    bytes_out: dict[str, float] = field(default_factory=dict)  # a node's in a second, on average, by kind, headers included
    datagrams_out: float = 0.0  # a node's in a second, on average
    stream_bytes_out: float = 0.0
    busiest_bytes: int = 0  # by one node in one second, streams left out
    deaths: int = 0  # wrong ones; of one life by any number of judges
    verdicts: int = 0  # wrong ones, each judge counted
    suspicions: int = 0
    node_hours: float = 0.0
    packets: int = 0
    boot_s: float = 0.0  # real time, as the next
    ran_s: float = 0.0
    memory_mib: float = 0.0


def carry_out(trial: Trial) -> Reading:
    match trial:
        case Crashes():
            return _crash(trial)
        case Changes():
            return _change(trial)
        case Traffic():
            return _listen(trial)
        case Patience():
            return _wait(trial)
        case _:
            assert_never(trial)


def mesh_of(node: SimulatedNode) -> Mesh:
    assert node.mesh is not None, f"{node.name} is down"
    return node.mesh


class Witnessed:
    """Who learned of what, while somebody wants to know."""

    def __init__(self) -> None:
        self.deaths: list[tuple[float, str]] = []
        self.incarnations: list[tuple[str, int]] = []
        self.changed: str = ""
        self.learned: dict[int, float] = {}

    def __call__(self, world: World, node: SimulatedNode, event: MeshEvent | NodeEvent) -> None:
        if isinstance(event, MemberDied):
            self.deaths.append((world.now, event.name))
            self.incarnations.append((event.name, mesh_of(node).view(now=node.clock_s).members[event.name].incarnation))
        elif isinstance(event, OffersChanged) and event.name == self.changed:
            self.learned.setdefault(node.index, world.now)


@contextmanager
def _world(trial: Trial, reading: Reading, witness: Witnessed, *, loss: float = LOSS) -> Iterator[World]:
    """A mesh that runs since two seconds, with the times it takes noted in `reading`."""
    began_s = time.perf_counter()
    profile = PROFILES[trial.profile]
    world = World(trial.seed, nodes=trial.nodes, profile=profile, weather=Weather(loss=loss, stream_loss=loss), witness=witness)
    gc.disable()  # a million members are no garbage, and looking for it among them takes longer than the trial
    try:
        boot_acquainted(world)
        reading.boot_s = time.perf_counter() - began_s
        world.run(WARM_UP_S)
        yield world
    finally:
        gc.enable()
    reading.packets = world.packets
    reading.ran_s = time.perf_counter() - began_s - reading.boot_s
    reading.memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _crash(trial: Crashes) -> Reading:
    reading, witness = Reading(), Witnessed()
    random = Random(f"crashes {trial.seed}")
    with _world(trial, reading, witness) as world:
        longest_s = patience_s(world.profile, trial.nodes)
        for _ in range(trial.crashes):
            world.run(world.now + world.profile.probe_interval_s * (1 + random.random()))
            running = world.running()
            victim = running[random.randrange(len(running))]
            crashed_s = world.now
            world.crash(victim)
            witness.deaths.clear()
            while len(witness.deaths) < len(running) - 1 and world.now < crashed_s + longest_s:
                world.run(world.now + STEP_S)
            about_it = [at_s - crashed_s for at_s, name in witness.deaths if name == victim.name]
            reading.deaths += len(witness.deaths) - len(about_it)
            if len(about_it) < len(running) - 1:
                reading.missed += 1
            else:
                reading.first_s.append(about_it[0])
                reading.last_s.append(about_it[-1])
    return reading


def patience_s(profile: Profile, nodes: int) -> float:
    """By when a crash must be known to everybody: two whole rounds of probes, the longest doubt, and what gossip takes."""
    return 2 * nodes * profile.probe_interval_s + suspicion_bounds_s(profile, nodes)[1] + 20 * profile.gossip_interval_s


def _change(trial: Changes) -> Reading:
    reading, witness = Reading(), Witnessed()
    random = Random(f"changes {trial.seed}")
    with _world(trial, reading, witness) as world:
        for number in range(trial.changes):
            world.run(world.now + 1.0 + world.profile.probe_interval_s * random.random())
            owner = world.nodes[random.randrange(trial.nodes)]
            witness.changed, witness.learned = owner.name, {}
            changed_s = world.now
            world.offer(owner, "models/0", offer(random, number))
            while len(witness.learned) < trial.nodes and world.now < changed_s + CHANGE_WAIT_S:
                world.run(world.now + STEP_S)
            if len(witness.learned) < trial.nodes:
                reading.missed += 1
            else:
                reading.last_s.append(max(witness.learned.values()) - changed_s)
    return reading


def offer(random: Random, number: int) -> bytes:
    """What nobody offered before."""
    return f"{number} ".encode().ljust(OFFER_BYTES, b".")[: OFFER_BYTES - 8] + b"%08x" % random.randrange(2**32)


def _listen(trial: Traffic) -> Reading:
    reading, witness = Reading(), Witnessed()
    random = Random(f"traffic {trial.seed}")
    with _world(trial, reading, witness) as world:
        changes = round(trial.seconds * trial.per_second)
        for number in range(changes):
            owner = world.nodes[random.randrange(trial.nodes)]
            world.at(world.now + trial.seconds * number / changes, partial(world.offer, owner, "models/0", offer(random, number)))
        before, end_s = _sent(world), world.now + trial.seconds
        streams_before = sum(mesh_of(node).counters.stream_bytes_out for node in world.nodes)
        each = {node.index: sum(_bytes_of(node).values()) for node in world.nodes}
        while world.now < end_s:
            world.run(min(end_s, world.now + 1.0))
            for node in world.nodes:
                total = sum(_bytes_of(node).values())
                reading.busiest_bytes = max(reading.busiest_bytes, total - each[node.index])
                each[node.index] = total
        after = _sent(world)
        node_seconds = trial.nodes * trial.seconds
        reading.bytes_out = {kind: (count - before.get(kind, 0)) / node_seconds for kind, count in after.items()}
        reading.stream_bytes_out = (sum(mesh_of(node).counters.stream_bytes_out for node in world.nodes) - streams_before) / node_seconds
    return reading


def _bytes_of(node: SimulatedNode) -> dict[str, int]:
    """What a node has sent so far, by kind of the first message, headers included."""
    counters = mesh_of(node).counters
    return {kind: sent + UDP_HEADER_BYTES * counters.datagrams_out[kind] for kind, sent in counters.bytes_out.items()}


def _sent(world: World) -> dict[str, int]:
    totals: dict[str, int] = {}
    for node in world.nodes:
        for kind, count in _bytes_of(node).items():
            totals[kind] = totals.get(kind, 0) + count
    return totals


def _wait(trial: Patience) -> Reading:
    reading, witness = Reading(), Witnessed()
    random = Random(f"patience {trial.seed}")
    with _world(trial, reading, witness, loss=0.0 if trial.sky == "calm" else LOSS) as world:
        match trial.sky:
            case "calm" | "loss":
                pass
            case "loss and one starved":
                _starve(world, world.nodes[STARVED], random, runs_s=(0.1, 0.9), stands_s=(0.1, 0.4))
            case "loss and stalls":
                for node in world.nodes:
                    _starve(world, node, random, runs_s=(2.0, 18.0), stands_s=(0.2, 1.0))
            case _:
                assert_never(trial.sky)
        before = sum(mesh_of(node).counters.suspicions for node in world.nodes)
        world.run(world.now + trial.seconds)
        reading.suspicions = sum(mesh_of(node).counters.suspicions for node in world.nodes) - before
        reading.verdicts = len(witness.deaths)
        reading.deaths = len(dict.fromkeys(witness.incarnations))
        reading.node_hours = trial.nodes * trial.seconds / 3600
    return reading


def _starve(world: World, node: SimulatedNode, random: Random, *, runs_s: tuple[float, float], stands_s: tuple[float, float]) -> None:
    """For ever: let it run for a while, then have it stand still for a while."""

    def stand() -> None:
        world.pause(node)
        world.at(world.now + _between(stands_s, random), go_on)

    def go_on() -> None:
        world.resume(node)
        world.at(world.now + _between(runs_s, random), stand)

    world.at(world.now + _between(runs_s, random), stand)


def _between(bounds_s: tuple[float, float], random: Random) -> float:
    low_s, high_s = bounds_s
    return low_s + (high_s - low_s) * random.random()

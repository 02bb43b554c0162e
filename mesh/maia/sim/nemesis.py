"""What happens to nodes: a seeded plan of crashes, restarts, pauses and partitions, made before the run and carried out during it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import assert_never

from maia.sim.world import World


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
class Pause:
    at_s: float
    node: int
    for_s: float


@dataclass(frozen=True, slots=True)
class Partition:
    at_s: float
    for_s: float
    groups: tuple[tuple[int, ...], ...]


Fault = Crash | Restart | Pause | Partition


def plan(seed: int, *, nodes: int, seconds: float, faults: int) -> list[Fault]:
    """At most `faults` troubles over the first two thirds of the run, one at a time, each over before the next begins.

    At most a third of the nodes is ever down at once, and everything is mended in the end but for those who stay down.
    """
    random = Random(f"nemesis {seed}")
    down: dict[int, None] = {}
    planned: list[Fault] = []
    step_s = seconds * 2 / 3 / max(1, faults)
    for number in range(faults):
        at_s = step_s * (number + 0.5 * random.random())
        for_s = step_s * 0.5 * random.random()
        up = [node for node in range(nodes) if node not in down]
        choice = random.randrange(4)
        if choice == 0 and len(down) < nodes // 3:
            victim = up[random.randrange(len(up))]
            down[victim] = None
            planned.append(Crash(at_s, victim))
        elif choice == 1 and down:
            back = list(down)[random.randrange(len(down))]
            del down[back]
            planned.append(Restart(at_s, back, random.random() < 0.5))
        elif choice == 2:
            planned.append(Pause(at_s, up[random.randrange(len(up))], for_s))
        else:
            everyone = list(range(nodes))
            random.shuffle(everyone)
            border = 1 + random.randrange(nodes - 1)
            planned.append(Partition(at_s, for_s, (tuple(everyone[:border]), tuple(everyone[border:]))))
    return planned


def unleash(world: World, faults: list[Fault]) -> None:
    """Have the world carry out a plan."""
    for fault in faults:
        world.at(fault.at_s, partial(strike, world, fault))


def strike(world: World, fault: Fault) -> None:
    match fault:
        case Crash():
            world.crash(world.nodes[fault.node])
        case Restart():
            world.boot(world.nodes[fault.node], keep_state=fault.keep_state)
        case Pause():
            node = world.nodes[fault.node]
            world.pause(node)
            world.at(world.now + fault.for_s, partial(world.resume, node))
        case Partition():
            world.partition(fault.groups)
            world.at(world.now + fault.for_s, world.heal)
        case _:
            assert_never(fault)

"""A booted mesh under an oracle. `SEEDS` says how many runs each scenario has, `SEED` which single one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from maia.config import LAN_FAST, MeshConfig, Profile
from maia.keyring import Keyring
from maia.sim.oracle import InvariantBroken, Oracle
from maia.sim.run import history, live, settle
from maia.sim.weather import FAIR, Weather
from maia.sim.world import SimulatedNode, World
from maia.view import MemberDied

SEEDS = int(os.environ.get("SEEDS", "20"))
SEED = os.environ.get("SEED")
LOSSY = Weather(loss=0.05, duplication=0.02, reordering=0.05)


def seeds(count: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("seed", [int(SEED)] if SEED else range(1, count + 1))


every_seed = seeds(SEEDS)
# Slower scenarios get a share of the seeds, so that the default stays within a minute on one core.
some_seeds = seeds(max(2, SEEDS // 3))
few_seeds = seeds(max(2, SEEDS // 10))

Configure = Callable[[int, MeshConfig], MeshConfig]


class Scenario:
    """A world under an oracle, and what a test asks of it."""

    def __init__(self, world: World, oracle: Oracle) -> None:
        self.world = world
        self.oracle = oracle
        self.nodes = world.nodes

    def run(self, seconds: float) -> None:
        """Let time pass, checked in full every virtual second."""
        live(self.world, self.oracle, seconds=seconds)

    def settle(self) -> None:
        """Let time pass until everyone agrees, at most as long as they may take."""
        settle(self.world, self.oracle)

    def status(self, observer: SimulatedNode, subject: SimulatedNode) -> str:
        return self.world.view(observer).members[subject.name].status

    def everyone_but(self, *nodes: SimulatedNode) -> list[SimulatedNode]:
        return [node for node in self.nodes if node not in nodes]


@contextmanager
def scenario(
    seed: int,
    *,
    nodes: int = 10,
    profile: Profile = LAN_FAST,
    weather: Weather = FAIR,
    keyring: Keyring | None = None,
    configure: Configure | None = None,
    together: bool = True,
    drift: float = 0.001,
) -> Iterator[Scenario]:
    """A booted mesh; a broken invariant comes with the last events of its node. `configure` makes single nodes differ.

    `together`: they all become one mesh.
    """
    oracle = Oracle()
    world = World(seed, nodes=nodes, profile=profile, weather=weather, keyring=keyring, drift=drift, witness=oracle.witness)
    if configure is not None:
        for node in world.nodes:
            node.config = configure(node.index, node.config)
    made = Scenario(world, oracle)
    try:
        world.boot_all(within_s=0.5)
        made.run(3.0)
        if together:
            made.settle()  # whose handshake is lost comes later
        yield made
    except InvariantBroken as broken:
        test = os.environ["PYTEST_CURRENT_TEST"].split("[")[0].split(" ")[0]
        pytest.fail(f"{broken}\n  replay: SEED={seed} pytest {test}\n{history(broken.node)}")


def died(node: SimulatedNode) -> list[str]:
    """Whom it gave up, lately."""
    return [event.name for _, event in node.history if isinstance(event, MemberDied)]

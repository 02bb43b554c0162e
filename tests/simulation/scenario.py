"""A booted mesh under an oracle. `SEEDS` says how many runs each scenario has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from maia.config import LAN_FAST, Profile
from maia.keyring import Keyring
from maia.sim.oracle import InvariantBroken, Oracle, notice_s
from maia.sim.run import history
from maia.sim.weather import FAIR, Weather
from maia.sim.world import SimulatedNode, World

SEEDS = int(os.environ.get("SEEDS", "30"))
LOSSY = Weather(loss=0.05, duplication=0.02, reordering=0.05)

every_seed = pytest.mark.parametrize("seed", range(1, SEEDS + 1))
# Slower scenarios get a share of the seeds, so that the default stays within a minute on one core.
some_seeds = pytest.mark.parametrize("seed", range(1, max(2, SEEDS // 3) + 1))
few_seeds = pytest.mark.parametrize("seed", range(1, max(2, SEEDS // 10) + 1))


class Scenario:
    """A world under an oracle, and what a test asks of it."""

    def __init__(
        self, seed: int, *, nodes: int, profile: Profile = LAN_FAST, weather: Weather = FAIR, keyring: Keyring | None = None
    ) -> None:
        self.oracle = Oracle()
        self.world = World(seed, nodes=nodes, profile=profile, weather=weather, keyring=keyring, witness=self.oracle.witness)
        self.nodes = self.world.nodes

    def run(self, seconds: float) -> None:
        """Let time pass, checked in full every virtual second."""
        end_s = self.world.now + seconds
        while self.world.now < end_s:
            self.world.run(min(end_s, self.world.now + 1.0))
            self.oracle.check(self.world)

    def settle(self) -> None:
        """Let time pass until everyone agrees, at most as long as they may take."""
        end_s = self.world.now + notice_s(self.world)
        while True:
            self.run(0.5)
            try:
                self.oracle.check_agreement(self.world)
            except InvariantBroken:
                if self.world.now >= end_s:
                    raise
            else:
                return

    def status(self, observer: SimulatedNode, subject: SimulatedNode) -> str:
        return self.world.view(observer).members[subject.name].status


@contextmanager
def scenario(
    seed: int, *, nodes: int = 10, profile: Profile = LAN_FAST, weather: Weather = FAIR, keyring: Keyring | None = None
) -> Iterator[Scenario]:
    """A booted mesh; a broken invariant comes with the last events of its node."""
    made = Scenario(seed, nodes=nodes, profile=profile, weather=weather)
    try:
        made.world.boot_all(within_s=0.5)
        made.run(3.0)
        yield made
    except InvariantBroken as broken:
        pytest.fail(f"seed {seed}: {broken}\n{history(broken.node)}")

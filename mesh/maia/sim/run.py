"""One simulated run from its seed: boot, trouble, time to heal, and the oracle's verdict."""

from __future__ import annotations

from dataclasses import dataclass

from maia.config import PROFILES
from maia.sim.nemesis import plan, unleash
from maia.sim.oracle import InvariantBroken, Oracle, longest_doubt_s, notice_s
from maia.sim.weather import Weather
from maia.sim.world import SimulatedNode, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that a run depends on."""

    seed: int
    nodes: int = 10
    seconds: float = 60.0
    profile: str = "lan-fast"
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    faults: int = 0

    @property
    def command(self) -> str:
        """What replays it."""
        words = [f"python -m maia.sim --seed {self.seed} --nodes {self.nodes} --seconds {self.seconds:g} --profile {self.profile}"]
        shares = {"--loss": self.loss, "--duplication": self.duplication, "--reordering": self.reordering, "--faults": self.faults}
        return " ".join(words + [f"{option} {value:g}" for option, value in shares.items() if value])


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    packets: int
    fingerprint: int
    noticed_s: tuple[float, ...]  # from each crash to each verdict about it, sorted


class RunFailed(AssertionError):
    """A broken invariant with everything that is needed to look into it."""

    def __init__(self, run: Run, broken: InvariantBroken) -> None:
        super().__init__(f"{broken}\n  replay: {run.command}\n{history(broken.node)}")


def history(node: SimulatedNode) -> str:
    """The last events of a node, one a line."""
    return "\n".join(f"  {at_s:10.4f} s  {node.name}  {event}" for at_s, event in node.history)


def carry_out(run: Run) -> Outcome:
    """Simulate. Raises `RunFailed`."""
    oracle = Oracle()
    weather = Weather(loss=run.loss, duplication=run.duplication, reordering=run.reordering)
    world = World(run.seed, nodes=run.nodes, profile=PROFILES[run.profile], weather=weather, witness=oracle.witness)
    try:
        world.boot_all(within_s=0.5)
        unleash(world, plan(run.seed, nodes=run.nodes, seconds=run.seconds, faults=run.faults))
        settled_s = run.seconds + (notice_s(world) + longest_doubt_s(world) if run.faults else 0.0)
        while world.now < settled_s:
            world.run(min(settled_s, world.now + 1.0))
            oracle.check(world)
        oracle.check_agreement(world)
    except InvariantBroken as broken:
        raise RunFailed(run, broken) from broken
    return Outcome(packets=world.packets, fingerprint=world.fingerprint, noticed_s=tuple(sorted(oracle.noticed_s)))

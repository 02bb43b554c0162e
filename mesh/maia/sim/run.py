"""One simulated run from its seed: boot, trouble, time to heal, and the oracle's verdict."""

from __future__ import annotations

from dataclasses import dataclass

from maia.config import PROFILES
from maia.keyring import Keyring
from maia.sim.invariants import Invariant
from maia.sim.nemesis import plan, unleash
from maia.sim.oracle import InvariantBroken, Oracle, longest_doubt_s, notice_s, reunion_s
from maia.sim.weather import Weather
from maia.sim.world import SimulatedNode, World

FIRST_KEY = b"first key of a simulated cluster"


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
    compression: float = 0.0
    drift: float = 0.0
    faults: int = 0
    sealed: bool = False

    @property
    def command(self) -> str:
        """What replays it."""
        words = [f"python -m maia.sim --seed {self.seed} --nodes {self.nodes} --seconds {self.seconds:g} --profile {self.profile}"]
        figures = ("loss", "duplication", "reordering", "compression", "drift", "faults")
        words += [f"--{name} {getattr(self, name):g}" for name in figures if getattr(self, name)]
        return " ".join(words + ["--sealed"] * self.sealed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    packets: int
    fingerprint: int
    noticed_s: tuple[float, ...]  # from each crash to each verdict about it, sorted
    took_s: float  # of virtual time, until everyone agreed


class RunFailed(AssertionError):
    """A broken invariant with everything that is needed to look into it."""

    def __init__(self, run: Run, broken: InvariantBroken) -> None:
        super().__init__(f"{broken}\n  replay: {run.command}\n{history(broken.node)}")
        self.invariant = broken.invariant


def history(node: SimulatedNode) -> str:
    """The last events of a node, one a line."""
    return "\n".join(f"  {at_s:10.4f} s  {node.name}  {event}" for at_s, event in node.history)


def carry_out(run: Run) -> Outcome:
    """Simulate. Raises `RunFailed`."""
    oracle = Oracle()
    world = World(
        run.seed,
        nodes=run.nodes,
        profile=PROFILES[run.profile],
        weather=Weather(loss=run.loss, duplication=run.duplication, reordering=run.reordering, compression=run.compression),
        keyring=Keyring((FIRST_KEY,)) if run.sealed else None,
        drift=run.drift,
        witness=oracle.witness,
    )
    try:
        world.boot_all(within_s=0.5)
        unleash(world, plan(run.seed, nodes=run.nodes, seconds=run.seconds, faults=run.faults, sealed=run.sealed))
        live(world, oracle, seconds=run.seconds)
        settle(world, oracle)
    except InvariantBroken as broken:
        raise RunFailed(run, broken) from broken
    except AssertionError:
        raise  # of the simulation itself
    except Exception as error:
        node = world.acting or world.nodes[0]
        raise RunFailed(run, InvariantBroken(world, node, Invariant.OWN_ERROR, f"raised {error!r}")) from error
    return Outcome(packets=world.packets, fingerprint=world.fingerprint, noticed_s=tuple(sorted(oracle.noticed_s)), took_s=world.now)


def live(world: World, oracle: Oracle, *, seconds: float) -> None:
    """Let time pass, checked in full every virtual second. Raises `InvariantBroken`."""
    end_s = world.now + seconds
    while world.now < end_s:
        world.run(min(end_s, world.now + 1.0))
        oracle.check(world)


def settle(world: World, oracle: Oracle) -> None:
    """Let time pass until everyone agrees, at most as long as they may take. Raises `InvariantBroken`."""
    end_s = world.now + longest_doubt_s(world) + max(notice_s(world), reunion_s(world))
    while True:
        try:
            oracle.check_agreement(world)
        except InvariantBroken:
            if world.now >= end_s:
                raise
        else:
            return
        live(world, oracle, seconds=0.5)

"""The same seed is the same run, in every process; and a broken invariant says how to see it again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from maia.sim.oracle import InvariantBroken, Oracle
from maia.sim.run import Run, RunFailed, carry_out
from maia.sim.world import World

RUN = Run(seed=11, nodes=7, seconds=20.0, loss=0.05, duplication=0.05, reordering=0.1, faults=3)


def in_a_process(hash_seed: str) -> str:
    """What the command prints, but for the time that it took."""
    words = RUN.command.split()
    done = subprocess.run(
        [sys.executable, *words[1:]], capture_output=True, text=True, check=True, timeout=60, env={"PYTHONHASHSEED": hash_seed}
    )
    seed, packets, fingerprint = done.stdout.split(" in ")[0], done.stdout.split()[2], done.stdout.split("fingerprint ")[1]
    return f"{seed} {packets} {fingerprint}"


def test_the_same_seed_is_the_same_run_under_every_hash_seed() -> None:
    one, other = in_a_process("1"), in_a_process("4242")
    assert one == other
    outcome = carry_out(RUN)
    assert f"fingerprint {outcome.fingerprint:08x}".split()[1] in one


def test_another_seed_is_another_run() -> None:
    fingerprints = {carry_out(Run(seed=seed, nodes=4, seconds=5.0)).fingerprint for seed in range(5)}
    assert len(fingerprints) == 5


def test_a_failing_seed_says_how_to_replay_it_and_what_its_node_saw() -> None:
    oracle = Oracle()
    world = World(5, nodes=3, witness=oracle.witness)
    world.boot_all()
    world.run(2.0)
    failure = RunFailed(RUN, InvariantBroken(world, world.nodes[1], "something must never happen"))
    told = str(failure)
    assert "at 2.000 s, node001-000001: something must never happen" in told
    assert "replay: python -m maia.sim --seed 11 --nodes 7 --seconds 20 --profile lan-fast --loss 0.05" in told
    assert "MemberJoined(name='node002-000002')" in told


def test_the_oracle_sees_a_living_node_given_up() -> None:
    oracle = Oracle()
    world = World(5, nodes=3, witness=oracle.witness)
    world.boot_all()
    world.run(12.0)
    world.sky.partition([[0, 1], [2]])  # behind the oracle's back
    with pytest.raises(InvariantBroken, match="which lives"):
        world.run(30.0)


def test_the_oracle_sees_a_crash_that_nobody_notices() -> None:
    oracle = Oracle()
    world = World(5, nodes=3, witness=oracle.witness)
    world.boot_all()
    world.run(12.0)
    oracle.crashed_s[world.nodes[2].name] = -100.0  # so it believes, and the node answers all the same
    with pytest.raises(InvariantBroken, match="still sees node002-000002 as living"):
        oracle.check(world)


def test_the_oracle_sees_catalogues_that_differ() -> None:
    oracle = Oracle()
    world = World(5, nodes=3, witness=oracle.witness)
    world.boot_all()
    world.run(3.0)
    oracle.check_agreement(world)
    world.nodes[1].offers["never offered"] = b""
    with pytest.raises(InvariantBroken, match="sees 1 offers of node001-000001, which has 2"):
        oracle.check_agreement(world)

"""The same seed is the same run, in every process, whatever the weather, the faults, the profile and the seal."""

from __future__ import annotations

import subprocess
import sys

import pytest

from maia.sim.campaign import campaign, run_of
from maia.sim.run import Run, carry_out

STORMY = Run(seed=11, nodes=7, seconds=20.0, loss=0.05, duplication=0.05, reordering=0.1, drift=0.01, faults=12)
RUNS = [
    STORMY,
    Run(seed=12, nodes=9, seconds=60.0, profile="lan", loss=0.02, faults=12),
    Run(seed=13, nodes=6, seconds=20.0, loss=0.02, compression=0.2, faults=12),
    Run(seed=14, nodes=6, seconds=20.0, loss=0.02, faults=12, sealed=True),
]


def in_a_process(run: Run, *, hash_seed: str) -> str:
    """What the command prints, but for the time that it took."""
    words = run.command.split()
    done = subprocess.run(
        [sys.executable, *words[1:]], capture_output=True, text=True, check=True, timeout=60, env={"PYTHONHASHSEED": hash_seed}
    )
    seed, packets, fingerprint = done.stdout.split(" in ")[0], done.stdout.split()[2], done.stdout.split("fingerprint ")[1]
    return f"{seed} {packets} {fingerprint}"


@pytest.mark.parametrize("run", RUNS, ids=["lan-fast", "lan", "compressed", "sealed"])
def test_the_same_seed_is_the_same_run_under_every_hash_seed(run: Run) -> None:
    one, other = in_a_process(run, hash_seed="1"), in_a_process(run, hash_seed="4242")
    assert one == other
    assert f"{carry_out(run).fingerprint:08x}" in one


def test_another_seed_is_another_run() -> None:
    fingerprints = {carry_out(Run(seed=seed, nodes=4, seconds=5.0)).fingerprint for seed in range(5)}
    assert len(fingerprints) == 5


def test_a_campaign_has_every_weather_and_is_the_same_every_time() -> None:
    runs = campaign(1000)
    assert [run.profile for run in runs] == ["lan"] * 1000 + ["lan-fast"] * 200
    assert runs[499] == run_of(500, profile="lan")
    assert 0.02 < sum(run.sealed for run in runs) / len(runs) < 0.1
    assert 0.02 < sum(run.compression > 0 for run in runs) / len(runs) < 0.1
    assert {run.faults for run in runs} == set(range(13))

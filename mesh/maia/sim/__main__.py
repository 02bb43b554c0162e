"""`python -m maia.sim`: replay one seed, or search many for one that breaks."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

from maia.config import PROFILES
from maia.sim.run import Run, RunFailed, carry_out


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m maia.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the run to carry out")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs, from that seed on")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual time, before what faults need to heal")
    parser.add_argument("--profile", choices=tuple(PROFILES), default="lan-fast")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets lost")
    parser.add_argument("--duplication", type=float, default=0.0, help="share of packets doubled")
    parser.add_argument("--reordering", type=float, default=0.0, help="share of packets that come late")
    parser.add_argument("--faults", type=int, default=0, help="crashes, restarts, pauses and partitions")
    parser.add_argument("--jobs", type=int, default=1, help="processes to share the seeds among")
    options = vars(parser.parse_args(arguments))
    first, count, jobs = options.pop("seed"), options.pop("seeds"), options.pop("jobs")
    runs = [Run(seed=seed, **options) for seed in range(first, first + count)]
    if jobs == 1:
        return report(map(attempt, runs))
    with ProcessPoolExecutor(jobs) as pool:
        return report(pool.map(attempt, runs))


def attempt(run: Run) -> tuple[bool, str]:
    """Whether a run went well, and what to say of it."""
    began_s = time.perf_counter()
    try:
        outcome = carry_out(run)
    except RunFailed as failure:
        return False, str(failure)
    took_s = time.perf_counter() - began_s
    noticed = outcome.noticed_s
    crashes = f", crashes noticed after {noticed[len(noticed) // 2]:.2f} s (median) to {noticed[-1]:.2f} s" if noticed else ""
    return True, f"seed {run.seed}: {outcome.packets} packets in {took_s:.2f} s, fingerprint {outcome.fingerprint:08x}{crashes}"


def report(attempts: Iterable[tuple[bool, str]]) -> int:
    """Print runs as they end, up to the first that failed; the exit status."""
    for went_well, words in attempts:
        (sys.stdout if went_well else sys.stderr).write(f"{words}\n")
        if not went_well:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

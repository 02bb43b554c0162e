"""`python -m maia.sim`: replay one seed, search many for one that breaks, or carry out a campaign over every weather and fault."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from maia.config import PROFILES
from maia.sim.campaign import Summary, campaign
from maia.sim.run import Outcome, Run, RunFailed, carry_out

GARBAGE_THRESHOLD = 100_000
CHUNK = 4  # runs handed to a process at once; the last ones must not leave the other processes idle


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m maia.sim", description=__doc__)
    parser.add_argument("--campaign", type=int, metavar="SEEDS", help="so many runs of `lan` and a fifth of `lan-fast`, 25 nodes each")
    parser.add_argument("--seed", type=int, default=1, help="the run to carry out")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs, from that seed on")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual time, before what faults need to heal")
    parser.add_argument("--profile", choices=tuple(PROFILES), default="lan-fast")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets lost")
    parser.add_argument("--duplication", type=float, default=0.0, help="share of packets doubled")
    parser.add_argument("--reordering", type=float, default=0.0, help="share of packets that come late")
    parser.add_argument("--compression", type=float, default=0.0, help="share of packets that come compressed, as stock agents send them")
    parser.add_argument("--drift", type=float, default=0.0, help="by how much a node's clock goes too fast or too slow, as a share")
    parser.add_argument("--faults", type=int, default=0, help="crashes, restarts, pauses, partitions and the like")
    parser.add_argument("--sealed", action="store_true", help="everything under AES-GCM")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes to share the seeds among")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write what they add up to as JSON")
    options = vars(parser.parse_args(arguments))
    seeds, first, count, jobs, out = (options.pop(name) for name in ("campaign", "seed", "seeds", "jobs", "out"))
    runs = campaign(seeds, first=first) if seeds else [Run(seed=seed, **options) for seed in range(first, first + count)]
    return report(runs, jobs=min(jobs, len(runs)), singly=not seeds, out=out)


def attempt(run: Run) -> tuple[Run, Outcome | None, str]:
    """A run, how it ended, and what to say of it."""
    began_s = time.perf_counter()
    try:
        outcome = carry_out(run)
    except RunFailed as failure:
        return run, None, str(failure)
    took_s = time.perf_counter() - began_s
    noticed = outcome.noticed_s
    crashes = f", crashes noticed after {noticed[len(noticed) // 2]:.2f} s (median) to {noticed[-1]:.2f} s" if noticed else ""
    words = f"seed {run.seed}: {outcome.packets} packets in {took_s:.2f} s, fingerprint {outcome.fingerprint:08x}{crashes}"
    return run, outcome, words


def collect_seldom() -> None:
    """A run makes millions of short-lived values and no cycles to speak of: looking for them takes a tenth of the time."""
    gc.set_threshold(GARBAGE_THRESHOLD)


def attempts(runs: Sequence[Run], *, jobs: int) -> Iterator[tuple[Run, Outcome | None, str]]:
    if jobs <= 1:
        collect_seldom()
        yield from map(attempt, runs)
        return
    with ProcessPoolExecutor(jobs, initializer=collect_seldom) as pool:
        yield from pool.map(attempt, runs, chunksize=CHUNK)


def report(runs: Sequence[Run], *, jobs: int, singly: bool, out: Path | None) -> int:
    """Print what failed, and of single runs also what did not; then the sum. The exit status."""
    began_s = time.perf_counter()
    summary = Summary()
    for run, outcome, words in attempts(runs, jobs=jobs):
        summary.add(run, outcome, words)
        if outcome is None:
            sys.stderr.write(f"{words}\n")
        elif singly:
            sys.stdout.write(f"{words}\n")
    seconds = time.perf_counter() - began_s
    if out is not None:
        out.write_text(json.dumps(summary.figures(seconds=seconds), indent=1) + "\n")
    if not singly or len(runs) > 1:
        sys.stdout.writelines(f"{line}\n" for line in summary.lines(seconds=seconds))
    return 1 if summary.violations else 0


if __name__ == "__main__":
    sys.exit(main())

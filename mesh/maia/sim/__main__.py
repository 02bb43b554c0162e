"""`python -m maia.sim`: replay one seed, or search many for one that breaks."""

from __future__ import annotations

import argparse
import sys
import time

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
    options = vars(parser.parse_args(arguments))
    first, count = options.pop("seed"), options.pop("seeds")
    for seed in range(first, first + count):
        run = Run(seed=seed, **options)
        began_s = time.perf_counter()
        try:
            outcome = carry_out(run)
        except RunFailed as failure:
            sys.stderr.write(f"{failure}\n")
            return 1
        took_s = time.perf_counter() - began_s
        noticed = outcome.noticed_s
        crashes = f", crashes noticed after {noticed[len(noticed) // 2]:.2f} s (median) to {noticed[-1]:.2f} s" if noticed else ""
        sys.stdout.write(f"seed {seed}: {outcome.packets} packets in {took_s:.2f} s, fingerprint {outcome.fingerprint:08x}{crashes}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

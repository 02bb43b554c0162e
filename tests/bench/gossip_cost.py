"""What gossip costs a node among a hundred: G10 of the goals.

One bare `MeshDriver` in a process of its own; its 99 peers are the same driver, all in another process (`tests.bench.village`), each on an
address and sockets of its own. CPU is that of the whole process that is measured, by its own clock, in windows that follow each other: in
the clear, sealed, and sealed while offers change all over the cluster.

    python -m tests.bench.gossip_cost [--full] [--out FILE]         exits 1 when the goal is missed
    python -m tests.bench.gossip_cost --profile quiet          where the time goes instead
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.cluster import PORT, Cluster, cluster, ours, sealed
from tests.bench.facts import facts, in_one_line, write_raw
from tests.bench.hotspots import hotspots
from tests.bench.network import enter_own_network
from tests.bench.ratios import Goal, Verdict, spread
from tests.rig.nodes import ROOT
from tests.rig.server_process import end

PEERS = 99
# Every change costs each of the hundred a signature to check: at the 20 a second that their bytes allow, the process of the 99 would need a
# fifth of a core for that alone, fall behind, and be suspected by the one that is measured.
CHANGES_PER_SECOND = 5
COMPLETE_S = 120.0
SETTLE_S = 3.0  # rumours of a mass join, and the first round of probes
G10 = "CPU of the process of one driver among a hundred, % of a core"


@dataclass(frozen=True, slots=True)
class Company:
    """How the peers behave."""

    name: str
    sealed: bool
    changes_per_second: int


COMPANIES = (Company("quiet", False, 0), Company("quiet, sealed", True, 0), Company("changing, sealed", True, CHANGES_PER_SECOND))
JUDGED = ("quiet", "quiet, sealed")


@dataclass(frozen=True, slots=True)
class Window:
    cpu_percent: float  # of one core
    datagrams_in_per_s: float
    datagrams_out_per_s: float
    suspicions: int  # a run in which peers are suspected measures a machine that is too small for it


@contextlib.asynccontextmanager
async def village(company: Company) -> AsyncIterator[Process]:
    options = ["--members", str(PEERS), "--join", f"127.0.1.1:{PORT}", "--changes-per-second", str(company.changes_per_second)]
    sealing = ["--sealed"] if company.sealed else []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.village", *options, *sealing, cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(COMPLETE_S):
            if (await process.stdout.readline()).strip() != b"complete":
                raise RuntimeError("the village ended before it was complete; its complaint is on stderr above")
        yield process
    finally:
        await end(process)


@contextlib.asynccontextmanager
async def among(company: Company) -> AsyncIterator[Cluster]:
    """The one that is measured, in company."""
    side = ours("lan-fast")
    async with cluster(sealed(side) if company.sealed else side, number=1, size=1) as one, village(company):
        await asyncio.sleep(SETTLE_S)
        yield one


async def windows(one: Cluster, *, rounds: int, seconds: float) -> list[Window]:
    found: list[Window] = []
    loop = asyncio.get_running_loop()
    before, before_s = await one.figures("n1"), loop.time()
    for _ in range(rounds):
        await asyncio.sleep(seconds)
        after, after_s = await one.figures("n1"), loop.time()
        took_s, then, now = after_s - before_s, before["counters"], after["counters"]
        found.append(
            Window(
                cpu_percent=100 * (after["cpu_s"] - before["cpu_s"]) / took_s,
                datagrams_in_per_s=(now["datagrams_in"] - then["datagrams_in"]) / took_s,
                datagrams_out_per_s=(sum(now["datagrams_out"].values()) - sum(then["datagrams_out"].values())) / took_s,
                suspicions=now["suspicions"] - then["suspicions"],
            )
        )
        before, before_s = after, after_s
    return found


def verdicts(found: Mapping[str, Sequence[Window]]) -> list[Verdict]:
    return [
        Verdict(
            goal=Goal(name="G10", what=f"{G10}, {name}", at_most=1),
            ratio=spread([window.cpu_percent for window in each]),
            failures=sum(window.suspicions for window in each),
        )
        for name, each in found.items()
        if name in JUDGED
    ]


def table(found: Mapping[str, Sequence[Window]]) -> str:
    lines = [f"{'company':<20}{'CPU %':>22}{'datagrams in/s':>16}{'out/s':>8}{'suspicions':>12}"]
    for name, each in found.items():
        cpu = spread([window.cpu_percent for window in each])
        into, out = (
            statistics.median(numbers) for numbers in zip(*((w.datagrams_in_per_s, w.datagrams_out_per_s) for w in each), strict=True)
        )
        lines.append(f"{name:<20}{format(cpu, '.3f') if cpu else '':>22}{into:>16.1f}{out:>8.1f}{sum(w.suspicions for w in each):>12}")
    return "\n".join(lines)


async def measure(arguments: argparse.Namespace) -> int:
    standing = facts()
    print(in_one_line(standing))
    print(f"{arguments.rounds} windows of {arguments.seconds:g} s for each company of {PEERS}. Medians (and quartiles)\n", flush=True)
    found = {}
    for company in COMPANIES:
        async with among(company) as one:
            found[company.name] = await windows(one, rounds=arguments.rounds, seconds=arguments.seconds)
    judged = verdicts(found)
    print(table(found), *judged, sep="\n")
    raw = {name: [asdict(window) for window in each] for name, each in found.items()}
    parameters = {"rounds": arguments.rounds, "seconds": arguments.seconds, "peers": PEERS, "changes_per_second": CHANGES_PER_SECOND}
    write_raw(
        arguments.out,
        {"bench": "gossip_cost", **standing, "parameters": parameters, "verdicts": [each.as_json() for each in judged], "windows": raw},
    )
    return 0 if all(each.met for each in judged) else 1


async def profile(arguments: argparse.Namespace) -> int:
    company = next(company for company in COMPANIES if company.name == arguments.profile)
    async with among(company) as one:
        print(await hotspots(one.members["n1"].pid, seconds=arguments.profile_seconds))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="windows for each company")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a window")
    parser.add_argument("--full", action="store_true", help="6 windows of 20 s")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "gossip_cost.json", help="where the raw numbers go")
    parser.add_argument("--profile", choices=[company.name for company in COMPANIES], help="watch the process instead of measuring")
    parser.add_argument("--profile-seconds", type=float, default=30.0)
    given = parser.parse_args()
    if given.full:
        given.rounds, given.seconds = 6, 20.0
    enter_own_network()
    sys.exit(asyncio.run(profile(given) if given.profile else measure(given)))

"""What the mesh promises at three nodes and at a thousand: deaths known, changes known, bytes sent, and nobody given up by mistake.

    python -m tests.bench.gossip_scale [--sizes 3 10 100] [--profiles lan-fast] [--quick] [--jobs 2] [--out FILE] [--plots docs/plots]
    python -m tests.bench.gossip_scale --read FILE… [--plots docs/plots]      the tables and curves of earlier runs together

The shipped `Mesh` and codec in virtual time, under 2 % loss, which streams suffer as TCP's timeouts. Prints each table beside its goals and
exits 1 where one is missed. Other work on the machine changes how long this takes, and no figure.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from tests.bench.facts import facts, in_one_line, write_raw
from tests.bench.gossip_trials import SKIES, Changes, Crashes, Patience, Reading, Sky, Traffic, Trial, carry_out

SIZES = (3, 10, 20, 50, 100, 200, 500, 1000)
PROFILE_NAMES = ("lan-fast", "lan")
PATIENT_SIZES = (3, 10)
PATIENCE_S = 600.0

# By size: worlds, and crashes in each, so that a tenth of the mesh dies at most where ten nodes and more are left.
CRASHES = {3: (300, 1), 10: (200, 1), 20: (100, 2), 50: (40, 5), 100: (20, 10), 200: (10, 10), 500: (5, 10), 1000: (4, 10)}
CHANGES = {3: (6, 50), 10: (10, 100), 20: (4, 100), 50: (4, 50), 100: (4, 50), 200: (2, 25), 500: (1, 20), 1000: (1, 10)}
IDLE_S = {3: 120.0, 10: 120.0, 20: 120.0, 50: 60.0, 100: 60.0, 200: 30.0, 500: 20.0, 1000: 20.0}
BUSY_S = {10: 60.0, 100: 30.0, 1000: 5.0}

# Of the goals. Acks, refutations and streams are outside the cap.
IDLE_KBIT = {10: 12.0, 100: 16.0, 1000: 32.0}
CHANGES_PER_S = {10: 5.0, 100: 20.0, 1000: 40.0}
CAP_KBIT = {10: 24.0, 100: 64.0, 1000: 128.0}
DETECTION_SIZE, DETECTION_P50_S, DETECTION_P99_S = 100, 1.5, 3.0
KNOWN_SIZE, KNOWN_P99_S = 10, 0.5


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure beside its goal."""

    goal: str
    what: str
    figure: float
    at_most: float
    unit: str

    @property
    def met(self) -> bool:
        return self.figure <= self.at_most

    def __str__(self) -> str:
        return f"| {self.goal} | {self.what} | {self.figure:.2f} {self.unit} | ≤ {self.at_most:g} | {'met' if self.met else 'MISSED'} |"


Results = Sequence[tuple[Trial, Reading]]


def plan(sizes: Sequence[int], *, profiles: Sequence[str] = PROFILE_NAMES, share: float = 1.0) -> list[Trial]:
    """Everything to carry out, the longest first, so that two processes end together; `share` of the worlds, at least one of each."""
    trials: list[Trial] = []
    for profile in profiles:
        for nodes in sorted(sizes, reverse=True):
            worlds, each = CRASHES[nodes]
            trials += [Crashes(profile=profile, nodes=nodes, seed=seed, crashes=each) for seed in _seeds(worlds, share)]
            worlds, each = CHANGES[nodes]
            trials += [Changes(profile=profile, nodes=nodes, seed=seed, changes=each) for seed in _seeds(worlds, share)]
            trials.append(Traffic(profile=profile, nodes=nodes, seed=1, seconds=IDLE_S[nodes]))
            if nodes in BUSY_S:
                trials.append(Traffic(profile=profile, nodes=nodes, seed=1, seconds=BUSY_S[nodes], per_second=CHANGES_PER_S[nodes]))
            if nodes in PATIENT_SIZES:
                worlds = 180 // nodes
                trials += [
                    Patience(profile=profile, nodes=nodes, seed=seed, seconds=PATIENCE_S, sky=sky)
                    for sky in SKIES
                    for seed in _seeds(worlds, share)
                ]
    return trials


def _seeds(worlds: int, share: float) -> range:
    return range(1, max(1, round(worlds * share)) + 1)


# --- what the readings say together -----------------------------------------------------------------------------------------------------


def percentile(numbers: Sequence[float], share: float) -> float:
    """The nearest rank; not a number of none."""
    if not numbers:
        return float("nan")
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def of(results: Results, wanted: Callable[[Trial], bool]) -> list[Reading]:
    return [reading for trial, reading in results if wanted(trial)]


def crashed(results: Results, profile: str, nodes: int) -> list[Reading]:
    return of(results, lambda trial: isinstance(trial, Crashes) and (trial.profile, trial.nodes) == (profile, nodes))


def changed(results: Results, profile: str, nodes: int) -> list[Reading]:
    return of(results, lambda trial: isinstance(trial, Changes) and (trial.profile, trial.nodes) == (profile, nodes))


def sent(results: Results, profile: str, nodes: int, *, busy: bool) -> Reading | None:
    found = of(
        results,
        lambda trial: isinstance(trial, Traffic) and (trial.profile, trial.nodes, trial.per_second > 0) == (profile, nodes, busy),
    )
    return found[0] if found else None


def spared(results: Results, profile: str, nodes: int, sky: Sky) -> list[Reading]:
    return of(results, lambda trial: isinstance(trial, Patience) and (trial.profile, trial.nodes, trial.sky) == (profile, nodes, sky))


def kbit(bytes_per_s: float) -> float:
    return bytes_per_s * 8 / 1000


def datagrams_kbit(reading: Reading) -> float:
    return kbit(sum(reading.bytes_out.values()))


def capped_kbit(reading: Reading) -> float:
    """What the cap is for: no acks, no refutations, no streams."""
    return kbit(sum(count for kind, count in reading.bytes_out.items() if kind not in ("ack", "alive")))


def together(readings: Sequence[Reading], times: Callable[[Reading], list[float]]) -> list[float]:
    return [each for reading in readings for each in times(reading)]


def findings(results: Results) -> list[Finding]:
    """Each goal for which something was measured. A deed that somebody never learned of misses its goal, whatever the others took."""
    found: list[Finding] = []
    readings = crashed(results, "lan-fast", DETECTION_SIZE)
    if readings:
        last_s, never = together(readings, lambda reading: reading.last_s), sum(reading.missed for reading in readings)
        last_s += [float("inf")] * never
        what = f"a crash is known to the last of {DETECTION_SIZE},"
        found.append(Finding("G8", f"{what} p50", percentile(last_s, 0.5), DETECTION_P50_S, "s"))
        found.append(Finding("G8", f"{what} p99", percentile(last_s, 0.99), DETECTION_P99_S, "s"))
    for sky in ("loss", "loss and one starved"):
        for nodes in PATIENT_SIZES:
            fast, slow = spared(results, "lan-fast", nodes, sky), spared(results, "lan", nodes, sky)
            if fast and slow:
                what = f"false deaths per node-hour among {nodes}, {sky}, no more than with `lan`"
                found.append(Finding("G8", what, deaths_per_hour(fast), deaths_per_hour(slow), "per hour"))
    for nodes, goal in IDLE_KBIT.items():
        idle = sent(results, "lan-fast", nodes, busy=False)
        if idle is not None:
            whole = datagrams_kbit(idle) + kbit(idle.stream_bytes_out)
            found.append(Finding("G9", f"out per node, idle, among {nodes}, exchanges included", whole, goal, "kbit/s"))
    for nodes, goal in CAP_KBIT.items():
        busy = sent(results, "lan-fast", nodes, busy=True)
        if busy is not None:
            what = f"out per node under the cap, {CHANGES_PER_S[nodes]:g} changes/s among {nodes}"
            found.append(Finding("G9", what, capped_kbit(busy), goal, "kbit/s"))
    readings = changed(results, "lan-fast", KNOWN_SIZE)
    if readings:
        known_s = together(readings, lambda reading: reading.last_s) + [float("inf")] * sum(reading.missed for reading in readings)
        found.append(Finding("G11", f"a change is known to the last of {KNOWN_SIZE}, p99", percentile(known_s, 0.99), KNOWN_P99_S, "s"))
    return found


def deaths_per_hour(readings: Sequence[Reading]) -> float:
    return sum(reading.deaths for reading in readings) / sum(reading.node_hours for reading in readings)


# --- tables -----------------------------------------------------------------------------------------------------------------------------


def tables(results: Results) -> str:
    sizes = sorted({trial.nodes: None for trial, _ in results})
    lines = ["### Goals", "", "| goal | what | figure | limit | |", "|---|---|---|---|---|", *map(str, findings(results)), ""]
    lines += ["### A crash is known", "", "From the crash to the first and to the last survivor's verdict, seconds.", ""]
    lines += ["| profile | nodes | crashes | first p50 | first p99 | last p50 | last p99 | not by all | others given up |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for profile in PROFILE_NAMES:
        for nodes in sizes:
            readings = crashed(results, profile, nodes)
            if readings:
                first_s = together(readings, lambda reading: reading.first_s)
                last_s = together(readings, lambda reading: reading.last_s)
                times = " | ".join(f"{percentile(each, share):.2f}" for each in (first_s, last_s) for share in (0.5, 0.99))
                missed, deaths = sum(each.missed for each in readings), sum(each.deaths for each in readings)
                lines.append(f"| `{profile}` | {nodes} | {len(last_s) + missed} | {times} | {missed} | {deaths} |")
    lines += ["", "### A change of an offer is known", "", "To the last node, seconds.", ""]
    lines += ["| profile | nodes | changes | p50 | p99 | longest |", "|---|---|---|---|---|---|"]
    for profile in PROFILE_NAMES:
        for nodes in sizes:
            readings = changed(results, profile, nodes)
            last_s = together(readings, lambda reading: reading.last_s)
            if readings:
                times = " | ".join(f"{percentile(last_s, share):.3f}" for share in (0.5, 0.99, 1.0))
                lines.append(f"| `{profile}` | {nodes} | {len(last_s)} | {times} |")
    lines += ["", "### What a node sends", "", "kbit/s on average, 28 bytes of headers on each datagram; streams without headers.", ""]
    lines += [
        "| profile | nodes | changes/s | pings | acks | asking others | offers | datagrams together | streams | busiest node, a second |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    for trial, reading in sorted(results, key=lambda result: (PROFILE_NAMES.index(result[0].profile), result[0].nodes)):
        if isinstance(trial, Traffic):
            out = {kind: kbit(count) for kind, count in reading.bytes_out.items()}
            asking = out.get("indirect-ping", 0.0) + out.get("nack", 0.0)
            kinds = " | ".join(f"{each:.1f}" for each in (out.get("ping", 0.0), out.get("ack", 0.0), asking, out.get("offers", 0.0)))
            whole = f"{datagrams_kbit(reading):.1f} | {kbit(reading.stream_bytes_out):.1f} | {kbit(reading.busiest_bytes):.0f}"
            lines.append(f"| `{trial.profile}` | {trial.nodes} | {trial.per_second:g} | {kinds} | {whole} |")
    lines += ["", "### Nobody is given up by mistake", "", "Of a life that was given up, however many judged so.", ""]
    lines += ["| profile | nodes | sky | node-hours | suspicions | false deaths | per node-hour |", "|---|---|---|---|---|---|---|"]
    for profile in PROFILE_NAMES:
        for nodes in PATIENT_SIZES:
            for sky, what in SKIES.items():
                readings = spared(results, profile, nodes, sky)
                if readings:
                    hours, deaths = sum(each.node_hours for each in readings), sum(each.deaths for each in readings)
                    rate = f"{deaths / hours:.3f}" if deaths else f"0 (95 %: < {3 / hours:.2f})"  # the rule of three
                    suspicions = sum(each.suspicions for each in readings)
                    lines.append(f"| `{profile}` | {nodes} | {what} | {hours:.1f} | {suspicions} | {deaths} | {rate} |")
    return "\n".join(lines) + "\n"


def measure(options: argparse.Namespace) -> Results:
    document, began_s = facts(), time.perf_counter()
    print(in_one_line(document))
    trials = plan(options.sizes, profiles=options.profiles, share=0.1 if options.quick else options.share)
    with ProcessPoolExecutor(options.jobs) as pool:
        results = list(zip(trials, pool.map(carry_out, trials), strict=True))
    packets, took_s = sum(reading.packets for _, reading in results), sum(reading.boot_s + reading.ran_s for _, reading in results)
    print(f"{len(trials)} worlds, {packets} packets in {time.perf_counter() - began_s:.0f} s ({took_s / packets * 1e6:.0f} µs a packet)")
    if options.out:
        write_raw(options.out, document | {"worlds": [[type(trial).__name__, asdict(trial), asdict(each)] for trial, each in results]})
    return results


def read(paths: Sequence[Path]) -> Results:
    """What runs wrote, together."""
    kinds: dict[str, Callable[..., Trial]] = {kind.__name__: kind for kind in (Crashes, Changes, Traffic, Patience)}
    worlds = [world for path in paths for world in orjson.loads(path.read_bytes())["worlds"]]
    return [(kinds[kind](**trial), Reading(**reading)) for kind, trial, reading in worlds]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=SIZES, metavar="N", help=f"of {', '.join(map(str, SIZES))}")
    parser.add_argument("--profiles", nargs="+", choices=PROFILE_NAMES, default=PROFILE_NAMES)
    parser.add_argument("--quick", action="store_true", help="a tenth of the worlds")
    parser.add_argument("--share", type=float, default=1.0, help="of the worlds, at least one of each")
    parser.add_argument("--jobs", type=int, default=2, help="processes to share the worlds among")
    parser.add_argument("--out", type=Path, help="where the raw numbers go")
    parser.add_argument("--read", type=Path, nargs="+", help="what earlier runs wrote with --out, instead of a run")
    parser.add_argument("--plots", type=Path, help="the folder that the curves are drawn into")
    options = parser.parse_args(arguments)
    results = read(options.read) if options.read else measure(options)
    print(tables(results))
    if options.plots:
        from tests.bench.gossip_plots import draw

        draw(results, options.plots)
    missed = [finding for finding in findings(results) if not finding.met]
    for finding in missed:
        print(f"MISSED {finding.goal}: {finding.what}: {finding.figure:.2f} {finding.unit}, goal ≤ {finding.at_most:g}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

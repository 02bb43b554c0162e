"""Many runs, each with the weather and the faults of its seed, and what they add up to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from maia.sim.run import Outcome, Run

NODES: Final = 25
SECONDS: Final = 60.0
FAST_SHARE: Final = 5  # one run of `lan-fast` for so many of `lan`: it sends three times as much in the same time
RARE_SHARE: Final = 0.05  # of the seeds: sealed, and as many with compression, each of which costs time
FAULTS_MAX: Final = 12


def campaign(seeds: int, *, first: int = 1) -> list[Run]:
    """`seeds` runs of `lan`, and a fifth as many of `lan-fast`."""
    fast = math.ceil(seeds / FAST_SHARE)
    return [run_of(seed, profile="lan") for seed in range(first, first + seeds)] + [
        run_of(seed, profile="lan-fast") for seed in range(first, first + fast)
    ]


def run_of(seed: int, *, profile: str) -> Run:
    """The run of a seed: fair weather in one of four, faults in nine of ten."""
    random = Random(f"campaign {profile} {seed}")
    fair = random.random() < 0.25
    return Run(
        seed=seed,
        nodes=NODES,
        seconds=SECONDS,
        profile=profile,
        loss=0.0 if fair else random.choice((0.01, 0.02, 0.05, 0.1)),
        duplication=0.0 if fair else random.choice((0.0, 0.01, 0.05)),
        reordering=0.0 if fair else random.choice((0.0, 0.05, 0.2)),
        compression=0.1 if random.random() < RARE_SHARE else 0.0,
        drift=random.choice((0.0, 0.0001, 0.01)),
        faults=0 if random.random() < 0.1 else 1 + random.randrange(FAULTS_MAX),
        sealed=random.random() < RARE_SHARE,
    )


@dataclass(slots=True)
class Summary:
    """What a campaign adds up to, by profile."""

    runs: dict[str, int] = field(default_factory=dict)
    packets: dict[str, int] = field(default_factory=dict)
    noticed_s: dict[str, list[float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def add(self, run: Run, outcome: Outcome | None, words: str) -> None:
        """One run; `words` say what went wrong where there is no outcome."""
        self.runs[run.profile] = self.runs.get(run.profile, 0) + 1
        if outcome is None:
            self.violations.append(words)
            return
        self.packets[run.profile] = self.packets.get(run.profile, 0) + outcome.packets
        self.noticed_s.setdefault(run.profile, []).extend(outcome.noticed_s)

    def lines(self, *, seconds: float) -> Iterable[str]:
        for profile, runs in self.runs.items():
            noticed_s = sorted(self.noticed_s.get(profile, ()))
            crashes = (
                f"; crashes noticed after {quantile(noticed_s, 0.5):.2f} s (p50), {quantile(noticed_s, 0.99):.2f} s (p99)"
                if noticed_s
                else ""
            )
            yield f"{profile}: {runs} seeds, {self.packets.get(profile, 0)} packets{crashes}"
        packets = sum(self.packets.values())
        yield f"{packets} packets in {seconds:.0f} s of wall time; {len(self.violations)} violations"

    def figures(self, *, seconds: float) -> dict[str, object]:
        """The same for a file."""
        return {
            "seconds": round(seconds, 1),
            "runs": self.runs,
            "packets": self.packets,
            "noticed_s": {
                profile: {"count": len(noticed), "p50": quantile(sorted(noticed), 0.5), "p99": quantile(sorted(noticed), 0.99)}
                for profile, noticed in self.noticed_s.items()
                if noticed
            },
            "violations": self.violations,
        }


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

"""Everything at full length: one JSON file for each part in docs/proof/, with the commit, the machine and the figures.

`python -m tests.proof [PART ...]`; without a part all of them, one after the other, since two cores measure nothing while something
else runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.bench.facts import facts
from tests.rig.eventually import FIGURES
from tests.rig.server_process import ROOT

OUT = ROOT / "docs" / "proof"
SCENARIO_SEEDS = "150"
CAMPAIGN_SEEDS = 1000
CAMPAIGN_SECONDS_MAX = 300  # on two cores
FUZZ_DATAGRAMS = os.environ.get("FUZZ_DATAGRAMS", "10000000")


def pytest_part(*arguments: str, **environment: str) -> Callable[[Path], tuple[int, dict[str, Any]]]:
    """A run of tests; its figures are the counts, and every wait beside its goal."""

    def run(scratch: Path) -> tuple[int, dict[str, Any]]:
        report, waits = scratch / "report.xml", scratch / "waits.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *arguments]
        code = subprocess.run(command, cwd=ROOT, env={**os.environ, FIGURES: str(waits), **environment}, check=False).returncode
        suite = ET.parse(report).getroot().find("testsuite")
        counts = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")} if suite is not None else {}
        waited = [json.loads(line) for line in waits.read_text().splitlines()] if waits.exists() else []
        return code, {"counts": counts, "waits": waited}

    return run


def bench_part(module: str, *arguments: str) -> Callable[[Path], tuple[int, dict[str, Any]]]:
    """A benchmark; its figures are its raw numbers."""

    def run(scratch: Path) -> tuple[int, dict[str, Any]]:
        out = scratch / "raw.json"
        command = [sys.executable, "-m", f"tests.bench.{module}", *arguments, "--out", str(out)]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        return code, json.loads(out.read_text()) if out.exists() else {}

    return run


def campaign_part(scratch: Path) -> tuple[int, dict[str, Any]]:
    """A thousand simulated meshes; its figures are what they add up to, and it fails when they take too long."""
    out = scratch / "campaign.json"
    command = [sys.executable, "-m", "maia.sim", "--campaign", str(CAMPAIGN_SEEDS), "--jobs", "2", "--out", str(out)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    figures: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    return code or int(figures.get("seconds", CAMPAIGN_SECONDS_MAX) >= CAMPAIGN_SECONDS_MAX), figures


def fuzz_part(scratch: Path) -> tuple[int, dict[str, Any]]:
    out = scratch / "fuzz.json"
    command = [sys.executable, "-m", "tests.maia.fuzzing", "--datagrams", FUZZ_DATAGRAMS, "--out", str(out)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    return code, json.loads(out.read_text()) if out.exists() else {}


def mutants_part(scratch: Path) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([sys.executable, "tests/mutants/run.py"], cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    return done.returncode, {"table": done.stdout.splitlines()}


PARTS: Mapping[str, Callable[[Path], tuple[int, dict[str, Any]]]] = {
    "fast": pytest_part("-m", "not engine and not processes and not interop", "--ignore=tests/simulation"),
    "simulation": campaign_part,
    "scenarios": pytest_part("tests/simulation", "--timeout=1800", SEEDS=SCENARIO_SEEDS),
    "engine": pytest_part("-m", "engine and not processes", PATTERN_ROUNDS="6"),
    "cluster": pytest_part("-m", "processes", FAULTS_SECONDS="60"),
    "interop": pytest_part("-m", "interop", INTEROP_SECONDS="60"),
    "fuzz": fuzz_part,
    "overhead": bench_part("overhead"),
    "detection": bench_part("detection", "--full"),
    "departures": bench_part("departures", "--full"),
    "arrivals": bench_part("arrivals", "--full"),
    "gossip_cost": bench_part("gossip_cost", "--full"),
    "mutants": mutants_part,
}


def main() -> int:
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    verdicts: dict[str, int] = {}
    for name in wanted:
        print(f"--- proof: {name}", flush=True)
        known, began = facts(), time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            code, figures = PARTS[name](Path(scratch))
        verdicts[name] = code
        document = {**known, "part": name, "passed": code == 0, "seconds": round(time.monotonic() - began, 1), "figures": figures}
        (OUT / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    for name, code in verdicts.items():
        print(f"{name:<12} {'passed' if code == 0 else 'FAILED'}  docs/proof/{name}.json")
    return 1 if any(verdicts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

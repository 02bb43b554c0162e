"""The demo as a whole: three processes, a question to the one without a model, and nothing left behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.engine, pytest.mark.processes]

MODELS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astromesh" / "models"
COMMAND = (sys.executable, "-m", "astromesh.cli", "up", "--demo", "--models", str(MODELS))
SHOW_S = 100.0
END_S = 20.0


def gone(pids: list[int]) -> bool:
    """Whether none of them runs; waits for it, boundedly."""
    deadline = time.monotonic() + END_S
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def nodes_and_workers(process: subprocess.Popen[str]) -> list[int]:
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


def until_asking(process: subprocess.Popen[str]) -> list[int]:
    """Reads up to the question; the processes that run then."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Asking a"):
            return nodes_and_workers(process)
    raise AssertionError("the demo ended before its question")


def test_the_show_is_complete_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    shown = subprocess.run(COMMAND, capture_output=True, text=True, timeout=SHOW_S, env=environment, stdin=subprocess.DEVNULL)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"served by c · home a · \d+ tokens", shown.stdout)
    assert "→ poet on b goes on, handed over by host" in shown.stdout
    assert re.search(r"served by c · home a · host → poet on b · \d+ tokens", shown.stdout)
    assert re.search(r"→ (facts on b|examples on c)", shown.stdout)
    swarm, supervisor = re.findall(r"one trace, \d+ acts on (.*): astromesh-node trace", shown.stdout)
    found = re.search(r"processes: a (\d+), b (\d+), c (\d+)", shown.stdout)
    assert found is not None
    processes = {name: f"{name} (process {pid})" for name, pid in zip("abc", found.groups(), strict=True)}
    assert swarm == ", ".join(processes.values())
    assert {processes["a"], processes["c"]} <= set(supervisor.split(", ")) <= set(processes.values())
    assert gone([int(pid) for pid in found.groups()])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_however_the_show_is_ended_its_processes_end_with_it(tmp_path: Path, how: signal.Signals) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        running = until_asking(process)
        assert len(running) >= 4, "three nodes and the worker of c"
        process.send_signal(how)
        process.communicate(timeout=END_S)
        assert gone(running)
    finally:
        process.kill()
    assert process.returncode == (-how if how == signal.SIGKILL else 128 + how)
    if how != signal.SIGKILL:  # nobody is left to remove its folder
        assert list(tmp_path.iterdir()) == []

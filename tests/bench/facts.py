"""What has to stand beside a number for it to mean something later: the code, the machine, the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psutil
from tests.rig.server_process import ROOT

PACKAGES = ("aiohttp", "msgpack", "orjson", "pydantic", "uvloop")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def facts() -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "uncommitted": _git("status", "--porcelain").splitlines(),
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "cpu": _cpu_model(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "load_before": os.getloadavg(),
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}},
    }


def write_raw(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS))
    print(f"raw numbers: {path}")


def in_one_line(document: dict[str, Any]) -> str:
    machine, versions = document["machine"], document["versions"]
    dirty = f" and {len(document['uncommitted'])} uncommitted files" if document["uncommitted"] else ""
    installed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    load = "/".join(f"{each:.2f}" for each in machine["load_before"])
    # At a load of 6 on two cores the quartiles of one ratio were 1.3 and 11; at 1.5 they were 1.3 and 1.7.
    busy = "\nBUSY: others use this machine; what follows is noise" if machine["load_before"][0] > machine["cores"] else ""
    return f"commit {document['commit'][:12]}{dirty}; {machine['cores']} × {machine['cpu']}, load {load}; {installed}{busy}"

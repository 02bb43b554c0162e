#!/usr/bin/env python3
"""Builds the llama.cpp engine once into a wheel for this CPU and keeps it outside the checkout.

llama-cpp-python comes as source and is compiled with `-march=native`: the wheel of one CPU dies with SIGILL on an older one. So the
cache is keyed by version, compiler, interpreter and the CPU's feature flags; another machine that shares the cache builds its own.

Prints the wheel's path on stdout and progress on stderr. Needs the standard library, pip, and a C++ compiler.
`--where` prints the path only if the wheel is there already, and exits 1 otherwise; nothing is built.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VERSION = "0.3.36"
EXPECTED_MINUTES = 5  # measured on two cores: 4 on quiet ones
LOG_LINES_ON_FAILURE = 25


def cpu_features() -> str:
    """The feature flags of this CPU, sorted; the machine's name where /proc/cpuinfo does not list any."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return " ".join(sorted(found.group(1).split())) if found else platform.machine()


def compiler() -> str | None:
    """The first line of the C++ compiler's version; None where there is no compiler."""
    name = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if not name:
        return None
    return subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def cache_folder(compiler_version: str) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astromesh" / "engines"
    flags = os.environ.get("CMAKE_ARGS", "")
    parts = (VERSION, compiler_version, platform.machine(), platform.python_version(), cpu_features(), flags)
    return root / f"llama-cpp-python-{VERSION}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def cached(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.whl"))), None)


def build(folder: Path) -> Path:
    """Compiles into a folder beside the cache and moves the finished wheel in by one rename, so that a cut build leaves nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    print(
        f"engine: compiling llama-cpp-python {VERSION} for this CPU, once: about {EXPECTED_MINUTES} minutes on two cores", file=sys.stderr
    )
    print(f"engine: the wheel will be kept in {folder}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as scratch:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-binary", "llama-cpp-python", "--wheel-dir", scratch, "-v"]
        process = subprocess.Popen(
            [*command, f"llama-cpp-python=={VERSION}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        assert process.stdout is not None
        lines: list[str] = []
        announced = 0.0
        for line in process.stdout:
            lines.append(line.rstrip())
            step = re.search(r"\[(\d+)/(\d+)\]", line)
            if step and time.monotonic() - announced > 15:
                announced = time.monotonic()
                print(f"engine: file {step.group(1)} of {step.group(2)}, {announced - started:.0f} s so far", file=sys.stderr, flush=True)
        if process.wait() != 0:
            print("\n".join(lines[-LOG_LINES_ON_FAILURE:]), file=sys.stderr)
            sys.exit("engine: the build failed (its last lines are above). Everything but provider `local` works without it.")
        wheel = next(Path(scratch).glob("*.whl"))
        folder.mkdir(exist_ok=True)
        target = folder / wheel.name
        os.replace(wheel, target)
    print(f"engine: built in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return target


def main() -> None:
    version = compiler()
    if version is None:
        remedy = "Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install"
        sys.exit(f"engine: no C++ compiler found. {remedy}")
    folder = cache_folder(version)
    wheel = cached(folder)
    if wheel is None:
        if "--where" in sys.argv[1:]:
            sys.exit(1)
        wheel = build(folder)
    print(wheel)


if __name__ == "__main__":
    main()

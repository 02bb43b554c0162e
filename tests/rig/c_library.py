"""Libraries of a few lines of C, so that what talks to a driver is tested without one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

RIG = Path(__file__).parent


def compiled(source: str, target: Path, *flags: str) -> Path:
    """A shared library of `source` in this folder. Its tests need a C compiler and say so."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.fail("there is no C compiler on this machine: apt-get install gcc", pytrace=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(target), *flags, str(RIG / source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return target

"""Compiles llama-cpp-python into a wheel for this machine, keeps it outside the checkout, and installs it beside this program."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

from astromesh.errors import AstromeshError
from astromesh.inference.backends.devices.machine import cpuinfo_text
from astromesh.inference.devices import read_flags
from astromesh.inference.engines import BACKENDS, PACKAGE, VERSION, Backend, BuildPlan, Machine, plan_build

LOG_LINES_KEPT = 40  # of a compiler's last words
TOOL_TIMEOUT_S = 20.0  # a compiler that does not tell its version in that time will not compile either
INSTALL_TIMEOUT_S = 600.0

Tell = Callable[[int, int], None]
"""Called with (files compiled, files in all), as often as there is news."""


class BuildFailed(AstromeshError):
    """The engine could not be built or installed; what was installed before is still there."""

    code = "engine_build_failed"
    definite = True


def this_machine() -> Machine:
    _, flags = read_flags(cpuinfo_text())
    return Machine(
        platform=sys.platform,
        machine=platform.machine(),
        python=platform.python_version(),
        flags=" ".join(sorted(flags)) or platform.machine(),
        compiler=_compiler(),
        nvcc=_tool("nvcc", os.environ.get("CUDACXX", ""), *_below("CUDA_HOME", "CUDA_PATH"), "/usr/local/cuda/bin/nvcc"),
        glslc=_tool("glslc", *(str(Path(root) / "bin" / "glslc") for root in _roots("VULKAN_SDK"))),
        vulkan_headers=_vulkan_headers(),
        xcrun=_tool("xcrun"),
        cmake_args=os.environ.get("CMAKE_ARGS", ""),
    )


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astromesh" / "engines"


def cached_wheel(plan: BuildPlan) -> Path | None:
    return next(iter(sorted((cache_root() / plan.folder).glob("*.whl"))), None)


def cached_wheels(machine: Machine) -> dict[Backend, Path]:
    """Of this machine, by backend: what need not be compiled again."""
    found = ((backend, cached_wheel(plan_build(backend, machine))) for backend in BACKENDS)
    return {backend: wheel for backend, wheel in found if wheel is not None}


def installed_engines() -> tuple[tuple[str, str], ...]:
    """Name and version of each engine, without importing any."""
    found: list[tuple[str, str]] = []
    for package, module in ((PACKAGE, "llama_cpp"), ("xllamacpp", "xllamacpp")):
        if importlib.util.find_spec(module) is None:
            continue
        try:
            found.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            found.append((package, "of unknown version"))
    return tuple(found)


def build(plan: BuildPlan, tell: Tell) -> Path:
    """The wheel, in the cache. Compiles beside it and moves the finished wheel in by one rename, so that a cut build leaves nothing.

    Raises `BuildFailed`.
    """
    folder = cache_root() / plan.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=LOG_LINES_KEPT)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as scratch:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-binary", PACKAGE, "--wheel-dir", scratch, "-v"]
        environment = {**os.environ, **dict(plan.environment)}
        # Its temporary files can be a gigabyte, and a small /tmp in memory is common; the cache's disk is meant for such.
        environment["TMPDIR"] = scratch
        with subprocess.Popen(
            [*command, f"{PACKAGE}=={VERSION}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    last.append(line.rstrip())
                    if (step := re.search(r"\[(\d+)/(\d+)\]", line)) is not None:
                        tell(int(step[1]), int(step[2]))
            except BaseException:
                process.terminate()
                raise
        if process.returncode != 0:
            said = "\n".join(last)
            raise BuildFailed(
                f"compiling {PACKAGE} {VERSION} failed. Its last words:\n{said}\n",
                hint="everything but models of this node's own works without it",
            )
        wheel = next(Path(scratch).glob("*.whl"))
        folder.mkdir(exist_ok=True)
        target = folder / wheel.name
        wheel.replace(target)
    return target


def install(wheel: Path) -> None:
    """Into the environment of this program; another build of the same version is replaced. Raises `BuildFailed`."""
    if importlib.util.find_spec("pip") is None:
        raise BuildFailed(f"there is no pip beside {sys.executable}", hint=f"install the wheel with what made this environment: {wheel}")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    # Twice: what it needs may have to come, and need not be replaced.
    for arguments in ((str(wheel),), ("--force-reinstall", "--no-deps", str(wheel))):
        try:
            done = subprocess.run((*pip, *arguments), capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise BuildFailed(f"pip did not install {wheel} within {INSTALL_TIMEOUT_S:g} s") from error
        if done.returncode != 0:
            raise BuildFailed(f"pip could not install {wheel}:\n{done.stderr.strip()}\n")


def _compiler() -> str:
    name = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if not name:
        return ""
    try:
        told = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(told.splitlines()), "")


def _tool(name: str, *places: str) -> str:
    """Its path: on PATH, or where it usually is."""
    return shutil.which(name) or next((place for place in places if place and os.access(place, os.X_OK)), "")


def _below(*variables: str) -> list[str]:
    return [str(Path(root) / "bin" / "nvcc") for root in _roots(*variables)]


def _roots(*variables: str) -> list[str]:
    return [root for variable in variables if (root := os.environ.get(variable))]


def _vulkan_headers() -> str:
    places = (*(Path(root) / "include" for root in _roots("VULKAN_SDK")), Path("/usr/include"), Path("/usr/local/include"))
    return next((str(place) for place in places if (place / "vulkan" / "vulkan.h").exists()), "")

"""Engines: what a build of llama.cpp can do on this machine, what would be built, and what is wrong with what is here. Pure.

llama-cpp-python comes as source and is compiled for the processor that it finds: the wheel of one dies with SIGILL on an older one. So a
cache of wheels is keyed by version, compiler, interpreter, the processor's flags and the options of the build.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from astromesh.inference.devices import Inventory, Processor

Backend = Literal["cpu", "cuda", "vulkan", "metal"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
# Measured on two cores for a processor: 4 minutes on quiet ones. Of the others only the order is known: kernels for cards are many.
EXPECTED: Mapping[Backend, str] = {
    "cpu": "about 5 minutes on two cores",
    "cuda": "half an hour and more on a small machine",
    "vulkan": "some ten minutes on a small machine",
    "metal": "about 5 minutes",
}
_OPTIONS: Mapping[Backend, str] = {"cpu": "", "cuda": "-DGGML_CUDA=on", "vulkan": "-DGGML_VULKAN=on", "metal": "-DGGML_METAL=on"}

# What the engine's own words for a processor's features are here, for those that are worth a new build.
_WORTH: Mapping[str, str] = {"avx2": "AVX2", "fma": "FMA", "avx512f": "AVX512", "avx512-bf16": "AVX512_BF16", "avx512-vnni": "AVX512_VNNI",
                             "neon": "NEON", "dotprod": "DOTPROD", "i8mm": "MATMUL_INT8", "sve": "SVE"}  # fmt: skip

HOW_TO_GET_ONE = (
    "pip install 'astromesh-node[local-prebuilt]' brings one in seconds; "
    "'astromesh-node engine install' compiles one for this machine in minutes, which does more and is faster"
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a build depends on. Of tools that are not there the path or version is empty."""

    platform: str  # as sys.platform has it
    machine: str  # x86_64, aarch64, arm64
    python: str
    flags: str  # of the processor, sorted
    compiler: str  # the first line of its version
    nvcc: str = ""
    glslc: str = ""
    vulkan_headers: str = ""
    xcrun: str = ""
    cmake_args: str = ""  # what the user has set


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """`missing`: what has to be installed first, and how. `folder`: the name of the cache's folder for this very build."""

    backend: Backend
    cmake_args: str
    folder: str
    environment: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "package": f"{PACKAGE}=={VERSION}",
            "backend": self.backend,
            "environment": dict(self.environment),
            "expected": EXPECTED[self.backend],
            "missing": list(self.missing),
        }


def plan_build(backend: Backend, machine: Machine) -> BuildPlan:
    options = _OPTIONS[backend]
    if backend == "cpu" and machine.platform == "darwin":
        options = "-DGGML_METAL=off"  # on by default there
    told = " ".join(part for part in (machine.cmake_args, options) if part)
    parts = (VERSION, machine.compiler, machine.machine, machine.python, machine.flags, told)
    environment: list[tuple[str, str]] = [("CMAKE_ARGS", told)] if told else []
    if backend == "cuda" and machine.nvcc:
        environment.append(("CUDACXX", machine.nvcc))
    return BuildPlan(
        backend=backend,
        cmake_args=told,
        folder=f"{PACKAGE}-{VERSION}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}",
        environment=tuple(environment),
        missing=tuple(_missing(backend, machine)),
    )


def _missing(backend: Backend, machine: Machine) -> Iterable[str]:
    if not machine.compiler:
        yield "a C++ compiler: Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install"
    if backend == "cuda" and not machine.nvcc:
        yield "the CUDA toolkit (nvcc): Debian, Ubuntu: apt-get install nvidia-cuda-toolkit; else from developer.nvidia.com/cuda-downloads"
    if backend == "vulkan" and not machine.glslc:
        yield "the shader compiler (glslc): Debian, Ubuntu: apt-get install glslc; Fedora: dnf install glslc; else the Vulkan SDK"
    if backend == "vulkan" and not machine.vulkan_headers:
        yield "Vulkan's headers: Debian, Ubuntu: apt-get install libvulkan-dev spirv-headers; Fedora: dnf install vulkan-devel"
    if backend == "metal" and machine.platform != "darwin":
        yield "macOS: Metal is Apple's, and there is none on this system"
    elif backend == "metal" and not machine.xcrun:
        yield "Apple's command line tools: xcode-select --install"


def best_backend(inventory: Inventory, *, platform: str) -> Backend:
    """For the cards that are here."""
    sources = {one.source for one in inventory.accelerators}
    if platform == "darwin":
        return "metal"
    return "cuda" if "nvidia" in sources else "vulkan" if "amd" in sources else "cpu"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What is installed, and what the build says of itself. `problem`: why it does not say anything."""

    packages: tuple[tuple[str, str], ...] = ()  # (name, version)
    backends: tuple[str, ...] = ()
    built_for: tuple[str, ...] = ()  # features of processors
    problem: str = ""

    @classmethod
    def of(cls, packages: Sequence[tuple[str, str]], report: Mapping[str, Any]) -> EngineFacts:
        """`report` as `backends.devices.engine` gives it."""
        backends = report.get("backends", ())
        names = tuple(name for name in backends if isinstance(name, str)) if isinstance(backends, list) else ()
        return cls(tuple(packages), names, built_for(str(report.get("system", ""))))


def built_for(system: str) -> tuple[str, ...]:
    """The features of processors out of what llama.cpp prints of its build: `CUDA : ARCHS = 890 | CPU : AVX2 = 1 | AVX512 = 0 |`."""
    features: list[str] = []
    backend = ""
    for part in system.split("|"):
        told = part.strip()
        if (head := re.match(r"([A-Za-z0-9_]+)\s*:\s*(.*)", told)) is not None:
            backend, told = head[1], head[2]
        if backend == "CPU" and (feature := re.fullmatch(r"([A-Z0-9_]+)\s*=\s*([0-9]+)", told)) is not None and feature[2] != "0":
            features.append(feature[1])
    return tuple(features)


def advice(facts: EngineFacts, inventory: Inventory, processor: Processor, *, platform: str) -> tuple[str, ...]:
    """What somebody should do, with the command."""
    if not facts.packages:
        return (f"no engine is installed, so this node runs no models itself: {HOW_TO_GET_ONE}",)
    found: list[str] = []
    if facts.problem:
        found.append(f"the engine does not answer: {facts.problem}. 'astromesh-node engine install' compiles it anew")
    usable = {one.id for one in inventory.usable}
    idle = [one for one in inventory.accelerators if one.id not in usable]
    others = set(facts.backends) - {"CPU", "BLAS", "RPC"}
    if idle and not others and not facts.problem:
        found.append(
            f"{idle[0].name} is not used: the engine is built for the processor alone. "
            f"'astromesh-node engine install --{best_backend(inventory, platform=platform)}' compiles one that uses it"
        )
    elif idle and not facts.problem and not usable:
        found.append(f"{idle[0].name} is not used, although the engine has {', '.join(sorted(others))}: is its driver the right one?")
    lacking = [feature for feature in processor.features if feature in _WORTH and _WORTH[feature] not in facts.built_for]
    if facts.built_for and lacking:
        found.append(
            f"the engine does without {', '.join(lacking)} of this processor: it was built to run anywhere. "
            "'astromesh-node engine install' compiles one that uses them"
        )
    return (*found, *inventory.troubles)


def status_document(
    facts: EngineFacts, inventory: Inventory, processor: Processor, *, cached: Mapping[Backend, str], platform: str
) -> dict[str, Any]:
    """What `engine status` shows, but for the models."""
    return {
        "installed": [{"name": name, "version": version} for name, version in facts.packages],
        "backends": list(facts.backends),
        "built_for": list(facts.built_for),
        "processor": {
            "name": processor.name,
            "cores": processor.cores,
            "threads": processor.threads,
            "features": list(processor.features),
        },
        "cached": dict(cached),
        "warnings": list(advice(facts, inventory, processor, platform=platform)),
    }

"""Which engine runs a model: the compiled one where it is installed, else the prebuilt one; and what to say where there is neither."""

from __future__ import annotations

from typing import Any, Literal

from astromesh.inference.port import ModelKind
from astromesh.runtime.builtins import lookup

Wish = Literal["auto", "llama_cpp", "xllamacpp"]
EngineName = Literal["llama_cpp", "xllamacpp", "onnx_runtime"]

# For GGUF models, the best first: the compiled one is made for this machine's processor, holds calls of tools to their schemas, and makes
# vectors. It can also go on with answers that broke off and hand conversations over, which the mesh does not ask of it yet.
BY_PREFERENCE: tuple[EngineName, ...] = ("llama_cpp", "xllamacpp")


def installed() -> tuple[EngineName, ...]:
    """Those for GGUF models that are there, the best first. Nothing of them is imported."""
    return tuple(name for name in BY_PREFERENCE if lookup("engine", name).installed())


def missing_for(kind: ModelKind) -> str:
    """Why this node runs no models of that kind, and what brings the engine; empty where it has one."""
    engine = engine_for(kind)
    return "" if engine.installed() else f"{engine.absent}: {engine.extra_hint}"


def engine_for(kind: ModelKind, *, wish: Wish = "auto") -> Any:
    """The class whose instances run such a model. One that was asked for by name is taken even where it would not start: it says so."""
    if kind == "onnx":
        return lookup("engine", "onnx_runtime")
    there = installed()
    return lookup("engine", wish if wish != "auto" else (there[0] if there else BY_PREFERENCE[-1]))

"""The store of this machine: its packages come by pip, everything else over HTTP."""

from __future__ import annotations

from pathlib import Path

from astromesh.inference.backends.packages import PythonPackages
from astromesh.inference.port import RemoteSource
from astromesh.inference.store import ModelStore


def open_store(root: Path) -> ModelStore:
    """`root` absolute, because its manifests outlive the working directory."""
    return ModelStore(root.absolute(), packages=PythonPackages(), remote=_web)


def _web() -> RemoteSource:
    from astromesh.inference.backends.hub import WebFiles

    return WebFiles()

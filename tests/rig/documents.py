"""The files of a node under test, as values: file name to document, written below a directory before the node starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

# File name below the configuration's directory → the document, or its text as it is.
Documents = Mapping[str, Mapping[str, Any] | str]


def write_documents(directory: Path, documents: Documents) -> None:
    for name, document in documents.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")


def _envelope(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "astromesh/v1", "kind": kind, "metadata": {"name": name, "version": "1.0.0"}, "spec": dict(spec)}


def runtime(**spec: Any) -> Documents:
    """`runtime.yaml`. mDNS is off: a mesh under test must not meet the neighbour's."""
    spec.setdefault("mesh", {"enabled": True, "mdns": False})
    return {"runtime.yaml": _envelope("RuntimeConfig", "test", spec)}


def provider(endpoint: str, *, name: str = "stub", models: Sequence[str] = ("stub",), **keys: Any) -> Documents:
    """`providers-<name>.yaml` with one OpenAI-compatible server; files of several providers are merged by the node."""
    one = {"type": "openai_compat", "endpoint": endpoint, "models": list(models), **keys}
    return {f"providers-{name}.yaml": _envelope("ProviderConfig", name, {"providers": {name: one}})}


def agent(
    name: str,
    *,
    model: str = "stub",
    provider_name: str | None = "stub",
    parameters: Mapping[str, Any] | None = None,
    system: str = "You are a test.",
    **spec: Any,
) -> Documents:
    """`agents/<name>.agent.yaml`: a ReAct agent without memory, unless `spec` says otherwise.

    Without a `provider_name` its model is whatever node's of the mesh.
    """
    source = {"provider": "local"} if provider_name is None else {"provider": "openai_compat", "providerRef": provider_name}
    whole: dict[str, Any] = {
        "identity": {"display_name": name, "description": f"The agent {name} of a test."},
        "model": {"primary": {**source, "model": model, "parameters": dict(parameters or {})}},
        "prompts": {"system": system},
        "orchestration": {"pattern": "react", "max_iterations": 4, "timeout_seconds": 60},
        **spec,
    }
    return {f"agents/{name}.agent.yaml": _envelope("Agent", name, whole)}

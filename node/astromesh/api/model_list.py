"""All models of the mesh as OpenAI's list has them; agents among them as `agent:NAME`."""

from __future__ import annotations

from typing import Any

from astromesh.api.house import House


def known_models(house: House) -> dict[str, dict[str, Any]]:
    """By id, in the order of the ids; this node first among those that have a model."""
    found: dict[str, dict[str, Any]] = {}
    for row in house.model_rows():
        here = {"name": house.node, **{key: row[key] for key in ("state", "progress", "error") if row.get(key) is not None}}
        found[row["name"]] = _model(row["name"], created=row["created"], identity=row["identity"]) | {"nodes": [here]}
    for name, offers in house.roster.models().items():
        for member, offered in offers:
            entry = found.setdefault(name, _model(name, created=0, identity=offered.identity) | {"nodes": []})
            entry["nodes"].append({"name": house.roster.label(member.name), "state": offered.state})
    hosts: dict[str, list[str]] = {name: [house.node] for name in house.runtime.agents}
    for name, agents in house.roster.agents().items():
        hosts.setdefault(name, []).extend(house.roster.label(member.name) for member, _ in agents)
    for name, nodes in hosts.items():
        found[f"agent:{name}"] = _model(f"agent:{name}", created=0, identity="") | {
            "nodes": [{"name": node, "state": "loaded"} for node in nodes]
        }
    return {name: found[name] for name in sorted(found)}


def _model(name: str, *, created: int, identity: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "astromesh", "identity": identity or None}

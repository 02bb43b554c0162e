"""All models of the mesh as OpenAI's list has them; agents among them as `agent:NAME`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from astromesh.api.house import House
from astromesh.fleet.offers import COMPLETES

# Of this node's own rows. Of others only what they offer is known.
_TOLD = ("state", "progress", "eta_s", "doing", "error", "refused", "kernel", "tok_s", "warm", "active", "size_bytes", "needed_bytes")


def known_models(house: House) -> dict[str, dict[str, Any]]:
    """By id, in the order of the ids; this node first among those that have a model."""
    found: dict[str, dict[str, Any]] = {}
    for row in house.model_rows():
        here = {"name": house.node, **{key: row[key] for key in _TOLD if row.get(key) is not None}}
        capabilities = row.get("capabilities", COMPLETES)
        found[row["name"]] = _model(row["name"], created=row["created"], identity=row["identity"], capabilities=capabilities) | {
            "nodes": [here]
        }
    for name, offers in house.roster.models().items():
        for member, offered in offers:
            one = _model(name, created=0, identity=offered.identity, capabilities=offered.capabilities)
            entry = found.setdefault(name, one | {"nodes": []})
            figures = {"kernel": offered.kernel or None, "tok_s": offered.tok_s, "warm": True if offered.warmth else None}
            told = {key: value for key, value in figures.items() if value is not None}
            entry["nodes"].append({"name": house.roster.label(member.name), "state": offered.state, **told})
    hosts: dict[str, list[str]] = {name: [house.node] for name in house.runtime.agents}
    for name, agents in house.roster.agents().items():
        if answering := [house.roster.label(member.name) for member, offered in agents if offered.status == "deployed"]:
            hosts.setdefault(name, []).extend(answering)
    for name, nodes in hosts.items():
        found[f"agent:{name}"] = _model(f"agent:{name}", created=0, identity="") | {
            "nodes": [{"name": node, "state": "loaded"} for node in nodes]
        }
    return {name: found[name] for name in sorted(found)}


def _model(name: str, *, created: int, identity: str, capabilities: Iterable[str] = COMPLETES) -> dict[str, Any]:
    shown = {"identity": identity or None, "capabilities": list(capabilities)}
    return {"id": name, "object": "model", "created": created, "owned_by": "astromesh", **shown}

"""The agents of the demo: one that answers, two that hand over, and one that has two work for it, each on its own node.

They answer greedily and in a few words: it is the way of the work that is shown, with a model that runs anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MODEL = "smollm2"
ANSWER_TOKENS_MAX = 64
TIMEOUT_S = 120

SWARM, PEER = "host", "poet"
SUPERVISOR, WORKERS = "editor", ("facts", "examples")


def _agent(name: str, description: str, system: str, **orchestration: Any) -> dict[str, Any]:
    # Greedy, a model this small says the same sentence again and again; a penalty keeps it from that.
    parameters = {"temperature": 0, "repeat_penalty": 1.1, "max_tokens": ANSWER_TOKENS_MAX}
    return {
        "apiVersion": "astromesh/v1",
        "kind": "Agent",
        "metadata": {"name": name, "version": "1.0.0"},
        "spec": {
            "identity": {"display_name": name, "description": description},
            "model": {"primary": {"provider": "local", "model": MODEL, "parameters": parameters}},
            "prompts": {"system": system},
            "orchestration": {"pattern": "react", "timeout_seconds": TIMEOUT_S, **orchestration},
        },
    }


def _described(agent: Mapping[str, Any]) -> dict[str, str]:
    return {"agent": agent["metadata"]["name"], "description": agent["spec"]["identity"]["description"]}


_poet = _agent(PEER, "poems and songs", "You are a poet. Write a few short lines.")
_facts = _agent(WORKERS[0], "states facts about a subject", "State one fact about the subject, in one short sentence.")
_examples = _agent(WORKERS[1], "gives examples of a subject", "Give one example of the subject, in one short sentence.")
_host = _agent(
    SWARM, "first contact", "You are a helpful assistant. Answer in one short sentence.", pattern="swarm", peers=[_described(_poet)]
)
_editor = _agent(
    SUPERVISOR,
    "short texts about a subject",
    "You write two short sentences about a subject, out of what your workers bring.",
    pattern="supervisor",
    workers=[_described(_facts), _described(_examples)],
    max_iterations=2,
)

AGENTS: Mapping[str, tuple[dict[str, Any], ...]] = {"a": (_host, _editor), "b": (_poet, _facts), "c": (_examples,)}
"""By the node on which they live."""

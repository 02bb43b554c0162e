"""Agents that work with others: swarms, supervisors, and what their models say to that."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from tests.rig.rooms import an_agent

from astromesh.orchestration.plan import Member
from astromesh.runtime.agent import Agent


def in_a_swarm(name: str, *peers: str, hand_offs_max: int = 5, **how: Any) -> Agent:
    """It says under a schema who goes on, before anybody speaks."""
    agent = an_agent(name, **how)
    members = tuple(Member(peer, agent=peer) for peer in peers)
    return replace(agent, part=replace(agent.part, pattern="swarm", peers=members, hand_offs_max=hand_offs_max))


def supervising(name: str, *workers: str, **how: Any) -> Agent:
    agent = an_agent(name, **how)
    return replace(agent, part=replace(agent.part, pattern="supervisor", workers=tuple(Member(worker, agent=worker) for worker in workers)))


def goes_to(agent: str) -> str:
    """What the model of a swarm's agent says when it is asked who goes on."""
    return json.dumps({"agent": agent})


def gives(*tasks: tuple[str, str]) -> str:
    """What a supervisor's model says: these workers, with these tasks; none: it concludes."""
    delegations = [{"worker": worker, "task": task} for worker, task in tasks]
    return json.dumps({"judgement": "so far", "delegations": delegations})

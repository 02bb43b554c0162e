"""What an agent names that nobody in the mesh has: agents that it asks, models that it speaks with. Pure.

No mistake of its document, since a node that has it may come at any moment; but a run that needs it before then fails.
"""

from __future__ import annotations

from collections.abc import Callable

from astromesh.runtime.agent import Agent
from astromesh.runtime.agent_tools import AgentTool


def absences(agent: Agent, *, has_agent: Callable[[str], bool], has_model: Callable[[str], bool]) -> tuple[str, ...]:
    """A sentence each. A model of a server that the document names is that server's to have."""
    part = agent.part
    asked = [member.agent for members in (part.workers, part.peers, part.stages) for member in members if member.agent is not None]
    asked += [tool.agent for tool in agent.toolbox.tools if isinstance(tool, AgentTool)]
    spoken = [target.pinned_name for choice in agent.choices.values() for target in choice.targets if target.provider is None]
    missing = [f"agent {key}" for key in dict.fromkeys(asked) if not has_agent(key)]
    missing += [f"model {name}" for name in dict.fromkeys(spoken) if not has_model(name)]
    return tuple(f"{what}: nobody in the mesh has it at the moment" for what in missing)

"""Another agent as a tool: a call is its task, its answer the result.

What a call asks for is the same `Delegate` that a pattern yields, so it is performed by the same stage: aside, wherever that agent lives,
within the budget and the deadline of the run that asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from astromesh.dialogue import Answer, ToolSchema
from astromesh.effects import Delegate
from astromesh.tools.port import ToolFailed
from astromesh.tools.toolbox import Toolbox

Performer = Callable[[Delegate], Awaitable[Answer]]

TASK = {
    "type": "object",
    "properties": {"task": {"type": "string", "minLength": 1, "description": "all that it needs to know: it sees nothing else"}},
    "required": ["task"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class AgentTool:
    """Of no use before it belongs to a run: `performing` is that run's stage."""

    schema: ToolSchema
    agent: str
    performing: Performer | None = None

    async def call(self, arguments: Mapping[str, Any]) -> str:
        if self.performing is None:
            raise ToolFailed(f"agent {self.agent} answers within a run only")
        answer = await self.performing(Delegate(self.agent, arguments["task"]))
        return answer.text


def in_run(toolbox: Toolbox, perform: Performer) -> Toolbox:
    """The agent's tools, those that are agents bound to this run."""
    bound = [replace(tool, performing=perform) for tool in toolbox.tools if isinstance(tool, AgentTool)]
    return toolbox.holding(bound) if bound else toolbox

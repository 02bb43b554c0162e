"""Reason, act, observe, until the model answers instead of calling a tool.

Yao et al., "ReAct: Synergizing Reasoning and Acting in Language Models", 2022. Pure.
"""

from __future__ import annotations

from astromesh.dialogue import Answer, Transcript
from astromesh.effects import AskModel, CallTools, Note, Script
from astromesh.errors import TurnsExhausted
from astromesh.orchestration.plan import Part


def react(part: Part, opening: Transcript) -> Script[Answer]:
    transcript = opening
    for _ in range(part.turns):
        reply = yield from AskModel(transcript, part.tools)
        if not reply.tool_calls:
            yield from Note("step", {"thought": None, "action": None, "action_input": None, "observation": None, "result": reply.text})
            return Answer(reply.text, by=part.agent, work=transcript[len(opening) :])
        results = yield from CallTools(reply.tool_calls)
        for call, result in zip(reply.tool_calls, results, strict=True):
            yield from Note(
                "step",
                {
                    "thought": reply.text or None,
                    "action": call.name,
                    "action_input": call.arguments,
                    "observation": result.content,
                    "result": None,
                },
            )
        transcript = (*transcript, reply.as_message(), *results)
    raise TurnsExhausted(
        f"agent {part.agent} asked its model {part.turns} times and got no answer, only tool calls",
        hint="raise spec.orchestration.max_iterations, or check why the tools' results do not satisfy the model",
    )

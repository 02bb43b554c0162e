"""Reason, act, observe, until the model answers instead of calling a tool.

Yao et al., "ReAct: Synergizing Reasoning and Acting in Language Models", 2022. Pure.
"""

from __future__ import annotations

from astromesh.dialogue import Answer, Message, ToolCall, Transcript
from astromesh.effects import AskModel, CallTools, Note, Say, Script
from astromesh.errors import TurnsExhausted
from astromesh.orchestration.plan import Part

REASONER = "reasoner"


def react(part: Part, opening: Transcript, *, role: str = REASONER, aside: bool = False, max_tokens: int | None = None) -> Script[Answer]:
    """`aside`: it is a part of the work, and nobody sees it."""
    hidden = aside or part.output is not None
    shape = part.output.document if part.output is not None and not (aside or part.tools) else None
    transcript = opening
    for _ in range(part.turns):
        reply = yield from AskModel(transcript, part.tools, role=role, shape=shape, aside=hidden, max_tokens=max_tokens)
        if not reply.tool_calls:
            if not aside:
                yield from concluded(reply.text)
            return Answer(reply.text, by=part.agent, work=transcript[len(opening) :])
        results = yield from observed(part, reply.tool_calls, thought=reply.text)
        transcript = (*transcript, reply.as_message(), *results)
    raise exhausted(part)


def observed(part: Part, calls: tuple[ToolCall, ...], *, thought: str) -> Script[tuple[Message, ...]]:
    """The results of these calls, each told as a step."""
    results = yield from CallTools(calls)
    for call, result in zip(calls, results, strict=True):
        yield from Note(
            "step",
            {
                "thought": thought or None,
                "action": call.name,
                "action_input": call.arguments,
                "observation": result.content,
                "result": None,
            },
        )
    return results


def concluded(text: str) -> Note:
    """The last step of a run: the answer."""
    return Note("step", {"thought": None, "action": None, "action_input": None, "observation": None, "result": text})


def spoken(part: Part, text: str) -> Script[Answer]:
    """An answer that no completion of this agent's model wrote. Under a schema it is shown when it has been checked."""
    if part.output is None:
        text = yield from Say(text)
    yield from concluded(text)
    return Answer(text, by=part.agent)


def exhausted(part: Part) -> TurnsExhausted:
    return TurnsExhausted(
        f"agent {part.agent} asked its model {part.turns} times and got no answer, only tool calls",
        hint="raise spec.orchestration.max_iterations, or check why the tools' results do not satisfy the model",
    )

"""Reason, act, observe, until the model answers instead of calling a tool.

Yao et al., "ReAct: Synergizing Reasoning and Acting in Language Models", 2022. Pure.
"""

from __future__ import annotations

from astromesh.dialogue import Answer, Message, ModelReply, ToolCall, Transcript
from astromesh.effects import AskModel, CallTools, Note, Say, Script
from astromesh.errors import TurnsExhausted
from astromesh.orchestration.decision import Stopped
from astromesh.orchestration.plan import Part

REASONER = "reasoner"


def react(part: Part, opening: Transcript, *, role: str = REASONER, aside: bool = False, max_tokens: int | None = None) -> Script[Answer]:
    """`aside`: it is a part of the work, and nobody sees it."""
    output = None if aside else part.output
    # A local model cannot be held to a schema and be free to call tools, so with tools its answer is looked at when it is there.
    shape = output.document if output is not None and not part.tools else None
    hidden = aside or output is not None
    transcript = opening
    for _ in range(part.turns):
        reply = yield from AskModel(transcript, part.tools, role=role, shape=shape, aside=hidden, max_tokens=max_tokens)
        if not reply.tool_calls:
            answer = Answer(reply.text, by=part.agent, work=transcript[len(opening) :])
            return answer if aside else (yield from concluded(part, reply, answer))
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


def concluded(part: Part, reply: ModelReply, answer: Answer) -> Script[Answer]:
    """The end of a run, told as its last step. Under a schema it is not over: what nobody has seen is checked first."""
    if part.output is None:
        yield from last_step(answer.text)
    elif reply.finish_reason == "content_filter" and reply.text:
        raise Stopped(reply.text)
    return answer


def last_step(text: str) -> Note:
    return Note("step", {"thought": None, "action": None, "action_input": None, "observation": None, "result": text})


def spoken(part: Part, text: str) -> Script[Answer]:
    """An answer that no completion of this agent's model wrote. Under a schema it is shown when it has been checked."""
    if part.output is None:
        text = yield from Say(text)
        yield from last_step(text)
    return Answer(text, by=part.agent)


def exhausted(part: Part) -> TurnsExhausted:
    return TurnsExhausted(
        f"agent {part.agent} asked its model {part.turns} times and got no answer, only tool calls",
        hint="raise spec.orchestration.max_iterations, or check why the tools' results do not satisfy the model",
    )

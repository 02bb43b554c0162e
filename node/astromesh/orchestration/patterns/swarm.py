"""Agents of equal rank, who hand a conversation to the one that it belongs to.

A hand-off is an outcome: whoever hands off has ended. A local model says under a grammar who goes on, before anybody speaks; it may be the
agent itself, which then answers with its own tools. The model of a server that calls tools reliably hands off by one of them, at any time.
Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from astromesh.dialogue import Answer, HandOff, Message, Outcome, ToolCall, ToolSchema, Transcript
from astromesh.effects import AskModel, Script
from astromesh.orchestration.decision import Misfit, decided, mapping, text_of, told, within_characters
from astromesh.orchestration.opening import asked
from astromesh.orchestration.patterns.react import REASONER, concluded, exhausted, observed, react, spoken
from astromesh.orchestration.plan import Member, Part

REASON_CHARACTERS_MAX = 500  # it stands in front of the next agent's question
TOOL_NAME_CHARACTERS_MAX = 64  # of a function, as model servers take it
_PREFIX = "hand_off_to_"

# The choices stand there as they are to be written. Where their form was only told, SmolLM2 135M held it for unlikely (1 in 3,000 for the
# first sign of the name; so it is 1 in 3), and the grammar pushed it to some name sign by sign. No wording of a dozen made it, or Gemma 3
# 270M, choose better than chance over 48 questions to four groups of agents (16 to 26 right, chance is 20).
_WHO = """\
---
Who should answer this? Write one of these:
{choices}"""


def swarm(part: Part, opening: Transcript, *, may_hand_off: bool, handed_by: str = "") -> Script[Outcome]:
    """`handed_by`: who has just handed it over. Who is asked before it has read a word would hand it straight back."""
    if may_hand_off and part.decides == "tools" and part.peers:
        return (yield from _by_tools(part, opening))
    others = tuple(peer for peer in part.peers if _agent(peer) != handed_by)
    if may_hand_off and others:
        return (yield from _by_shape(part, opening, others))
    return (yield from react(part, opening))


def _by_shape(part: Part, opening: Transcript, others: tuple[Member, ...]) -> Script[Outcome]:
    peers = {peer.name: peer for peer in others}
    names = [part.agent, *peers]
    shape = {
        "type": "object",
        "properties": {"agent": {"type": "string", "enum": names}},
        "required": ["agent"],
        "additionalProperties": False,
    }
    about = {part.agent: part.description or "you yourself"} | {peer.name: peer.description for peer in others}
    choices = "\n".join(f"{_written(name)}: {said}" if said else _written(name) for name, said in about.items())

    def read(value: Any) -> str:
        name = text_of(mapping(value), "agent")
        if name not in names:
            raise Misfit(f'"agent" is none of {", ".join(names)}')
        return name

    transcript = asked(opening, _WHO.format(choices=choices))
    name, _ = yield from decided(part, transcript, shape, read, what="who should answer", role=REASONER)
    if name == part.agent:
        yield from told(action="answer", given={"agent": name})
        return (yield from react(part, opening))
    yield from told(action="hand_off", given={"to": _agent(peers[name])})
    return (yield from _handed(part, HandOff(_agent(peers[name]), by=part.key)))


def _written(name: str) -> str:
    return json.dumps({"agent": name}, ensure_ascii=False)  # with spaces, as most JSON is that models have read


def _by_tools(part: Part, opening: Transcript) -> Script[Outcome]:
    """ReAct with one tool more for each peer. What a model calls beside a hand-off is not: the conversation has left it."""
    exits = _exits(part.peers)
    tools = (*part.tools, *(_tool(name, peer) for name, peer in exits.items()))
    hidden = part.output is not None
    transcript = opening
    for _ in range(part.turns):
        reply = yield from AskModel(transcript, tools, role=REASONER, aside=hidden)
        if not reply.tool_calls:
            return (yield from concluded(part, reply, Answer(reply.text, by=part.agent, work=transcript[len(opening) :])))
        for call in reply.tool_calls:
            if call.name in exits:
                to, reason = _agent(exits[call.name]), _reason(call)
                yield from told(reason or reply.text, action="hand_off", given={"to": to})
                return (yield from _handed(part, HandOff(to, by=part.key, reason=reason, work=transcript[len(opening) :])))
        results = yield from _observed(part, reply.tool_calls, exits, thought=reply.text)
        transcript = (*transcript, reply.as_message(), *results)
    raise exhausted(part)


def _handed(part: Part, off: HandOff) -> Script[Outcome]:
    if not part.dry_run:
        return off
    said = f"dry run: this conversation was not handed to agent {off.to}, and nothing happened."
    return replace((yield from spoken(part, said)), work=off.work)


def _observed(part: Part, calls: tuple[ToolCall, ...], exits: Mapping[str, Member], *, thought: str) -> Script[tuple[Message, ...]]:
    """The results of tools; of a hand-off to somebody who does not exist, what the model needs to know."""
    real = tuple(call for call in calls if not call.name.startswith(_PREFIX))
    results = iter((yield from observed(part, real, thought=thought)) if real else ())
    return tuple(_nobody(call, exits) if call.name.startswith(_PREFIX) else next(results) for call in calls)


def _nobody(call: ToolCall, exits: Mapping[str, Member]) -> Message:
    return Message("tool", f"error: there is nobody of that name to hand off to; there are: {', '.join(exits)}", tool_call_id=call.id)


def _exits(peers: tuple[Member, ...]) -> Mapping[str, Member]:
    names = [f"{_PREFIX}{peer.name}" for peer in peers]
    return {
        name if len(name) <= TOOL_NAME_CHARACTERS_MAX else f"{_PREFIX}peer_{number}": peer
        for number, (name, peer) in enumerate(zip(names, peers, strict=True), start=1)
    }


def _tool(name: str, peer: Member) -> ToolSchema:
    about = f" {peer.description}" if peer.description else ""
    parameters = {
        "type": "object",
        "properties": {"reason": {"type": "string", "description": "One short sentence: what the agent needs to know."}},
        "required": ["reason"],
        "additionalProperties": False,
    }
    return ToolSchema(name, f"Hand this conversation to the agent {peer.name}, who goes on with it.{about}", parameters)


def _reason(call: ToolCall) -> str:
    try:
        arguments = orjson.loads(call.arguments or "{}")
    except ValueError:
        return ""
    return within_characters(text_of(arguments, "reason"), REASON_CHARACTERS_MAX) if isinstance(arguments, dict) else ""


def _agent(peer: Member) -> str:
    return peer.agent or peer.name

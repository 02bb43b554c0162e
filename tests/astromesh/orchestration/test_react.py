"""ReAct as a conversation: ask, act, observe, until there is an answer or no turn is left."""

from __future__ import annotations

import pytest
from tests.rig.conversation import Conversation

from astromesh.dialogue import Answer, Message, ModelReply, ToolCall, ToolSchema
from astromesh.effects import AskModel, CallTools, Note
from astromesh.errors import ModelFailed, TurnsExhausted
from astromesh.orchestration.patterns.react import react
from astromesh.orchestration.plan import Part
from astromesh.orchestration.prompt import Template

CLOCK = ToolSchema("clock", "What time it is.", {"type": "object"})
OPENING = (Message("user", "What time is it in Rome and Oslo?"),)
ROME = ToolCall("c1", "clock", '{"in": "Rome"}')
OSLO = ToolCall("c2", "clock", '{"in": "Oslo"}')


def part(*, turns: int = 3) -> Part:
    return Part("desk", Template("", where="an empty prompt"), Template("", where="an empty prompt"), turns, tools=(CLOCK,))


def step(*, thought: str | None = None, call: ToolCall | None = None, saw: str | None = None, result: str | None = None) -> Note:
    return Note(
        "step",
        {
            "thought": thought,
            "action": call.name if call else None,
            "action_input": call.arguments if call else None,
            "observation": saw,
            "result": result,
        },
    )


def test_a_reply_without_tool_calls_is_the_answer() -> None:
    talk = Conversation(react(part(), OPENING))
    talk << AskModel(OPENING, (CLOCK,), role="reasoner") >> ModelReply("Noon.") << step(result="Noon.") >> None
    assert talk.outcome == Answer("Noon.", by="desk")


def test_tool_calls_and_their_results_are_fed_back_in_their_order() -> None:
    asked = ModelReply("Let me look.", (ROME, OSLO), "tool_calls")
    results = (Message("tool", "12:00", tool_call_id="c1"), Message("tool", "12:01", tool_call_id="c2"))
    fed_back = (*OPENING, Message("assistant", "Let me look.", (ROME, OSLO)), *results)

    talk = Conversation(react(part(), OPENING))
    talk << AskModel(OPENING, (CLOCK,), role="reasoner") >> asked << CallTools((ROME, OSLO)) >> results
    talk << step(thought="Let me look.", call=ROME, saw="12:00") >> None << step(thought="Let me look.", call=OSLO, saw="12:01") >> None
    talk << AskModel(fed_back, (CLOCK,), role="reasoner") >> ModelReply("Noon.") << step(result="Noon.") >> None
    assert talk.outcome.text == "Noon."


def test_a_model_that_only_calls_tools_is_asked_as_often_as_it_has_turns_and_no_more() -> None:
    talk = Conversation(react(part(turns=2), OPENING))
    result = (Message("tool", "?", tool_call_id="c1"),)
    for last in (False, True):
        assert isinstance(talk.effect, AskModel)
        talk >> ModelReply("", (ROME,), "tool_calls") << CallTools((ROME,)) >> result << step(call=ROME, saw="?")
        if not last:
            talk >> None
    with pytest.raises(TurnsExhausted, match=r"agent desk asked its model 2 times") as raised:
        talk >> None
    assert "spec.orchestration.max_iterations" in raised.value.hint


def test_a_model_that_fails_ends_the_run_with_its_own_error() -> None:
    failure = ModelFailed("no connection", code="model_connection_refused")
    talk = Conversation(react(part(), OPENING))
    with pytest.raises(ModelFailed) as raised:
        talk << AskModel(OPENING, (CLOCK,), role="reasoner") >> failure
    assert raised.value is failure

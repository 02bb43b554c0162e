"""A run from the question to what is remembered of it, as a conversation."""

from __future__ import annotations

import pytest
from tests.rig.conversation import Conversation

from astromesh.dialogue import Answer, Message, ModelReply, ToolCall, Transcript
from astromesh.effects import AskModel, Effect, Note, Recall, Remember
from astromesh.errors import ModelFailed, PromptUnrenderable
from astromesh.orchestration.plan import Part
from astromesh.orchestration.prompt import Template
from astromesh.orchestration.run import whole_run

PAST = (Message("user", "I am Ada."), Message("assistant", "Hello, Ada."))


def part(*, system: str = "", context: str = "", remembers: bool = False) -> Part:
    return Part("desk", Template(system, where="system"), Template(context, where="context"), turns=3, remembers=remembers)


def asked(talk: Conversation[Answer]) -> Transcript:
    effect = talk.effect
    assert isinstance(effect, AskModel), f"the script says {effect!r} instead of asking its model"
    return effect.transcript


def to_the_end(talk: Conversation[Answer], *, past: Transcript = (), text: str = "An answer.") -> list[Effect[object]]:
    """Answers whatever comes; what the script said, notes aside."""
    said: list[Effect[object]] = []
    while (effect := talk.effect) is not None:
        if not isinstance(effect, Note):
            said.append(effect)
        talk >> {Recall: past, AskModel: ModelReply(text)}.get(type(effect))
    return said


def test_an_agent_that_remembers_sees_its_past_between_its_prompt_and_the_question_and_keeps_the_turn() -> None:
    talk = Conversation(whole_run(part(system="Be brief.", remembers=True), "Who am I?", context={}))
    talk << Recall() >> PAST
    talk << AskModel((Message("system", "Be brief."), *PAST, Message("user", "Who am I?")), role="reasoner")
    (*_, last) = to_the_end(talk, text="You are Ada.")
    assert last == Remember((Message("user", "Who am I?"), Message("assistant", "You are Ada.")))
    assert talk.outcome == Answer("You are Ada.", by="desk")


def test_the_calls_of_tools_and_their_results_are_kept_between_the_question_and_the_answer() -> None:
    call = ToolCall("c1", "clock", "{}")
    looked = (Message("assistant", "", (call,)), Message("tool", "12:00", tool_call_id="c1"))
    talk = Conversation(whole_run(part(remembers=True), "What time is it?", context={}))
    talk >> PAST >> ModelReply("", (call,)) >> looked[1:] >> None
    (*_, last) = to_the_end(talk, text="Noon.")
    assert last == Remember((Message("user", "What time is it?"), *looked, Message("assistant", "Noon.")))


def test_an_agent_without_memory_neither_recalls_nor_remembers() -> None:
    said = to_the_end(Conversation(whole_run(part(), "Who am I?", context={})))
    assert [type(effect) for effect in said] == [AskModel]


def test_a_history_that_the_caller_gives_is_used_and_neither_recalled_nor_remembered() -> None:
    talk = Conversation(whole_run(part(remembers=True), "Who am I?", context={}, history=PAST))
    assert asked(talk) == (*PAST, Message("user", "Who am I?"))
    assert [type(effect) for effect in to_the_end(talk)] == [AskModel]


def test_an_empty_history_of_the_caller_is_still_the_callers_own() -> None:
    said = to_the_end(Conversation(whole_run(part(remembers=True), "Hello", context={}, history=())))
    assert [type(effect) for effect in said] == [AskModel]


def test_the_context_is_rendered_in_front_of_the_question_and_is_not_remembered() -> None:
    talk = Conversation(whole_run(part(context="It is {{ day }}.", remembers=True), "Shall I go out?", context={"day": "Sunday"}))
    talk << Recall() >> ()
    assert asked(talk) == (Message("user", "It is Sunday.\n\nShall I go out?"),)
    (*_, last) = to_the_end(talk, text="Yes.")
    assert last == Remember((Message("user", "Shall I go out?"), Message("assistant", "Yes.")))


def test_templates_know_the_question_and_the_agent_whatever_the_caller_calls_his_own() -> None:
    talk = Conversation(whole_run(part(system="{{ agent }}: {{ query }}"), "Why?", context={"agent": "root", "query": "no"}))
    assert asked(talk)[0] == Message("system", "desk: Why?")


def test_a_turn_that_failed_is_not_remembered() -> None:
    talk = Conversation(whole_run(part(remembers=True), "Who am I?", context={}))
    talk << Recall() >> ()
    with pytest.raises(ModelFailed):
        talk >> ModelFailed("gone", code="model_timeout")
    assert talk.effect is None


def test_a_template_that_fails_ends_the_run_before_anything_is_asked() -> None:
    with pytest.raises(PromptUnrenderable, match="ZeroDivisionError"):
        Conversation(whole_run(part(system="{{ 1 / 0 }}"), "Hello", context={}))

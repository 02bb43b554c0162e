"""A pipeline as a conversation: what each stage is sent, and that the last one speaks."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rig.conversation import Conversation
from tests.rig.parts import assistant, own, part, result, step, system, template, user

from astromesh.dialogue import Answer, ModelReply
from astromesh.effects import AskModel, Delegate, Say, Work
from astromesh.errors import ModelFailed
from astromesh.orchestration.patterns.pipeline import pipeline
from astromesh.orchestration.plan import Member

OPENING = (system(), user("Hi."), assistant("Yes?"), user("Write about tea."))
VARIABLES = {"query": "Write about tea.", "agent": "desk", "tone": "dry"}


def talk_of(*stages: Member, **keys: Any) -> Conversation[Answer]:
    return Conversation(pipeline(part(pattern="pipeline", stages=stages, **keys), OPENING, VARIABLES))


def test_each_stage_gets_what_the_one_before_it_made_and_the_last_one_streams() -> None:
    talk = talk_of(
        own("draft", "Draft it, {{ tone }}.", role="stage:draft"), own("check", "Check it.", max_tokens=50), own("edit", "Shorten it.")
    )
    talk << Work((*OPENING[:-1], user("Draft it, dry.\n\nWrite about tea.")), role="stage:draft", label="draft")
    talk >> Answer("Tea is hot.", by="desk") << step(action="draft", given={"input": "Write about tea."}, seen="Tea is hot.") >> None
    talk << Work((system(), user("Check it.\n\nTea is hot.")), role="check", label="check", max_tokens=50)
    talk >> Answer("Tea is warm.", by="desk") << step(action="check", given={"input": "Tea is hot."}, seen="Tea is warm.") >> None
    talk << AskModel((system(), user("Shorten it.\n\nTea is warm.")), role="edit")
    talk >> ModelReply("Tea.") << result("Tea.") >> None
    assert talk.outcome == Answer("Tea.", by="desk")


def test_a_prompt_that_says_where_its_input_goes_gets_it_there_alone() -> None:
    talk = talk_of(own("first-draft", "About: {{ query }}"), own("check", "<{{ first_draft }}> {{ stage }}"), own("edit", "[{{ input }}]"))
    assert isinstance(talk.effect, Work)
    assert talk.effect.opening[-1] == user("About: Write about tea.")
    talk >> Answer("D", by="desk") >> None
    assert isinstance(talk.effect, Work)
    assert talk.effect.opening == (system(), user("<D> check"))
    talk >> Answer("C", by="desk") >> None
    talk << AskModel((system(), user("[C]")), role="edit")


def test_stages_without_a_prompt_are_told_their_name() -> None:
    talk = talk_of(own("analyze"), own("synthesize"))
    assert isinstance(talk.effect, Work)
    first = 'Stage "analyze": work on the following and write what the next stage needs.\n\nWrite about tea.'
    assert talk.effect.opening[-1] == user(first)
    talk >> Answer("Hot.", by="desk") >> None
    assert isinstance(talk.effect, AskModel)
    last = 'Stage "synthesize", the last one: work on the following and write the answer for the user.\n\nHot.'
    assert talk.effect.transcript == (system(), user(last))


def test_a_stage_may_be_another_agent_and_the_words_of_the_last_one_are_shown_whole() -> None:
    editor = Member("edit", agent="editor", prompt=template("Edit this:"))
    talk = talk_of(Member("look", agent="looker"), editor)
    talk << Delegate("looker", "Write about tea.") >> Answer("Hot.", by="looker") >> None
    talk << Delegate("editor", "Edit this:\n\nHot.") >> Answer("Warm.", by="editor")
    talk << Say("Warm.") >> "W*rm." << result("W*rm.") >> None
    assert talk.outcome == Answer("W*rm.", by="desk")


def test_one_stage_is_a_pipeline_too() -> None:
    talk = talk_of(own("only", "Do it."))
    talk << AskModel((*OPENING[:-1], user("Do it.\n\nWrite about tea.")), role="only")


def test_a_stage_that_fails_ends_the_run_with_its_own_error() -> None:
    failure = ModelFailed("no connection", code="model_connection_refused")
    talk = talk_of(own("draft"), own("edit"))
    with pytest.raises(ModelFailed) as raised:
        talk >> failure
    assert raised.value is failure


def test_what_a_stage_made_fills_in_no_templates() -> None:
    talk = talk_of(own("draft"), own("edit", "Edit: {{ input }}"))
    talk >> Answer("{{ agent }} {% raw %}", by="desk") >> None
    assert isinstance(talk.effect, AskModel)
    assert talk.effect.transcript[-1] == user("Edit: {{ agent }} {% raw %}")

"""An answer under a schema: held to it where the model can be, checked, mended once, and shown when it is whole."""

from __future__ import annotations

from typing import Any

import pytest
from tests.rig.conversation import Conversation
from tests.rig.parts import assistant, other, own, part, result, system, user, wrote

from astromesh.dialogue import Answer, HandOff, Message, ModelReply, Outcome, ToolCall, ToolSchema
from astromesh.effects import AskModel, Remember, Say, Together, Work
from astromesh.errors import UnusableReply
from astromesh.orchestration.act import act
from astromesh.orchestration.run import whole_run, work
from astromesh.specs.schemas import Schema

SCHEMA = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"], "additionalProperties": False}
OPENING = (system(), user("How good is it?"))
CLOCK = ToolSchema("clock", "What time it is.", {"type": "object"})
GOOD = '{"score":7}'


def talk_of(**keys: Any) -> Conversation[Outcome]:
    one = part(output=Schema(SCHEMA), **keys)
    return Conversation(act(one, OPENING, {"query": "How good is it?", "agent": "desk"}, may_hand_off=True))


def mending(wrote: str, mistakes: str) -> AskModel:
    schema = '{"type":"object","properties":{"score":{"type":"integer"}},"required":["score"],"additionalProperties":false}'
    request = f"Write your answer as JSON that obeys this schema, and nothing else:\n{schema}\nWhat you wrote does not: {mistakes}."
    return AskModel((*OPENING, assistant(wrote), user(request)), role="reasoner", shape=SCHEMA, aside=True)


def test_an_agent_without_tools_is_held_to_the_schema_and_its_answer_is_shown_whole_with_its_data() -> None:
    talk = talk_of()
    talk << AskModel(OPENING, role="reasoner", shape=SCHEMA, aside=True) >> ModelReply('{ "score": 7 }')
    talk << Say(GOOD) >> GOOD << result(GOOD) >> None
    assert talk.outcome == Answer(GOOD, by="desk", data={"score": 7})


def test_an_agent_with_tools_is_free_to_call_them_and_checked_at_its_end() -> None:
    talk = talk_of(tools=(CLOCK,))
    asked = AskModel(OPENING, (CLOCK,), role="reasoner", aside=True)
    call = ToolCall("c", "clock", "{}")
    talk << asked >> ModelReply("", (call,), "tool_calls") >> (Message("tool", "12:00", tool_call_id="c"),) >> None
    talk >> ModelReply('```json\n{"score": 7}\n```') << Say(GOOD) >> GOOD >> None
    assert isinstance(talk.outcome, Answer)
    assert talk.outcome.data == {"score": 7}
    assert len(talk.outcome.work) == 2


@pytest.mark.parametrize(
    ("answer", "mistakes"),
    [
        ("Quite good.", "it is not JSON"),
        ('{"score": "high"}', 'score: "high" is not of type "integer"'),
        ("{}", '"score" is a required property'),
    ],
)
def test_an_answer_that_does_not_obey_is_mended_by_the_model_with_what_is_wrong(answer: str, mistakes: str) -> None:
    talk = talk_of()
    talk >> ModelReply(answer) << mending(answer, mistakes) >> wrote({"score": 7}) << Say(GOOD) >> GOOD >> None
    assert talk.outcome == Answer(GOOD, by="desk", data={"score": 7})


def test_an_answer_that_does_not_obey_after_mending_is_an_error_that_says_why() -> None:
    talk = talk_of()
    talk >> ModelReply("Quite good.")
    with pytest.raises(UnusableReply, match=r"answer of agent desk does not obey its output_schema.*is not of type") as raised:
        talk >> wrote({"score": "high"})
    assert "spec.output_schema" in raised.value.hint


@pytest.mark.parametrize(("guarded", "data"), [('{"score":[X]}', None), ("I do not say that.", None), ('{"score":0}', {"score": 0})])
def test_what_guards_change_is_what_is_answered_and_remembered_and_data_says_no_more(guarded: str, data: object) -> None:
    one = part(output=Schema(SCHEMA), remembers=True)
    talk = Conversation(whole_run(one, "How good is it?", context={}))
    talk >> () >> ModelReply(GOOD) << Say(GOOD) >> guarded << result(guarded) >> None
    talk << Remember((user("How good is it?"), assistant(guarded))) >> None
    assert (talk.outcome.text, talk.outcome.data) == (guarded, data)


STOPPED = ModelReply("That is enough.", finish_reason="content_filter")


def test_a_rule_that_ends_the_work_is_the_answer_and_nobody_mends_it() -> None:
    talk = talk_of()
    talk >> STOPPED << Say("That is enough.") >> "That is enough." << result("That is enough.") >> None
    assert talk.outcome == Answer("That is enough.", by="desk")
    mended = talk_of(tools=(CLOCK,))
    mended >> ModelReply("Quite good.") >> STOPPED << Say("That is enough.")


@pytest.mark.parametrize("pattern", ["supervisor", "team", "plan_and_execute", "parallel_fan_out", "swarm"])
def test_a_rule_that_ends_a_decision_is_the_answer_of_every_pattern(pattern: str) -> None:
    workers = () if pattern == "parallel_fan_out" else (other("a"),)
    one = part(pattern=pattern, workers=workers, peers=(other("a"),))
    talk = Conversation(act(one, OPENING, {}, may_hand_off=True))
    talk >> STOPPED << Say("That is enough.") >> "That is enough." << result("That is enough.") >> None
    assert talk.outcome == Answer("That is enough.", by="desk")


def test_every_pattern_ends_in_an_answer_that_obeys() -> None:
    voting = talk_of(pattern="parallel_fan_out", workers=(own("a"),), merge="vote")
    assert isinstance(voting.effect, Together)
    voting >> (Answer(GOOD, by="desk"),) >> None << Say(GOOD) >> GOOD << result(GOOD) >> None
    assert voting.outcome == Answer(GOOD, by="desk", data={"score": 7})


def test_a_hand_off_is_no_answer_and_who_takes_over_answers_as_it_likes() -> None:
    talk = talk_of(pattern="swarm", peers=(other("billing"),))
    talk >> wrote({"agent": "billing"}) >> None
    assert talk.outcome == HandOff("billing", by="desk")


def test_parts_of_the_work_obey_no_schema() -> None:
    talk = Conversation(work(part(output=Schema(SCHEMA)), Work((user("Look."),), role="worker", max_tokens=9)))
    talk << AskModel((user("Look."),), role="worker", aside=True, max_tokens=9) >> ModelReply("Seen.")
    assert talk.outcome == Answer("Seen.", by="desk")

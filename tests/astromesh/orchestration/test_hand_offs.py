"""A conversation that goes from agent to agent: what each gets, how often it may, and what is remembered of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.rig.conversation import Conversation
from tests.rig.parts import assistant, other, part, system, user, wrote

from astromesh.dialogue import Answer, HandOff, Message, ModelReply, Outcome, ToolCall
from astromesh.effects import AskModel, Note, Recall, Remember, Screen, Screened, TakeOver
from astromesh.errors import AgentUnavailable, TurnsExhausted, UnknownAgent
from astromesh.orchestration.plan import Part
from astromesh.orchestration.run import taken_over, whole_run

TO_BILLING = wrote({"agent": "billing"})
CALL = ToolCall("c1", "clock", "{}")
LOOKED = (Message("assistant", "", (CALL,)), Message("tool", "12:00", tool_call_id="c1"))


def desk(**keys: object) -> Part:
    return part(pattern="swarm", peers=(other("billing"),), **keys)


def run_of(one: Part, **context: object) -> Conversation[Answer]:
    return Conversation(whole_run(one, "Help!", context=context))


def handed(talk: Conversation[Answer]) -> Conversation[Answer]:
    """The first agent has handed over."""
    return talk >> TO_BILLING >> None


def test_the_next_agent_gets_the_conversation_without_the_prompts_of_the_one_before() -> None:
    talk = Conversation(
        whole_run(desk(context="It is {{ day }}."), "Help!", context={"day": "Sunday"}, history=(user("Hi."), assistant("Yes?")))
    )
    handed(talk) << TakeOver(
        "billing",
        (user("Hi."), assistant("Yes?"), user("Help!")),
        by="desk",
        context={"day": "Sunday"},
    )
    talk >> Answer("Paid.", by="billing")
    assert talk.outcome == Answer("Paid.", by="billing")


def test_a_conversation_goes_on_from_agent_to_agent_with_all_that_was_found_out_and_one_turn_is_remembered() -> None:
    talk = run_of(desk(remembers=True))
    talk << Recall() >> ()
    handed(talk) >> HandOff("bank", by="billing", reason="not mine", work=LOOKED)
    talk << TakeOver("bank", (user("Help!"), *LOOKED), by="billing", reason="not mine")
    talk >> Answer("Paid.", by="bank")
    talk << Remember((user("Help!"), *LOOKED, assistant("Paid."))) >> None
    assert talk.outcome == Answer("Paid.", by="bank", work=LOOKED)


def test_two_agents_who_hand_a_question_back_and_forth_are_ended_by_the_last_having_to_answer() -> None:
    talk = handed(run_of(desk(hand_offs_max=3)))
    lasts = []
    for to, by in [("desk", "billing"), ("billing", "desk")]:
        assert isinstance(talk.effect, TakeOver)
        lasts.append(talk.effect.last)
        talk >> HandOff(to, by=by)
    assert isinstance(talk.effect, TakeOver)
    assert [*lasts, talk.effect.last] == [False, False, True]
    talk >> Answer("All right.", by="billing")
    assert talk.outcome.text == "All right."


def test_a_node_that_hands_off_all_the_same_ends_the_run() -> None:
    talk = handed(run_of(desk(hand_offs_max=1)))
    with pytest.raises(TurnsExhausted, match=r"handed on 1 times, and billing would hand it on once more, to desk") as raised:
        talk >> HandOff("desk", by="billing")
    assert "max_handoffs of agent desk" in raised.value.hint


def test_an_agent_that_may_never_hand_off_answers() -> None:
    talk = run_of(desk(hand_offs_max=0))
    talk << AskModel((system(), user("Help!")), role="reasoner") >> ModelReply("Yes?") >> None
    assert talk.outcome.text == "Yes?"


def test_a_hand_off_to_an_agent_that_no_node_has_says_who_wanted_it_and_what_to_do() -> None:
    talk = handed(run_of(desk(remembers=False)))
    with pytest.raises(UnknownAgent, match=r"agent desk handed the conversation to billing: no node") as raised:
        talk >> UnknownAgent("no node of this mesh has an agent named 'billing'")
    assert "spec.orchestration.peers of desk" in raised.value.hint


def test_a_peer_that_is_gone_ends_the_run_with_its_own_error() -> None:
    gone = AgentUnavailable("billing was on b")
    talk = handed(run_of(desk()))
    with pytest.raises(AgentUnavailable) as raised:
        talk >> gone
    assert raised.value is gone


# Who takes over.


def taking(one: Part, conversation: TakeOver) -> Conversation[Outcome]:
    return Conversation(taken_over(one, conversation))


def test_who_takes_over_speaks_under_its_own_prompts_and_is_told_why() -> None:
    billing = part("billing", system="You are {{ agent }} of {{ firm }}.", context="It is {{ day }}.")
    conversation = TakeOver(
        "billing",
        (user("Hi."), assistant("Yes?"), user("Help!"), *LOOKED),
        by="desk",
        reason="an invoice",
        context={"firm": "Acme", "day": "Sunday"},
    )
    talk = taking(billing, conversation)
    question = "It is Sunday.\n\n(Agent desk has handed this conversation over to you: an invoice)\n\nHelp!"
    talk << AskModel((system("You are billing of Acme."), user("Hi."), assistant("Yes?"), user(question), *LOOKED), role="reasoner")
    talk >> ModelReply("Paid.") >> None
    assert talk.outcome == Answer("Paid.", by="billing")


def test_a_hand_off_without_a_reason_is_told_without_one() -> None:
    talk = taking(part("billing"), TakeOver("billing", (user("Help!"),), by="desk"))
    assert isinstance(talk.effect, AskModel)
    assert talk.effect.transcript[-1] == user("(Agent desk has handed this conversation over to you.)\n\nHelp!")


def test_who_takes_over_may_hand_off_unless_it_is_the_last() -> None:
    billing = part("billing", pattern="swarm", peers=(other("desk"), other("bank")))
    talk = taking(billing, TakeOver("billing", (user("Help!"),), by="desk"))
    talk >> wrote({"agent": "bank"}) >> None
    assert talk.outcome == HandOff("bank", by="billing")
    last = taking(billing, TakeOver("billing", (user("Help!"),), by="desk", last=True))
    assert isinstance(last.effect, AskModel)
    assert last.effect.shape is None


def test_who_decides_before_it_has_read_a_word_cannot_hand_straight_back() -> None:
    billing = part("billing", pattern="swarm", peers=(other("desk"), other("bank")))
    talk = taking(billing, TakeOver("billing", (user("Help!"),), by="desk"))
    assert isinstance(talk.effect, AskModel)
    assert talk.effect.shape is not None
    assert talk.effect.shape["properties"]["agent"]["enum"] == ["billing", "bank"]
    pair = taking(part("billing", pattern="swarm", peers=(other("desk"),)), TakeOver("billing", (user("Help!"),), by="desk"))
    assert isinstance(pair.effect, AskModel)
    assert pair.effect.shape is None  # nobody is left: it answers
    by_tools = taking(replace(billing, decides="tools"), TakeOver("billing", (user("Help!"),), by="desk"))
    assert isinstance(by_tools.effect, AskModel)
    assert [tool.name for tool in by_tools.effect.tools] == ["hand_off_to_desk", "hand_off_to_bank"]


def test_who_takes_over_screens_what_it_is_asked_by_its_own_rules() -> None:
    billing = part("billing", screened=True)
    talk = taking(billing, TakeOver("billing", (user("Hi."), user("My card is 4111."), *LOOKED), context={"a": 1}))
    talk << Screen("My card is 4111.", {"a": 1}, (user("Hi."),)) >> Screened("My card is [X].", {}, (user("Hi."),))
    assert isinstance(talk.effect, AskModel)
    assert talk.effect.transcript == (system(), user("Hi."), user("My card is [X]."), *LOOKED)
    refused = taking(billing, TakeOver("billing", (user("x"),)))
    refused >> Screened(refusal="No.")
    assert refused.outcome == Answer("No.", by="billing")


def test_steps_name_every_hand_off() -> None:
    talk = run_of(desk())
    talk >> TO_BILLING
    assert talk.effect == Note(
        "step", {"thought": None, "action": "hand_off", "action_input": '{"to":"billing"}', "observation": None, "result": None}
    )

"""A swarm's agent as a conversation: who goes on is decided first, or said by a tool, and a hand-off is an outcome."""

from __future__ import annotations

import json

import pytest
from tests.rig.conversation import Conversation
from tests.rig.parts import again, assistant, other, part, result, step, system, user, wrote

from astromesh.dialogue import Answer, HandOff, Message, ModelReply, Outcome, ToolCall, ToolSchema
from astromesh.effects import AskModel, CallTools
from astromesh.errors import TurnsExhausted, UnusableReply
from astromesh.orchestration.patterns.swarm import swarm
from astromesh.orchestration.plan import Part

PEERS = (other("billing", "invoices and payments"), other("tech"))
OPENING = (system(), user("My invoice is wrong."))
CLOCK = ToolSchema("clock", "What time it is.", {"type": "object"})

WHO = """My invoice is wrong.

---
Who should answer this? Write one of these:
{"agent": "desk"}: you yourself
{"agent": "billing"}: invoices and payments
{"agent": "tech"}"""
SHAPE = {
    "type": "object",
    "properties": {"agent": {"type": "string", "enum": ["desk", "billing", "tech"]}},
    "required": ["agent"],
    "additionalProperties": False,
}
ASKED_WHO = AskModel((system(), user(WHO)), role="reasoner", shape=SHAPE, aside=True, max_tokens=512)


def desk(**keys: object) -> Part:
    return part(pattern="swarm", peers=PEERS, **keys)


def talk_of(one: Part, *, may_hand_off: bool = True) -> Conversation[Outcome]:
    return Conversation(swarm(one, OPENING, may_hand_off=may_hand_off))


def test_the_model_is_asked_aside_who_goes_on_and_a_peer_is_a_hand_off() -> None:
    talk = talk_of(desk())
    talk << ASKED_WHO >> wrote({"agent": "billing"})
    talk << step(action="hand_off", given={"to": "billing"}) >> None
    assert talk.outcome == HandOff("billing", by="desk")


def test_an_agent_that_keeps_the_conversation_answers_what_was_asked_with_its_own_tools() -> None:
    talk = talk_of(desk(tools=(CLOCK,)))
    talk << ASKED_WHO >> wrote({"agent": "desk"})
    talk << step(action="answer", given={"agent": "desk"}) >> None
    talk << AskModel(OPENING, (CLOCK,), role="reasoner") >> ModelReply("Which one?") << result("Which one?") >> None
    assert talk.outcome == Answer("Which one?", by="desk")


def test_a_hand_off_to_nobody_is_asked_for_again_with_what_is_wrong_and_then_is_an_error() -> None:
    talk = talk_of(desk())
    nobody = wrote({"agent": "sales"})
    talk << ASKED_WHO >> nobody
    mistake = '"agent" is none of desk, billing, tech'
    talk << AskModel(
        (system(), user(WHO), assistant(nobody.text), again(mistake, SHAPE)), role="reasoner", shape=SHAPE, aside=True, max_tokens=512
    )
    with pytest.raises(UnusableReply, match=r"agent desk was asked twice for who should answer.*none of desk, billing, tech") as raised:
        talk >> nobody
    assert "sales" not in raised.value.message


def test_an_agent_that_may_not_hand_off_is_not_even_asked() -> None:
    talk = talk_of(desk(), may_hand_off=False)
    talk << AskModel(OPENING, role="reasoner") >> ModelReply("Hm.") << result("Hm.") >> None
    assert talk.outcome == Answer("Hm.", by="desk")


def test_a_peer_is_called_by_its_name_and_handed_to_by_its_agents() -> None:
    talk = Conversation(swarm(part(peers=(other("billing-desk"),)), OPENING, may_hand_off=True))
    talk >> wrote({"agent": "billing-desk"})
    talk << step(action="hand_off", given={"to": "billing-desk"}) >> None
    assert talk.outcome == HandOff("billing-desk", by="desk")


def test_an_agent_that_says_what_it_is_for_is_a_choice_like_the_others() -> None:
    talk = talk_of(desk(description="first contact"))
    assert isinstance(talk.effect, AskModel)
    assert '{"agent": "desk"}: first contact\n{"agent": "billing"}: invoices and payments' in talk.effect.transcript[-1].content


# By tools.

TO_BILLING = ToolCall("c2", "hand_off_to_billing", '{"reason": "an invoice"}')
LOOK = ToolCall("c1", "clock", "{}")


def by_tools(**keys: object) -> Conversation[Outcome]:
    return talk_of(desk(decides="tools", tools=(CLOCK,), **keys))


def offered(talk: Conversation[Outcome]) -> dict[str, str]:
    assert isinstance(talk.effect, AskModel)
    return {tool.name: tool.description for tool in talk.effect.tools}


def test_peers_are_tools_beside_the_agents_own() -> None:
    talk = by_tools()
    assert offered(talk) == {
        "clock": "What time it is.",
        "hand_off_to_billing": "Hand this conversation to the agent billing, who goes on with it. invoices and payments",
        "hand_off_to_tech": "Hand this conversation to the agent tech, who goes on with it.",
    }
    assert isinstance(talk.effect, AskModel)
    assert (talk.effect.transcript, talk.effect.shape, talk.effect.aside) == (OPENING, None, False)


def test_what_was_found_out_before_a_hand_off_goes_along_and_what_is_called_beside_it_is_not() -> None:
    talk = by_tools()
    noon = (Message("tool", "12:00", tool_call_id="c1"),)
    talk >> ModelReply("Let me see.", (LOOK,), "tool_calls") << CallTools((LOOK,)) >> noon
    talk << step("Let me see.", action="clock", given="{}", seen="12:00") >> None
    talk >> ModelReply("", (LOOK, TO_BILLING), "tool_calls") << step("an invoice", action="hand_off", given={"to": "billing"}) >> None
    looked = (Message("assistant", "Let me see.", (LOOK,)), *noon)
    assert talk.outcome == HandOff("billing", by="desk", reason="an invoice", work=looked)


def test_an_answer_needs_no_hand_off() -> None:
    talk = by_tools()
    talk >> ModelReply("Noon.") << result("Noon.") >> None
    assert talk.outcome == Answer("Noon.", by="desk")


@pytest.mark.parametrize("arguments", ["", "no JSON", "[]", '{"reason": 7}'])
def test_a_hand_off_without_a_readable_reason_is_one(arguments: str) -> None:
    talk = by_tools()
    talk >> ModelReply("", (ToolCall("c", "hand_off_to_tech", arguments),), "tool_calls") >> None
    assert talk.outcome == HandOff("tech", by="desk")


def test_a_reason_without_end_is_cut() -> None:
    talk = by_tools()
    call = ToolCall("c", "hand_off_to_tech", json.dumps({"reason": "because " * 500}))
    talk >> ModelReply("", (call,), "tool_calls") >> None
    assert isinstance(talk.outcome, HandOff)
    assert 400 < len(talk.outcome.reason) <= 500


def test_a_hand_off_to_nobody_is_a_result_that_the_model_can_use() -> None:
    talk = by_tools()
    lost = ToolCall("c9", "hand_off_to_sales", "{}")
    talk >> ModelReply("", (lost, LOOK), "tool_calls") << CallTools((LOOK,)) >> (Message("tool", "12:00", tool_call_id="c1"),) >> None
    assert isinstance(talk.effect, AskModel)
    said = "error: there is nobody of that name to hand off to; there are: hand_off_to_billing, hand_off_to_tech"
    assert talk.effect.transcript[-2:] == (Message("tool", said, tool_call_id="c9"), Message("tool", "12:00", tool_call_id="c1"))


def test_calls_that_a_server_gave_the_same_id_each_get_their_own_result() -> None:
    talk = by_tools()
    lost, look = ToolCall("", "hand_off_to_sales", "{}"), ToolCall("", "clock", "{}")
    talk >> ModelReply("", (lost, look), "tool_calls") << CallTools((look,)) >> (Message("tool", "12:00", tool_call_id=""),) >> None
    assert isinstance(talk.effect, AskModel)
    nobody, clock = talk.effect.transcript[-2:]
    assert nobody.content.startswith("error: there is nobody of that name")
    assert clock.content == "12:00"


def test_a_model_that_only_looks_for_nobody_runs_out_of_turns() -> None:
    talk = by_tools(turns=2)
    lost = ModelReply("", (ToolCall("c9", "hand_off_to_sales", "{}"),), "tool_calls")
    talk >> lost
    with pytest.raises(TurnsExhausted, match="2 times"):
        talk >> lost


def test_a_name_that_servers_refuse_is_numbered() -> None:
    long = "a" * 60
    talk = Conversation(swarm(part(decides="tools", peers=(other("tech"), other(long))), OPENING, may_hand_off=True))
    assert list(offered(talk)) == ["hand_off_to_tech", "hand_off_to_peer_2"]
    talk >> ModelReply("", (ToolCall("c", "hand_off_to_peer_2", "{}"),), "tool_calls") >> None
    assert talk.outcome == HandOff(long, by="desk")

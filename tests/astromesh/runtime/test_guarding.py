"""Guardrails in a run: before anything sees the question, before anybody sees the answer, and before either is remembered."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from tests.rig.guarded import guarded
from tests.rig.held_model import HeldModel
from tests.rig.mesh_view import member
from tests.rig.rooms import Rooms, all_events, an_agent, drained

from astromesh.dialogue import Message, ModelReply, ToolCall, Usage
from astromesh.errors import ModelFailed
from astromesh.memory.port import Conversation
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime.events import RunEvent
from astromesh.runtime.session_costs import SESSIONS_MAX, SessionCosts
from astromesh.tools.backends.datetime_now import DatetimeNow

MAIL = "john@example.com"
HIDDEN = "[REDACTED_EMAIL]"
PII = {"type": "pii_detection"}
NO_WAR = {"type": "topic_filter", "blocked_topics": ["war"], "message": "Not that."}


def said(events: list[RunEvent]) -> str:
    return "".join(event.data["content"] for event in events if event.kind == "token")


def spans(done: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [span["attributes"] for span in done["trace"]["spans"] if span["name"] == name]


async def test_what_is_redacted_on_input_is_what_model_and_memory_see() -> None:
    rooms, model = Rooms(), Scripted(["Noted."])
    agent = an_agent(provider=model, memory=rooms.memory, system="Asked: {{ query }}", context="For {{ who }}")
    rooms.hosts(guarded(agent, input=[PII]))
    done = await rooms.ask(f"I am {MAIL}.", session_id="s1", context={"who": f"<{MAIL}>", "card": 4111111111111111})
    [asked] = model.asked
    assert [message.content for message in asked.transcript] == [f"Asked: I am {HIDDEN}.", f"For <{HIDDEN}>\n\nI am {HIDDEN}."]
    history = await rooms.memory.recall(Conversation("desk", "s1"), now=0.0, turns_max=10)
    assert "john" not in str(history)
    assert HIDDEN in str(history)
    assert spans(done, "guardrails") == [{"redacted": {"a card number": 1, "a mail address": 2}}]
    assert "blocked" not in done


async def test_a_history_that_a_caller_brings_along_is_guarded_too() -> None:
    rooms, model = Rooms(), Scripted(["Noted.", "No."])
    rooms.hosts(guarded(an_agent(provider=model), input=[PII, NO_WAR, {"type": "max_length", "max_chars": 20}]))
    calls = (ToolCall("c1", "mail", json.dumps({"to": [MAIL], "n": 1})),)
    history = (Message("user", MAIL), Message("assistant", "A long answer of more than twenty characters.", calls), Message("tool", MAIL))
    await rooms.ask("And?", history=history)
    [asked] = model.asked
    assert "john" not in str(asked)
    assert json.loads(asked.transcript[1].tool_calls[0].arguments) == {"to": [HIDDEN], "n": 1}
    done = await rooms.ask("And?", history=(Message("user", "About the wаr"),))
    assert (done["answer"], len(model.asked)) == ("Not that.", 1)


async def test_a_blocked_question_reaches_neither_memory_nor_model_and_is_an_outcome() -> None:
    rooms, model = Rooms(), Scripted([])
    rooms.hosts(guarded(an_agent(provider=model, memory=rooms.memory), input=[NO_WAR]))
    events = await all_events(rooms.start("Tell me of W\u200bAR", session_id="s1"))
    done = events[-1].data
    assert (done["answer"], done["blocked"], done["finish_reason"]) == ("Not that.", True, "content_filter")
    assert done["guardrail"] == {"direction": "input", "rule": "topic_filter", "reason": "a blocked topic"}
    assert [event.kind for event in events] == ["route", "token", "done"]
    assert (said(events), done["node"], done["attempts"], done["trace"]["status"]) == ("Not that.", "here", 0, "blocked")
    assert model.asked == []
    assert [span["name"] for span in done["trace"]["spans"]] == ["agent.run", "guardrails"]
    assert (await rooms.memory.recall(Conversation("desk", "s1"), now=0.0, turns_max=10)).turns == ()
    assert 'astromesh_runs_total{agent="desk",outcome="blocked"} 1.0' in rooms.metrics.text().decode()


@pytest.mark.parametrize("watched", [True, False])
async def test_an_answer_streams_redacted_and_is_remembered_as_it_was_shown(watched: bool) -> None:
    rooms = Rooms()
    model = HeldModel("Write ", "to jo", "hn@exam", "ple.c", "om or ", "+1 555 ", "123 45", "67.")
    model.let_all()
    rooms.hosts(guarded(an_agent(provider=model, memory=rooms.memory), output=[PII]))
    events = await all_events(rooms.start("Where?", session_id="s1", watched=watched))
    answer = f"Write to {HIDDEN} or [REDACTED_PHONE]."
    assert said(events) == events[-1].data["answer"] == answer
    history = await rooms.memory.recall(Conversation("desk", "s1"), now=0.0, turns_max=10)
    assert history.turns[0].said == (Message("user", "Where?"), Message("assistant", answer))
    [span] = spans(events[-1].data, "llm.complete")
    assert span["redacted"] == {"a mail address": 1, "a phone number": 1}


async def test_what_cannot_become_a_match_any_more_is_shown_at_once() -> None:
    rooms = Rooms()
    model = HeldModel("Good ", "day ", "to ", "you")
    rooms.hosts(guarded(an_agent(provider=model), output=[PII]))
    run = rooms.start("Hello")
    stream = aiter(run.events)
    model.let(2)
    assert [(await anext(stream)).kind, (await anext(stream)).data["content"]] == ["route", "Good "]
    model.let(1)
    assert (await anext(stream)).data["content"] == "day "
    model.let(2)
    rest, failure = await drained(stream)
    assert (said(rest), failure) == ("to you", None)
    await run.close()


async def test_of_a_blocked_answer_nothing_is_shown_but_the_message() -> None:
    rooms = Rooms()
    model = Scripted(["First peace, then war."])
    rooms.hosts(guarded(an_agent(provider=model, memory=rooms.memory), output=[NO_WAR]))
    events = await all_events(rooms.start("Tell me", session_id="s1"))
    done = events[-1].data
    assert said(events) == done["answer"] == "Not that."
    assert done["guardrail"] == {"direction": "output", "rule": "topic_filter", "reason": "a blocked topic"}
    assert (done["usage"]["tokens_out"], done["steps"][-1]["result"]) == (4, "Not that.")
    assert "peace" not in str([event.data for event in events])
    assert "peace" not in str(await rooms.memory.recall(Conversation("desk", "s1"), now=0.0, turns_max=10))


async def test_an_answer_that_came_in_one_piece_is_guarded_as_well() -> None:
    class Whole(Scripted):
        async def complete(self, request: Any, *, timeout_s: float) -> Any:
            yield ModelReply(f"Ask {MAIL}.", usage=Usage(1, 1))

    rooms = Rooms()
    rooms.hosts(guarded(an_agent(provider=Whole([])), output=[PII]))
    assert (await rooms.ask(watched=False))["answer"] == f"Ask {HIDDEN}."


async def test_what_tools_are_asked_is_theirs_and_what_is_shown_and_kept_of_it_is_guarded() -> None:
    rooms = Rooms()
    call = ToolCall("c1", "datetime_now", json.dumps({"timezone": MAIL}))
    model = Scripted([ModelReply(f"I ask for {MAIL}.", (call,), "tool_calls"), "Done."])
    rooms.hosts(guarded(an_agent(provider=model, tools=[DatetimeNow()], memory=rooms.memory), output=[PII]))
    events = await all_events(rooms.start("Go", session_id="s1"))
    assert MAIL not in str([event.data for event in events])
    assert json.loads(events[-1].data["steps"][0]["action_input"]) == {"timezone": HIDDEN}
    assert model.asked[1].transcript[-2].tool_calls[0].arguments == call.arguments
    assert MAIL not in str(await rooms.memory.recall(Conversation("desk", "s1"), now=0.0, turns_max=10))


async def test_a_remark_before_a_tool_is_no_answer_and_may_lack_the_topic() -> None:
    rooms = Rooms()
    replies = [ModelReply("Let me look.", (ToolCall("c1", "datetime_now", "{}"),), "tool_calls"), "Chess is at noon.", "Yes."]
    rule = {"type": "topic_filter", "allowed_topics": ["chess"]}
    rooms.hosts(guarded(an_agent(provider=Scripted(replies), tools=[DatetimeNow()]), output=[rule]))
    assert (await rooms.ask())["answer"] == "Chess is at noon."
    assert (await rooms.ask())["guardrail"]["reason"] == "none of the allowed topics"


async def test_a_warning_is_recorded_without_what_was_found() -> None:
    rooms = Rooms()
    rules = [{**PII, "action": "warn"}, {"type": "max_length", "max_chars": 3, "action": "warn"}]
    rooms.hosts(guarded(an_agent(provider=Scripted([f"Ask {MAIL}."])), input=rules, output=rules))
    events = await all_events(rooms.start(f"I am {MAIL}"))
    done = events[-1].data
    assert said(events) == done["answer"] == f"Ask {MAIL}."
    assert done["warnings"] == [
        {"direction": direction, "rule": rule, "reason": reason}
        for direction in ("input", "output")
        for rule, reason in (("pii_detection", "a mail address"), ("max_length", "more than 3 characters"))
    ]
    assert spans(done, "guardrails") == [{"warned": ["pii_detection", "max_length"]}]
    assert "john" not in str(done["trace"])


async def test_nothing_of_what_is_guarded_is_logged_or_in_an_error(caplog: pytest.LogCaptureFixture) -> None:
    rooms = Rooms()
    failure = ModelFailed("gone", code="model_timeout")
    rooms.hosts(guarded(an_agent(provider=Scripted([f"Ask {MAIL}.", failure])), input=[PII], output=[PII]))
    with caplog.at_level(logging.DEBUG):
        await rooms.ask(f"I am {MAIL}")
        _, raised = await drained(rooms.start(f"I am {MAIL}").events)
    assert raised is failure
    assert "john" not in caplog.text
    assert "john" not in str([trace.as_json() for trace in rooms.traces.recent(agent=None, limit=9)])


async def test_an_agent_that_is_asked_on_another_node_guards_the_same_way() -> None:
    a, b = Rooms("a", linked=True), Rooms("b", linked=True)
    model = Scripted([f"Ask {MAIL}."])
    b.hosts(guarded(an_agent(provider=model), input=[PII, NO_WAR], output=[PII]))
    async with a.open_door(), b.open_door() as door:
        a.sees(member("b-000000", link=door, agents=["desk"]))
        events = await all_events(a.start(f"I am {MAIL}"))
        blocked = await all_events(a.start("War"))
    assert said(events) == events[-1].data["answer"] == f"Ask {HIDDEN}."
    assert model.asked[0].transcript == (Message("user", f"I am {HIDDEN}"),)
    assert (blocked[-1].data["blocked"], blocked[-1].data["answer"], said(blocked)) == (True, "Not that.", "Not that.")


async def test_a_model_on_another_node_gets_the_guarded_question_and_its_tokens_are_guarded_here() -> None:
    a, b = Rooms("a", linked=True), Rooms("b", linked=True)
    model = HeldModel("Ask jo", "hn@ex", "ample.com.")
    model.let_all()
    b.has(model)
    a.hosts(guarded(an_agent(), input=[PII], output=[PII]))
    async with a.open_door(), b.open_door() as door:
        a.sees(member("b-000000", link=door, models=["m"]))
        events = await all_events(a.start(f"I am {MAIL}"))
    assert model.asked[0].transcript == (Message("user", f"I am {HIDDEN}"),)
    assert said(events) == f"Ask {HIDDEN}."


LOOK = ModelReply("", (ToolCall("c1", "datetime_now", "{}"),), "tool_calls", Usage(30, 10))


async def test_a_turn_that_has_used_up_its_tokens_asks_no_model_again() -> None:
    rooms = Rooms()
    model = Scripted([LOOK, LOOK, "Never said."])
    rule = {"type": "cost_limit", "max_tokens_per_turn": 50, "message": "Too dear."}
    rooms.hosts(guarded(an_agent(provider=model, tools=[DatetimeNow()]), output=[rule]))
    done = await rooms.ask()
    assert [asked.sampling.max_tokens for asked in model.asked] == [50, 10]
    assert (done["answer"], done["guardrail"]) == (
        "Too dear.",
        {"direction": "output", "rule": "cost_limit", "reason": "the 50 tokens of a turn are used up"},
    )


async def test_a_session_that_has_used_up_its_tokens_is_refused_before_anything_is_asked_and_others_go_on() -> None:
    rooms = Rooms()
    model = Scripted(["One two three.", "Four.", "Five."])
    rule = {"type": "cost_limit", "max_tokens_per_session": 4}
    rooms.hosts(guarded(an_agent(provider=model), input=[rule]))
    assert "blocked" not in await rooms.ask(session_id="s1")
    refused = await rooms.ask(session_id="s1")
    assert (refused["guardrail"]["direction"], refused["guardrail"]["rule"]) == ("input", "cost_limit")
    assert (await rooms.ask(session_id="s2"))["answer"] == "Four."
    assert len(model.asked) == 2


async def test_a_limit_of_costs_that_warns_lets_everything_pass() -> None:
    rooms = Rooms()
    rule = {"type": "cost_limit", "max_tokens_per_session": 1, "action": "warn"}
    model = Scripted(["One.", "Two."])
    rooms.hosts(guarded(an_agent(provider=model), output=[rule]))
    await rooms.ask(session_id="s1")
    done = await rooms.ask(session_id="s1")
    assert (done["answer"], done["warnings"][0]["rule"], model.asked[1].sampling.max_tokens) == ("Two.", "cost_limit", None)


def test_the_costs_of_a_bounded_number_of_sessions_are_kept() -> None:
    costs = SessionCosts()
    for number in range(SESSIONS_MAX + 1):
        costs.add(Conversation("desk", str(number)), 1)
    assert (costs.spent(Conversation("desk", "0")), costs.spent(Conversation("desk", "1"))) == (0, 1)

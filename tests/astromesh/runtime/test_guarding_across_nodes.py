"""Guardrails of agents that work for each other, here and over links: what one promises to its reader, no other gives away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.rig.company import gives, goes_to, in_a_swarm, supervising
from tests.rig.doors import open_doors, sent_events
from tests.rig.guarded import guarded
from tests.rig.held_model import HeldModel
from tests.rig.rooms import Rooms, all_events, an_agent
from tests.rig.three import Three, three

from astromesh.dialogue import ModelReply, ToolCall
from astromesh.memory.port import Conversation
from astromesh.orchestration.plan import Member
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime.agent import Agent
from astromesh.runtime.events import RunEvent
from astromesh.specs.schemas import Schema
from astromesh.tools.backends.datetime_now import DatetimeNow

MAIL = "john@example.com"
HIDDEN = "[REDACTED_EMAIL]"
PII: Any = [{"type": "pii_detection"}]
NO_WAR: Any = [{"type": "topic_filter", "blocked_topics": ["war"], "message": "Not that."}]

ATTACKS = {
    "as it is": MAIL,
    "with spaces": "john @ example . com",
    "spelled out": "john [at] example [dot] com",
    "letter by letter": "j o h n @ e x a m p l e . c o m",
    "in Cyrillic": "jоhn@exаmple.cоm",
    "full-width": "ｊｏｈｎ＠ｅｘａｍｐｌｅ．ｃｏｍ",
    "with nothing between": "jo\u200bhn@exam\u2060ple.c\ufeffom",
    "mathematical": "𝗷𝗼𝗵𝗻@𝗲𝘅𝗮𝗺𝗽𝗹𝗲.𝗰𝗼𝗺",
}
LOOK = ModelReply(f"I ask for {MAIL}.", (ToolCall("c1", "datetime_now", json.dumps({"timezone": MAIL})),), "tool_calls")


@asynccontextmanager
async def company(here: Agent, there: Agent, *, apart: bool) -> AsyncIterator[Three]:
    """Node `a` is asked; the other agent is on `b`, or on `a` as well."""
    async with three() as nodes:
        nodes.a.hosts(here)
        (nodes.b if apart else nodes.a).hosts(there)
        nodes.meet()
        yield nodes


async def all_told(node: Rooms, *, session_id: str = "s1", **how: Any) -> tuple[list[RunEvent], str]:
    """The events of a run, and all that can be read of it: those, traces and memories."""
    events = await all_events(node.start(how.pop("query", "Hello"), session_id=session_id, **how))
    kept = await node.memory.recall(Conversation(how.get("agent", "desk"), session_id), now=0.0, turns_max=9)
    traces = [trace.as_json() for trace in node.traces.recent(agent=None, limit=9)]
    return events, f"{[event.data for event in events]} {kept} {traces}"


def said(events: list[RunEvent]) -> str:
    return "".join(event.data["content"] for event in events if event.kind == "token")


apart = pytest.mark.parametrize("apart", [False, True], ids=["on one node", "on two nodes"])


@apart
@pytest.mark.parametrize("whose", ["of who handed over", "of who speaks"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_who_takes_a_conversation_over_speaks_under_both_agents_rules(apart: bool, whose: str, attack: str) -> None:
    text = f"Write to {attack} today"
    model = HeldModel(*[text[start : start + 3] for start in range(0, len(text), 3)])
    model.let_all()
    desk = in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")]))
    billing = an_agent("billing", provider=model)
    desk, billing = (guarded(desk, output=PII), billing) if "handed" in whose else (desk, guarded(billing, output=PII))
    async with company(desk, billing, apart=apart) as nodes:
        events, told = await all_told(nodes.a)
    assert said(events) == events[-1].data["answer"] == f"Write to {HIDDEN} today"
    assert attack not in told


@apart
async def test_what_blocks_the_one_who_handed_over_blocks_the_one_who_speaks(apart: bool) -> None:
    desk = guarded(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])), output=NO_WAR)
    async with company(desk, an_agent("billing", provider=Scripted(["First peace, then war."])), apart=apart) as nodes:
        events, told = await all_told(nodes.a)
    done = events[-1].data
    assert (said(events), done["answer"], done["blocked"], done["finish_reason"]) == ("Not that.", "Not that.", True, "content_filter")
    assert done["guardrail"]["rule"] == "topic_filter"
    assert "peace" not in told


@apart
async def test_rules_of_the_one_who_speaks_come_before_those_of_the_one_who_handed_over(apart: bool) -> None:
    no_marks: Any = [{"type": "content_filter", "forbidden_keywords": ["redacted_email"], "message": "No marks."}]
    desk = guarded(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])), output=no_marks)
    async with company(desk, guarded(an_agent("billing", provider=Scripted([MAIL])), output=PII), apart=apart) as nodes:
        events, _ = await all_told(nodes.a)
    assert events[-1].data["answer"] == "No marks."


@apart
@pytest.mark.parametrize("whose", ["of who handed over", "of who speaks"])
async def test_what_tools_of_the_next_agent_were_asked_is_shown_and_kept_guarded(apart: bool, whose: str) -> None:
    rooms = Rooms()
    desk = in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")]), memory=rooms.memory)
    model = Scripted([LOOK, "Done."])
    billing = an_agent("billing", provider=model, tools=[DatetimeNow()])
    desk, billing = (guarded(desk, output=PII), billing) if "handed" in whose else (desk, guarded(billing, output=PII))
    async with company(desk, billing, apart=apart) as nodes:
        nodes.a.memory = rooms.memory
        events, told = await all_told(nodes.a)
        kept = await rooms.memory.recall(Conversation("desk", "s1"), now=0.0, turns_max=9)
    assert events[-1].data["answer"] == "Done."
    assert "john" not in told
    assert [call.name for message in kept.turns[0].said for call in message.tool_calls] == ["datetime_now"]
    assert MAIL in model.asked[1].transcript[-2].tool_calls[0].arguments  # its own model knows what it asked


@apart
async def test_steps_and_tools_of_a_worker_are_shown_under_the_rules_of_the_one_who_asked(apart: bool) -> None:
    boss = Scripted([gives(("left", "Look.")), gives(), "Done."])
    worker = an_agent("left", provider=Scripted([LOOK, f"It is {MAIL}."]), tools=[DatetimeNow()])
    async with company(guarded(supervising("boss", "left", provider=boss), output=PII), worker, apart=apart) as nodes:
        events, told = await all_told(nodes.a, agent="boss")
    assert "john" not in told
    assert {event.data.get("agent") for event in events if event.kind == "step"} == {None, "left"}
    assert MAIL in boss.asked[1].transcript[-1].content  # for its model it is as the result of a tool


@apart
async def test_what_a_worker_answers_is_guarded_by_its_own_rules_before_anybody_has_it(apart: bool) -> None:
    boss = Scripted([gives(("left", "Look.")), gives(), "Done."])
    worker = guarded(an_agent("left", provider=Scripted([LOOK, f"It is {MAIL}."]), tools=[DatetimeNow()]), output=PII)
    async with company(supervising("boss", "left", provider=boss), worker, apart=apart) as nodes:
        _, told = await all_told(nodes.a, agent="boss")
    assert "john" not in told
    assert f"It is {HIDDEN}." in boss.asked[1].transcript[-1].content
    assert "john" not in str(boss.asked)


@apart
async def test_what_is_asked_is_guarded_by_the_first_agent_for_all_and_by_the_next_for_itself(apart: bool) -> None:
    for first, second, seen in ((PII, (), HIDDEN), ((), PII, HIDDEN), ((), (), MAIL)):
        desk = guarded(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])), input=first)
        model = Scripted(["Paid."])
        async with company(desk, guarded(an_agent("billing", provider=model), input=second), apart=apart) as nodes:
            await nodes.a.ask(f"I am {MAIL}.", context={"who": MAIL})
        assert f"I am {seen}." in model.asked[0].transcript[-1].content


@apart
async def test_data_under_a_schema_is_guarded_by_both(apart: bool) -> None:
    desk = guarded(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])), output=PII)
    billing = an_agent("billing", provider=Scripted([json.dumps({"mail": MAIL})]))
    billing = with_schema(billing, Schema({"type": "object"}))
    async with company(desk, billing, apart=apart) as nodes:
        events, told = await all_told(nodes.a)
    assert events[-1].data["data"] == {"mail": HIDDEN}
    assert "john" not in told


def with_schema(agent: Agent, schema: Schema) -> Agent:
    return replace(agent, part=replace(agent.part, output=schema))


async def test_why_a_conversation_was_handed_over_is_told_guarded() -> None:
    call = ToolCall("c1", "hand_off_to_billing", json.dumps({"reason": f"{MAIL} asks."}))
    agent = an_agent("desk", provider=Scripted([ModelReply("", (call,), "tool_calls")]))
    part = replace(agent.part, pattern="swarm", decides="tools", peers=(Member("billing", agent="billing"),), hand_offs_max=2)
    desk = guarded(replace(agent, part=part), output=PII)
    async with company(desk, an_agent("billing", provider=Scripted(["Paid."])), apart=True) as nodes:
        events, told = await all_told(nodes.a)
    assert "john" not in told
    assert events[-1].data["steps"][0]["thought"] == f"{HIDDEN} asks."


async def test_a_worker_of_a_worker_is_shown_under_the_rules_of_the_one_between_them() -> None:
    async with three() as nodes:
        boss = guarded(supervising("boss", "left", provider=Scripted([gives(("left", "Look.")), gives(), "Done."])), output=PII)
        nodes.a.hosts(in_a_swarm("desk", "boss", provider=Scripted([goes_to("boss")])))
        nodes.b.hosts(boss)
        nodes.c.hosts(an_agent("left", provider=Scripted([LOOK, f"It is {MAIL}."]), tools=[DatetimeNow()]))
        nodes.meet()
        events, told = await all_told(nodes.a)
    assert events[-1].data["answer"] == "Done."
    assert {event.data.get("agent") for event in events if event.kind == "step"} == {None, "boss", "left"}
    assert "john" not in told


async def test_at_every_door_of_the_first_node_an_agent_of_the_second_speaks_under_both_agents_rules() -> None:
    async with three() as nodes:
        desk = guarded(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")] * 4)), output=PII)
        nodes.a.hosts(desk)
        nodes.b.hosts(an_agent("billing", provider=Scripted([f"It is {MAIL}."] * 4)))
        nodes.meet()
        async with open_doors(nodes.a) as doors:
            asked = {"model": "agent:desk", "messages": [{"role": "user", "content": "Hello"}]}
            async with doors.http.post("/v1/chat/completions", json=asked) as response:
                whole = await response.json()
            async with doors.http.post("/v1/chat/completions", json={**asked, "stream": True}) as response:
                chunks = await response.text()
            async with doors.http.post("/v1/agents/desk/run", json={"query": "Hello", "stream": True}) as response:
                sent = [event async for event in sent_events(response)]
            async with doors.http.ws_connect("/v1/ws/agent/desk") as talk:
                await talk.send_json({"query": "Hello"})
                spoken: list[Any] = []
                while not spoken or spoken[-1]["type"] != "done":
                    spoken.append(await talk.receive_json())
    assert whole["choices"][0]["message"]["content"] == sent[-1].data["answer"] == spoken[-1]["answer"] == f"It is {HIDDEN}."
    for told in (whole, chunks, sent, spoken):
        assert "john" not in str(told)
        assert "REDACTED_EMAIL" in str(told)

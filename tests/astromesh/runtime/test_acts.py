"""Acts of other agents on one node: who speaks, what binds them, and how circles and failures end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.rig.company import gives, goes_to, in_a_swarm, supervising
from tests.rig.guarded import guarded
from tests.rig.held_model import AMPLE_S, HeldModel
from tests.rig.rooms import Rooms, all_events, an_agent, drained

from astromesh.dialogue import Message, ModelReply, ToolCall, ToolSchema
from astromesh.errors import AgentPaused, DeadlineExceeded, DelegationRefused, ModelFailed, UnknownAgent
from astromesh.memory.port import Conversation
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime import acts, stage
from astromesh.runtime.agent_tools import TASK, AgentTool
from astromesh.runtime.events import RunEvent

BUSY = ModelFailed("busy", code="model_provider_unavailable", definite=True)


def said(events: list[RunEvent]) -> str:
    return "".join(event.data["content"] for event in events if event.kind == "token")


def spans(done: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {span["id"]: span for span in done["trace"]["spans"]}


def ancestry(done: Mapping[str, Any], name: str) -> list[list[str]]:
    """For each span of that name: its own and those around it, outermost first."""
    known = spans(done)

    def way(span: dict[str, Any]) -> list[str]:
        return [*(way(known[span["parent"]]) if "parent" in span else []), span["name"]]

    return [way(span) for span in known.values() if span["name"] == name]


# Taking over.


async def test_who_is_handed_a_conversation_goes_on_with_its_own_prompt_model_and_voice() -> None:
    rooms = Rooms()
    desk, billing = Scripted([goes_to("billing")]), Scripted(["Your invoice is paid."])
    rooms.hosts(
        in_a_swarm("desk", "billing", provider=desk, system="You are the desk."),
        an_agent("billing", provider=billing, system="You are billing, for {{ who }}."),
    )
    events = await all_events(rooms.start("My invoice?", context={"who": "Ada"}))
    done = events[-1].data
    assert said(events) == done["answer"] == "Your invoice is paid."
    [asked] = billing.asked
    assert asked.transcript[0] == Message("system", "You are billing, for Ada.")
    assert "My invoice?" in asked.transcript[-1].content
    assert done["handoffs"] == [{"from": "desk", "to": "billing", "node": "here"}]
    kinds = [event.kind for event in events]
    assert kinds.index("handoff") < kinds.index("token")
    assert [row["calls"] for row in done["usage"]["by_model"]] == [2]
    assert ancestry(done, "llm.complete") == [["agent.run", "llm.complete"], ["agent.run", "handoff", "agent.run", "llm.complete"]]


async def test_the_turn_is_kept_by_the_agent_that_was_asked_and_by_no_other() -> None:
    rooms = Rooms()
    rooms.hosts(
        in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")]), memory=rooms.memory),
        an_agent("billing", provider=Scripted(["Paid."]), memory=rooms.memory),
    )
    await rooms.ask("My invoice?", session_id="s1")
    kept = await rooms.memory.recall(Conversation("desk", "s1"), now=0.0, turns_max=9)
    assert [message.content for message in kept.turns[0].said] == ["My invoice?", "Paid."]
    assert (await rooms.memory.recall(Conversation("billing", "s1"), now=0.0, turns_max=9)).turns == ()


async def test_each_agent_speaks_under_its_own_guardrails_and_a_block_is_the_runs() -> None:
    rooms = Rooms()
    billing = guarded(
        an_agent("billing", provider=Scripted(["Ask eve@example.com about the war."])),
        output=[{"type": "topic_filter", "blocked_topics": ["war"], "message": "Not that."}],
    )
    rooms.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])), billing)
    events = await all_events(rooms.start())
    done = events[-1].data
    assert (said(events), done["answer"], done["blocked"], done["finish_reason"]) == ("Not that.", "Not that.", True, "content_filter")
    assert done["guardrail"]["rule"] == "topic_filter"


async def test_what_the_next_agent_may_not_be_asked_is_refused_by_its_own_rules() -> None:
    rooms = Rooms()
    model = Scripted([])
    rules = [{"type": "topic_filter", "blocked_topics": ["war"], "message": "Not me."}]
    rooms.hosts(
        in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])), guarded(an_agent("billing", provider=model), input=rules)
    )
    done = await rooms.ask("What of the war?")
    assert (done["answer"], done["blocked"], model.asked) == ("Not me.", True, [])


async def test_an_agent_that_nobody_has_ends_the_run_and_names_who_handed_over() -> None:
    rooms = Rooms()
    rooms.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
    run = rooms.start()
    _, failure = await drained(run.events)
    await run.close()
    assert isinstance(failure, UnknownAgent)
    assert "desk handed the conversation to billing" in failure.message


async def test_an_agent_that_is_paused_takes_nothing_over() -> None:
    rooms = Rooms()
    rooms.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
    rooms.runtime.paused["billing"] = an_agent("billing", provider=Scripted(["No."]))
    run = rooms.start()
    _, failure = await drained(run.events)
    await run.close()
    assert isinstance(failure, AgentPaused)


# Delegating.


async def test_workers_answer_side_by_side_and_nobody_sees_it_but_the_one_who_asked() -> None:
    rooms = Rooms()
    boss = Scripted([gives(("left", "Count."), ("right", "Weigh.")), gives(), "Two, and heavy."])
    left, right = HeldModel("Two."), HeldModel("Heavy.")
    rooms.hosts(supervising("boss", "left", "right", provider=boss), an_agent("left", provider=left), an_agent("right", provider=right))
    run = rooms.start("How many?", agent="boss")
    reading = asyncio.create_task(drained(run.events))
    await left.was_begun()
    await right.was_begun()  # both are asked, and neither has said a word
    left.let_all()
    right.let_all()
    async with asyncio.timeout(AMPLE_S):
        events, failure = await reading
    assert failure is None
    assert said(events) == events[-1].data["answer"] == "Two, and heavy."
    assert [message.content for message in left.asked[0].transcript] == ["Count."]
    assert "Two." in boss.asked[1].transcript[-1].content
    assert "Heavy." in boss.asked[1].transcript[-1].content
    assert {event.data["agent"] for event in events if event.kind == "step" and "agent" in event.data} == {"left", "right"}
    under = ["agent.run", "together", "delegate", "agent.run", "llm.complete"]
    assert ancestry(events[-1].data, "llm.complete").count(under) == 2


async def test_a_worker_that_fails_is_told_to_the_one_who_asked_and_the_others_answer() -> None:
    rooms = Rooms()
    boss = Scripted([gives(("left", "Count."), ("right", "Weigh.")), gives(), "Heavy."])
    rooms.hosts(
        supervising("boss", "left", "right", provider=boss),
        an_agent("left", provider=Scripted([BUSY])),
        an_agent("right", provider=Scripted(["Heavy."])),
    )
    done = await rooms.ask(agent="boss")
    assert done["answer"] == "Heavy."
    assert "(failed: busy)" in boss.asked[1].transcript[-1].content
    assert [span["attributes"].get("error") for span in spans(done).values() if span["name"] == "delegate"] == [BUSY.code, None]


async def test_no_more_acts_run_side_by_side_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "TOGETHER_AT_ONCE_MAX", 2)
    rooms = Rooms()
    names = [f"w{number}" for number in range(4)]
    worker = HeldModel("Yes.")
    boss = Scripted([gives(*((name, "Go.") for name in names)), gives(), "Done."])
    rooms.hosts(supervising("boss", *names, provider=boss), *(an_agent(name, provider=worker) for name in names))
    run = rooms.start(agent="boss")
    reading = asyncio.create_task(drained(run.events))
    most = 0
    async with asyncio.timeout(AMPLE_S):
        while not reading.done():
            most = max(most, worker.open)
            worker.let()
            for _ in range(20):
                await asyncio.sleep(0)
    assert (most, worker.finished) == (2, 4)


async def test_an_agent_as_a_tool_is_a_delegation_of_the_run_and_its_span_lies_under_the_tools() -> None:
    rooms = Rooms()
    tool = AgentTool(ToolSchema("ask_left", "Counts.", TASK), agent="left")
    calls = ModelReply("", (ToolCall("c1", "ask_left", '{"task": "Count."}'),), "tool_calls")
    model = Scripted([calls, "Two."])
    rooms.hosts(an_agent(provider=model, tools=[tool]), an_agent("left", provider=Scripted(["2"])))
    done = await rooms.ask()
    assert (done["answer"], model.asked[1].transcript[-1].content) == ("Two.", "2")
    assert ["agent.run", "tool.call", "delegate", "agent.run", "llm.complete"] in ancestry(done, "llm.complete")


async def test_an_agent_that_would_wait_for_itself_is_not_asked_and_the_error_shows_the_circle() -> None:
    rooms = Rooms()
    boss = Scripted([gives(("left", "You do it.")), gives(), "Nobody did."])
    left = Scripted([gives(("boss", "No, you.")), gives(), "I cannot."])
    rooms.hosts(supervising("boss", "left", provider=boss), supervising("left", "boss", provider=left))
    done = await rooms.ask(agent="boss")
    assert done["answer"] == "Nobody did."
    assert "boss → left → boss" in left.asked[1].transcript[-1].content
    assert len(boss.asked) == 3


async def test_no_more_agents_wait_for_each_other_than_the_limit() -> None:
    names = [f"a{number}" for number in range(acts.PATH_MAX)]
    acts.refuse_circles(tuple(names[:-1]), "another")
    with pytest.raises(DelegationRefused, match="a0 → a1"):
        acts.refuse_circles(tuple(names), "another")


async def test_a_hand_off_ends_who_handed_off_so_the_next_may_ask_it() -> None:
    rooms = Rooms()
    desk = Scripted([goes_to("left"), "From the desk."])
    left = Scripted([gives(("desk", "You know it.")), gives(), "The desk says so."])
    rooms.hosts(in_a_swarm("desk", "left", provider=desk), supervising("left", "desk", provider=left))
    assert (await rooms.ask())["answer"] == "The desk says so."
    assert "From the desk." in left.asked[1].transcript[-1].content


# What is left.


def spending(*replies: str) -> Scripted:
    """4 tokens for every reply, whatever was asked."""
    from astromesh.dialogue import Usage

    return Scripted([ModelReply(text, model="m", usage=Usage(2, 2)) for text in replies])


async def test_a_callers_limit_of_tokens_binds_whom_it_asks() -> None:
    rooms = Rooms()
    limit = [{"type": "cost_limit", "max_tokens_per_turn": 10, "message": "Enough."}]
    boss = spending(gives(("left", "Go.")), gives(), "Never said.")
    left = spending("One.", "Two.")
    rooms.hosts(guarded(supervising("boss", "left", provider=boss), output=limit), an_agent("left", provider=left))
    done = await rooms.ask(agent="boss")
    assert left.asked[0].sampling.max_tokens == 6
    assert boss.asked[1].sampling.max_tokens == 2
    assert (done["answer"], done["blocked"], len(boss.asked)) == ("Enough.", True, 2)
    assert done["usage"]["tokens_in"] + done["usage"]["tokens_out"] == 12


async def test_a_limit_of_the_one_who_is_asked_is_of_its_own_part_alone() -> None:
    rooms = Rooms()
    limit = [{"type": "cost_limit", "max_tokens_per_turn": 6}]
    left = spending("One.")
    boss = spending(gives(("left", "Go.")), gives(), "Done.")
    rooms.hosts(supervising("boss", "left", provider=boss), guarded(an_agent("left", provider=left), output=limit))
    done = await rooms.ask(agent="boss")
    assert (left.asked[0].sampling.max_tokens, done["answer"], "blocked" in done) == (6, "Done.", False)


async def test_a_limit_for_sessions_counts_what_the_agent_did_in_them_for_others() -> None:
    rooms = Rooms()
    limit = [{"type": "cost_limit", "max_tokens_per_session": 4, "message": "Enough of me."}]
    left = spending("One.", "Never said.")
    boss = spending(*[gives(("left", "Go.")), gives(), "Done."] * 2)
    rooms.hosts(supervising("boss", "left", provider=boss), guarded(an_agent("left", provider=left), output=limit))
    for _ in range(2):
        await rooms.ask(agent="boss", session_id="s1")
    assert "One." in boss.asked[1].transcript[-1].content
    assert "Enough of me." in boss.asked[4].transcript[-1].content
    assert len(left.asked) == 1


async def test_a_part_that_takes_too_long_says_whose_limit_it_was_and_what_was_done_by_then() -> None:
    rooms = Rooms()
    slow = HeldModel("never")
    rooms.hosts(in_a_swarm("desk", "slow", provider=Scripted([goes_to("slow")])), an_agent("slow", provider=slow, timeout_s=0.05))
    run = rooms.start()
    _, failure = await drained(run.events)
    await run.close()
    assert isinstance(failure, DeadlineExceeded)
    assert failure.details is not None
    assert (failure.details["agent"], failure.details["timeout_seconds"]) == ("slow", 0.05)
    assert [step["action"] for step in failure.details["steps"]] == ["hand_off"]
    assert slow.open == 0


async def test_the_runs_own_limit_ends_every_act_of_it() -> None:
    rooms = Rooms()
    left, right = HeldModel("never"), HeldModel("never")
    boss = Scripted([gives(("left", "Go."), ("right", "Go."))])
    rooms.hosts(
        supervising("boss", "left", "right", provider=boss, timeout_s=0.1),
        an_agent("left", provider=left),
        an_agent("right", provider=right),
    )
    run = rooms.start(agent="boss")
    _, failure = await drained(run.events)
    await run.close()
    assert isinstance(failure, DeadlineExceeded)
    assert failure.details is not None
    assert (failure.details["agent"], left.open, right.open) == ("boss", 0, 0)


async def test_a_client_that_leaves_ends_every_act() -> None:
    rooms = Rooms()
    left, right = HeldModel("never"), HeldModel("never")
    boss = Scripted([gives(("left", "Go."), ("right", "Go."))])
    rooms.hosts(supervising("boss", "left", "right", provider=boss), an_agent("left", provider=left), an_agent("right", provider=right))
    run = rooms.start(agent="boss")
    await left.was_begun()
    await right.was_begun()
    await run.close()
    assert (left.open, right.open, rooms.runtime.active_runs) == (0, 0, 0)
    trace = rooms.traces.get("r1")
    assert trace is not None
    assert all(span.duration_ms is not None for span in trace.spans)


async def test_usage_has_a_row_for_each_provider_model_and_role() -> None:
    rooms = Rooms()
    agent = supervising("boss", "left", provider=Scripted([gives(("left", "Go.")), gives(), "Done."]))
    rooms.hosts(agent, an_agent("left", model="m2", provider=Scripted(["Yes."])))
    done = await rooms.ask(agent="boss")
    rows = {(row["provider"], row["model"], row["role"]): row["calls"] for row in done["usage"]["by_model"]}
    assert rows == {("local", "m", "default"): 3, ("local", "m2", "default"): 1}
    assert done["usage"]["tokens_out"] == sum(row["tokens_out"] for row in done["usage"]["by_model"])


async def test_a_decision_is_asked_for_under_its_shape_in_one_piece_and_shown_to_nobody() -> None:
    rooms = Rooms()
    model = Scripted([goes_to("desk"), "Me."])
    rooms.hosts(in_a_swarm("desk", "billing", provider=model))
    events = await all_events(rooms.start())
    assert said(events) == "Me."
    decision, answer = model.asked
    assert decision.response_format is not None
    assert decision.response_format["type"] == "json_schema"
    assert decision.response_format["json_schema"]["schema"]["properties"]["agent"]["enum"] == ["desk", "billing"]
    assert (decision.stream, answer.stream, answer.response_format) == (False, True, None)


async def test_replacing_an_agent_does_not_touch_the_runs_under_way() -> None:
    rooms = Rooms()
    model = HeldModel("Old.")
    rooms.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])), an_agent("billing", provider=model))
    run = rooms.start()
    await model.was_begun()
    rooms.hosts(replace(an_agent("billing", provider=Scripted(["New."])), version="2.0.0"))
    model.let_all()
    assert (await all_events(run))[-1].data["answer"] == "Old."

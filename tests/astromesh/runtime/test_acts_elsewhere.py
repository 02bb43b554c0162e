"""Acts over real links on loopback: `a` conducts, `b` and `c` perform; one stream, one account and one trace at the home."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from tests.rig.company import gives, goes_to, in_a_swarm, supervising
from tests.rig.guarded import guarded
from tests.rig.held_model import AMPLE_S, HeldModel
from tests.rig.mesh_view import member
from tests.rig.ports import free_port
from tests.rig.rooms import MODEL, Rooms, all_events, an_agent, drained
from tests.rig.three import three, until_idle

from astromesh.dialogue import ModelReply, ToolCall, ToolSchema, Usage
from astromesh.errors import (
    AgentUnavailable,
    AstromeshError,
    BodyTooLarge,
    DeadlineExceeded,
    MalformedBody,
    ModelFailed,
    Overloaded,
    PeerLost,
    RunCancelled,
    UnknownRun,
)
from astromesh.memory.port import Conversation
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime import engine
from astromesh.runtime.agent_tools import TASK, AgentTool
from astromesh.runtime.engine import Run
from astromesh.runtime.events import RunEvent
from astromesh.runtime.peers import ACT
from maia.config import Address
from maia.drivers.link import IncomingCall
from maia.drivers.switchboard import Switchboard
from maia.links.greeting import Greeting

BROKE = ModelFailed("it broke off", code="model_provider_unavailable")


def said(events: list[RunEvent]) -> str:
    return "".join(event.data["content"] for event in events if event.kind == "token")


async def failure_of(run: Run) -> AstromeshError:
    _, failure = await drained(run.events)
    await run.close()
    assert failure is not None, "the run went well"
    return failure


# Taking over.


async def test_a_conversation_is_handed_to_another_node_whose_model_is_on_a_third_and_streams_word_by_word() -> None:
    async with three() as nodes:
        model = HeldModel("Your ", "invoice ", "is ", "paid.")
        nodes.c.has(model)
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        nodes.b.hosts(an_agent("billing", system="You are billing, for {{ who }}."))
        nodes.meet()
        run = nodes.a.start("My invoice?", context={"who": "Ada"})
        events: list[RunEvent] = []
        async with asyncio.timeout(AMPLE_S):
            model.let()
            async for event in run.events:
                events.append(event)
                if event.kind == "token":
                    assert model.said == len([one for one in events if one.kind == "token"])  # the next has not been made
                    model.let(2 if model.said == 4 else 1)
        await run.close()
        done = events[-1].data
        assert said(events) == done["answer"] == "Your invoice is paid."
        assert [event.position for event in events] == list(range(len(events)))
        assert [event.data["index"] for event in events if event.kind == "token"] == [0, 1, 2, 3]
        assert [event.data for event in events if event.kind == "handoff"] == [{"from": "desk", "to": "billing", "node": "b"}]
        assert done["handoffs"] == [{"from": "desk", "to": "billing", "node": "b"}]
        route = [event.data for event in events if event.kind == "route"][-1]
        assert (route["node"], route["home"], route["agent"]) == ("c", "a", "billing")
        assert (done["node"], done["home"], done["route"]) == ("c", "a", "peer")
        assert model.asked[0].transcript[0].content == "You are billing, for Ada."
        with pytest.raises(UnknownRun):
            nodes.b.runtime.recent.find("r1")  # it is no run of b's
        await until_idle(nodes.a, nodes.b)


async def test_one_trace_shows_every_node_and_process_and_who_was_a_part_of_what() -> None:
    async with three() as nodes:
        nodes.c.has(Scripted(["Paid."]))
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        nodes.b.hosts(an_agent("billing"))
        nodes.meet()
        spans = (await nodes.a.ask())["trace"]["spans"]
        by_id = {span["id"]: span for span in spans}
        assert [(span["name"], span["node"]) for span in spans] == [
            ("agent.run", "a"),
            ("llm.complete", "a"),
            ("handoff", "a"),
            ("peer.call", "a"),
            ("agent.run", "b"),
            ("llm.complete", "b"),
        ]
        last = spans[-1]
        assert [by_id[span["parent"]]["name"] for span in spans[1:]] == ["agent.run", "agent.run", "handoff", "peer.call", "agent.run"]
        assert (last["attributes"]["node"], type(last["attributes"]["pid"]), spans[4]["attributes"]["agent"]) == ("c", int, "billing")
        assert spans[3]["attributes"]["node"] == "b"
        assert all(span["start_ms"] >= by_id[span["parent"]]["start_ms"] for span in spans[1:])
        assert nodes.b.traces.recent(agent=None, limit=9) == []


async def test_what_was_used_elsewhere_is_counted_at_home_by_model() -> None:
    async with three() as nodes:
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        nodes.b.hosts(an_agent("billing", model="m2", provider=Scripted([ModelReply("Paid.", usage=Usage(7, 5), model="m2")])))
        nodes.meet()
        usage = (await nodes.a.ask())["usage"]
        rows = {row["model"]: (row["calls"], row["tokens_in"], row["tokens_out"]) for row in usage["by_model"]}
        assert rows["m2"] == (1, 7, 5)
        assert usage["tokens_out"] == sum(row["tokens_out"] for row in usage["by_model"])


async def test_the_turn_is_kept_at_home_and_nowhere_else() -> None:
    async with three() as nodes:
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")]), memory=nodes.a.memory))
        nodes.b.hosts(an_agent("billing", provider=Scripted(["Paid."]), memory=nodes.b.memory))
        nodes.meet()
        done = await nodes.a.ask("My invoice?")
        kept = await nodes.a.memory.recall(Conversation("desk", done["session_id"]), now=0.0, turns_max=9)
        assert [message.content for message in kept.turns[0].said] == ["My invoice?", "Paid."]
        assert (await nodes.b.memory.recall(Conversation("billing", done["session_id"]), now=0.0, turns_max=9)).turns == ()


async def test_an_agent_there_hands_on_and_the_home_sees_to_it() -> None:
    async with three() as nodes:
        nodes.a.hosts(
            in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])), an_agent("cash", provider=Scripted(["From the till."]))
        )
        nodes.b.hosts(in_a_swarm("billing", "cash", provider=Scripted([goes_to("cash")])))
        nodes.meet()
        nodes.b.sees()  # b itself knows nobody
        done = await nodes.a.ask()
        assert done["answer"] == "From the till."
        assert [(one["from"], one["to"], one["node"]) for one in done["handoffs"]] == [("desk", "billing", "b"), ("billing", "cash", "a")]


async def test_a_block_there_is_the_runs_and_warnings_come_along() -> None:
    async with three() as nodes:
        rules = [{"type": "topic_filter", "blocked_topics": ["war"], "message": "Not that."}]
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        nodes.b.hosts(guarded(an_agent("billing", provider=Scripted(["On war."])), output=rules))
        nodes.meet()
        events = await all_events(nodes.a.start())
        done = events[-1].data
        assert (said(events), done["answer"], done["blocked"], done["finish_reason"]) == ("Not that.", "Not that.", True, "content_filter")
        assert done["guardrail"]["rule"] == "topic_filter"
        assert done["trace"]["status"] == "blocked"


async def test_a_warning_about_what_was_delegated_is_told_with_the_answer_wherever_it_was_done() -> None:
    async with three() as nodes:
        warns = [{"type": "topic_filter", "blocked_topics": ["secret"], "action": "warn"}]
        boss = Scripted([gives(("left", "Go.")), gives(), "Done."])
        left = Scripted([gives(("right", "Go.")), gives(), "It is done."])
        nodes.a.hosts(supervising("boss", "left", provider=boss))
        nodes.b.hosts(supervising("left", "right", provider=left))
        nodes.c.hosts(guarded(an_agent("right", provider=Scripted(["A secret."])), output=warns))
        nodes.meet()
        done = await nodes.a.ask(agent="boss")
        assert [(warning["direction"], warning["rule"]) for warning in done["warnings"]] == [("output", "topic_filter")]
        assert "blocked" not in done


async def test_nobody_waits_for_tokens_of_a_run_that_nobody_watches() -> None:
    async with three() as nodes:
        model = Scripted(["Paid."])
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        nodes.b.hosts(an_agent("billing", provider=model))
        nodes.meet()
        assert (await nodes.a.ask(watched=False))["answer"] == "Paid."
        assert model.asked[0].stream is False


# Delegating.


async def test_a_supervisor_has_workers_on_two_other_nodes() -> None:
    async with three() as nodes:
        boss = Scripted([gives(("left", "Count."), ("right", "Weigh.")), gives(), "Two, and heavy."])
        left, right = HeldModel("Two."), HeldModel("Heavy.")
        nodes.a.hosts(supervising("boss", "left", "right", provider=boss))
        nodes.b.hosts(an_agent("left", provider=left))
        nodes.c.hosts(an_agent("right", provider=right))
        nodes.meet()
        run = nodes.a.start("How many?", agent="boss")
        reading = asyncio.create_task(drained(run.events))
        await left.was_begun()
        await right.was_begun()
        left.let_all()
        right.let_all()
        async with asyncio.timeout(AMPLE_S):
            events, failure = await reading
        assert failure is None
        assert said(events) == events[-1].data["answer"] == "Two, and heavy."
        nodes_of = {span["node"] for span in events[-1].data["trace"]["spans"]}
        assert nodes_of == {"a", "b", "c"}
        assert {event.data["agent"] for event in events if event.kind == "step" and "agent" in event.data} == {"left", "right"}
        assert len(events[-1].data["steps"]) == 6


async def test_what_an_agent_there_delegates_is_done_by_the_home_wherever_the_other_lives() -> None:
    async with three() as nodes:
        boss = Scripted([gives(("right", "Weigh."), ("near", "Look.")), gives(), "Heavy, and red."])
        nodes.a.hosts(in_a_swarm("desk", "boss", provider=Scripted([goes_to("boss")])), an_agent("near", provider=Scripted(["Red."])))
        nodes.b.hosts(supervising("boss", "right", "near", provider=boss))
        nodes.c.hosts(an_agent("right", provider=Scripted(["Heavy."])))
        nodes.meet()
        nodes.b.sees()  # b itself knows nobody, and asks nobody but the home
        done = await nodes.a.ask()
        assert done["answer"] == "Heavy, and red."
        assert "Heavy." in boss.asked[1].transcript[-1].content
        assert "Red." in boss.asked[1].transcript[-1].content
        spans = done["trace"]["spans"]
        by_id = {span["id"]: span for span in spans}
        for span in spans:
            if span["name"] == "delegate" and span["node"] == "a":
                assert by_id[span["parent"]]["name"] == "peer.call"
        assert {row["calls"] for row in done["usage"]["by_model"]} == {6}
        await until_idle(nodes.a, nodes.b, nodes.c)


async def test_a_circle_over_two_nodes_is_refused_and_told_to_the_agent_that_closes_it() -> None:
    async with three() as nodes:
        left = Scripted([gives(("boss", "No, you.")), gives(), "I cannot."])
        boss = Scripted([gives(("left", "You do it.")), gives(), "Nobody did."])
        nodes.a.hosts(supervising("boss", "left", provider=boss))
        nodes.b.hosts(supervising("left", "boss", provider=left))
        nodes.meet()
        done = await nodes.a.ask(agent="boss")
        assert done["answer"] == "Nobody did."
        assert "boss → left → boss" in left.asked[1].transcript[-1].content
        assert len(boss.asked) == 3


async def test_a_node_refuses_an_act_whose_agent_waits_for_itself_whatever_the_home_thinks() -> None:
    async with three() as nodes:
        nodes.b.hosts(an_agent("left", provider=Scripted(["No."])))
        body = {"agent": "left", "task": "Go."}
        act = {"act": body, "act_id": "1", "run_id": "r", "home": "a", "session_id": "s", "path": ["left", "boss", "left"]}
        run = await nodes.b.runtime.act(act, 60.0, "a-000000")
        events = await all_events(run)
        assert events[-1].data["error"]["code"] == "delegation_refused"


async def test_a_callers_limit_of_tokens_goes_along() -> None:
    async with three() as nodes:
        model = Scripted([ModelReply("One.", usage=Usage(2, 2), model=MODEL)])
        boss = Scripted([ModelReply(gives(("left", "Go.")), usage=Usage(2, 2), model=MODEL)])
        limit = [{"type": "cost_limit", "max_tokens_per_turn": 8, "message": "Enough."}]
        nodes.a.hosts(guarded(supervising("boss", "left", provider=boss), output=limit))
        nodes.b.hosts(an_agent("left", provider=model))
        nodes.meet()
        done = await nodes.a.ask(agent="boss")
        assert model.asked[0].sampling.max_tokens == 4
        assert (done["answer"], done["blocked"]) == ("Enough.", True)


async def test_a_callers_limit_that_is_used_up_there_ends_the_act_with_the_callers_message() -> None:
    async with three() as nodes:
        boss = Scripted([ModelReply(gives(("left", "Go.")), usage=Usage(2, 2), model=MODEL), "More."])
        swarm = Scripted([ModelReply(goes_to("boss"), usage=Usage(2, 2), model=MODEL)])
        left = Scripted([ModelReply("Much.", usage=Usage(30, 30), model=MODEL)])
        limit = [{"type": "cost_limit", "max_tokens_per_turn": 60, "message": "Enough."}]
        nodes.a.hosts(guarded(in_a_swarm("desk", "boss", provider=swarm), output=limit))
        nodes.b.hosts(supervising("boss", "left", provider=boss))
        nodes.c.hosts(an_agent("left", provider=left))
        nodes.meet()
        events = await all_events(nodes.a.start())
        done = events[-1].data
        assert (done["answer"], done["blocked"], done["guardrail"]["rule"]) == ("Enough.", True, "cost_limit")
        assert len(boss.asked) == 1


async def test_workers_side_by_side_share_what_is_left_of_a_limit_here_and_there() -> None:
    async with three() as nodes:
        names = ("here", "too", "there", "beyond")
        models = {name: HeldModel("Yes.") for name in names}
        boss = Scripted([ModelReply(gives(*((name, "Go.") for name in names)), usage=Usage(10, 10), model=MODEL)])
        limit = [{"type": "cost_limit", "max_tokens_per_turn": 100}]
        nodes.a.hosts(guarded(supervising("boss", *names, provider=boss), output=limit))
        for name, rooms in zip(names, (nodes.a, nodes.a, nodes.b, nodes.c), strict=True):
            rooms.hosts(an_agent(name, provider=models[name]))
        nodes.meet()
        run = nodes.a.start(agent="boss")
        for model in models.values():
            await model.was_begun()
        assert [model.asked[0].sampling.max_tokens for model in models.values()] == [20, 20, 20, 20]
        await run.close()
        await until_idle(nodes.a, nodes.b, nodes.c)


async def test_what_workers_before_have_left_is_for_those_who_come_after() -> None:
    rooms = Rooms()
    left = Scripted([ModelReply("Yes.", usage=Usage(2, 2), model=MODEL)] * 2)
    turns = [gives(("left", "One.")), gives(("left", "Two."))]
    boss = Scripted([ModelReply(turn, usage=Usage(10, 10), model=MODEL) for turn in turns] + [gives(), "Done."])
    limit = [{"type": "cost_limit", "max_tokens_per_turn": 100}]
    rooms.hosts(guarded(supervising("boss", "left", provider=boss), output=limit), an_agent("left", provider=left))
    await rooms.ask(agent="boss")
    assert [asked.sampling.max_tokens for asked in left.asked] == [80, 56]


async def test_agents_that_are_called_as_tools_side_by_side_share_it_too() -> None:
    rooms = Rooms()
    names = ("one", "two")
    models = {name: HeldModel("Yes.") for name in names}
    calls = tuple(ToolCall(name, name, '{"task": "Go."}') for name in names)
    boss = Scripted([ModelReply("", calls, "tool_calls", usage=Usage(10, 10), model=MODEL)])
    tools = [AgentTool(ToolSchema(name, "", TASK), name) for name in names]
    limit = [{"type": "cost_limit", "max_tokens_per_turn": 100}]
    rooms.hosts(guarded(an_agent("boss", provider=boss, tools=tools), output=limit))
    rooms.hosts(*(an_agent(name, provider=model) for name, model in models.items()))
    run = rooms.start(agent="boss")
    for model in models.values():
        await model.was_begun()
    assert [model.asked[0].sampling.max_tokens for model in models.values()] == [40, 40]
    await run.close()


async def test_what_an_agent_there_delegates_is_bound_by_its_own_limit_of_tokens_too() -> None:
    async with three() as nodes:
        boss = Scripted([ModelReply(gives(("left", "Go.")), usage=Usage(2, 2), model=MODEL)])
        left = Scripted([ModelReply("One.", usage=Usage(2, 2), model=MODEL)])
        limit = [{"type": "cost_limit", "max_tokens_per_turn": 8, "message": "Enough."}]
        nodes.a.hosts(in_a_swarm("desk", "boss", provider=Scripted([goes_to("boss")])), an_agent("left", provider=left))
        nodes.b.hosts(guarded(supervising("boss", "left", provider=boss), output=limit))
        nodes.meet()
        done = await nodes.a.ask()
        assert left.asked[0].sampling.max_tokens == 4
        assert (done["answer"], done["blocked"]) == ("Enough.", True)


# What goes wrong.


async def test_a_client_that_leaves_ends_the_acts_on_all_nodes() -> None:
    async with three() as nodes:
        left, right = HeldModel("never"), HeldModel("never")
        nodes.a.hosts(supervising("boss", "left", "right", provider=Scripted([gives(("left", "Go."), ("right", "Go."))])))
        nodes.b.hosts(an_agent("left", provider=left))
        nodes.c.hosts(an_agent("right"))
        nodes.b.has(right)
        nodes.meet()
        run = nodes.a.start(agent="boss")
        await left.was_begun()
        await right.was_begun()
        await run.close()
        await left.was_released()
        await right.was_released()
        await until_idle(nodes.a, nodes.b, nodes.c)


async def test_a_client_that_leaves_while_an_act_there_waits_for_the_home_leaves_nothing_behind() -> None:
    async with three() as nodes:
        right = HeldModel("never")
        nodes.a.hosts(in_a_swarm("desk", "boss", provider=Scripted([goes_to("boss")])), an_agent("right", provider=right))
        nodes.b.hosts(supervising("boss", "right", provider=Scripted([gives(("right", "Go."))])))
        nodes.meet()
        run = nodes.a.start()
        await right.was_begun()
        assert nodes.b.runtime.served.awaited == 1
        await run.close()
        await right.was_released()
        await until_idle(nodes.a, nodes.b)


async def test_the_runs_limit_ends_an_act_there_and_tells_the_steps_of_both() -> None:
    async with three() as nodes:
        slow = HeldModel("never")
        nodes.a.hosts(in_a_swarm("desk", "boss", provider=Scripted([goes_to("boss")]), timeout_s=0.3))
        nodes.b.hosts(in_a_swarm("boss", "desk", provider=Scripted([goes_to("boss")])))
        nodes.meet()
        nodes.b.hosts(in_a_swarm("boss", "desk", provider=slow))
        failure = await failure_of(nodes.a.start())
        assert isinstance(failure, DeadlineExceeded)
        assert failure.details is not None
        assert (failure.details["agent"], failure.details["timeout_seconds"]) == ("desk", 0.3)
        assert [step["action"] for step in failure.details["steps"]] == ["hand_off"]
        await slow.was_released()
        await until_idle(nodes.b)


async def test_a_limit_of_the_agent_there_is_told_as_its_own_with_the_steps_of_both() -> None:
    async with three() as nodes:
        nodes.a.hosts(in_a_swarm("desk", "boss", provider=Scripted([goes_to("boss")])))
        boss = HeldModel(goes_to("boss"))
        boss.let_all()
        nodes.b.hosts(in_a_swarm("boss", "cash", provider=boss, timeout_s=0.3))
        nodes.meet()
        failure = await failure_of(nodes.a.start())
        assert isinstance(failure, DeadlineExceeded)
        assert failure.details is not None
        assert (failure.details["agent"], failure.details["timeout_seconds"]) == ("boss", 0.3)
        assert [step["action"] for step in failure.details["steps"]] == ["hand_off", "answer"]


async def test_a_limit_of_the_agent_there_ends_what_it_delegated_and_nobody_waits_for_that() -> None:
    async with three() as nodes:
        left = HeldModel("never")
        nodes.a.hosts(in_a_swarm("desk", "boss", provider=Scripted([goes_to("boss")])), an_agent("left", provider=left))
        nodes.b.hosts(supervising("boss", "left", provider=Scripted([gives(("left", "Go."))]), timeout_s=0.3))
        nodes.meet()
        async with asyncio.timeout(AMPLE_S / 2):
            failure = await failure_of(nodes.a.start())
        assert isinstance(failure, DeadlineExceeded)
        assert failure.details is not None
        assert (failure.details["agent"], failure.details["timeout_seconds"]) == ("boss", 0.3)
        await left.was_released()
        await until_idle(nodes.a, nodes.b)


async def test_a_failure_there_fails_the_run_and_its_spans_are_in_the_trace() -> None:
    async with three() as nodes:
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        nodes.b.hosts(an_agent("billing", provider=Scripted([BROKE])))
        nodes.meet()
        failure = await failure_of(nodes.a.start())
        assert failure.message == BROKE.message
        trace = nodes.a.traces.get("r1")
        assert trace is not None
        assert ("llm.complete", "b") in [(span.name, span.node) for span in trace.spans]


async def test_a_host_that_cannot_be_reached_leads_to_the_next_and_one_handoff_is_told() -> None:
    async with three() as nodes:
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        nodes.b.hosts(an_agent("billing", provider=Scripted(["From b."])))
        gone = member("aa-000000", agents=["billing"], link=Address("127.0.0.1", free_port()))
        nodes.a.sees(gone, member("b-000000", agents=["billing"], link=nodes.at["b"]))
        done = await nodes.a.ask()
        assert (done["answer"], done["handoffs"]) == ("From b.", [{"from": "desk", "to": "billing", "node": "b"}])
        calls = [span["attributes"] for span in done["trace"]["spans"] if span["name"] == "peer.call"]
        assert [(call["node"], call.get("error")) for call in calls] == [("aa", "agent_unavailable"), ("b", None)]


async def test_what_is_too_large_for_a_link_says_so_and_not_to_ask_again() -> None:
    async with three() as nodes:
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        nodes.b.hosts(an_agent("billing", provider=Scripted(["No."])))
        nodes.meet()
        failure = await failure_of(nodes.a.start("x" * 11_000_000))
        assert isinstance(failure, BodyTooLarge)
        assert "11000" in failure.message
        assert "10485760" in failure.message


async def test_a_host_that_is_full_leads_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async with three() as nodes:
        monkeypatch.setattr(engine, "RUNS_MAX", 2)
        held = HeldModel("never")
        nodes.b.hosts(an_agent("billing", provider=Scripted(["From b."])), an_agent("held", provider=held))
        nodes.c.hosts(an_agent("billing", provider=Scripted(["From c."])))
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing"), goes_to("billing")])))
        nodes.meet()
        full = [nodes.b.start(agent="held", request_id=name) for name in ("r1", "r2")]
        assert (await nodes.a.ask())["answer"] == "From c."
        nodes.a.sees(member("b-000000", agents=["billing"], link=nodes.at["b"]))
        assert isinstance(await failure_of(nodes.a.start()), Overloaded)
        for run in full:
            await run.close()


async def test_an_act_that_has_begun_is_never_begun_again_elsewhere() -> None:
    async with three() as nodes:
        second = Scripted(["No."])
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        definite = ModelFailed("no room", code="model_provider_unavailable", definite=True)
        nodes.b.hosts(an_agent("billing", provider=Scripted([definite])))
        nodes.c.hosts(an_agent("billing", provider=second))
        nodes.meet()
        assert (await failure_of(nodes.a.start())).message == definite.message
        assert second.asked == []


async def test_a_node_that_goes_away_in_the_middle_of_an_act_is_named() -> None:
    async with three() as nodes:
        model = HeldModel("Half ", "an answer")
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        nodes.b.hosts(an_agent("billing", provider=model))
        nodes.meet()
        run = nodes.a.start()
        model.let()
        seen = [await anext(run.events)]
        while seen[-1].kind != "token":
            seen.append(await anext(run.events))
        await nodes.closing["b"].aclose()
        failure = await failure_of(run)
        assert isinstance(failure, PeerLost)
        assert "b went away" in failure.message
        assert said(seen) == "Half "
        await model.was_released()


async def test_a_node_that_shuts_down_ends_its_acts_aloud() -> None:
    async with three() as nodes:
        model = HeldModel("never")
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        nodes.b.hosts(an_agent("billing", provider=model))
        nodes.meet()
        run = nodes.a.start()
        await model.was_begun()
        stopping = asyncio.create_task(nodes.b.runtime.drain(grace_s=0))
        assert isinstance(await failure_of(run), RunCancelled)
        await stopping


async def test_a_node_on_its_way_out_still_hears_what_its_acts_wait_for() -> None:
    async with three() as nodes:
        right = HeldModel("Heavy.")
        boss = Scripted([gives(("right", "Weigh.")), gives(), "It is heavy."])
        nodes.a.hosts(in_a_swarm("desk", "boss", provider=Scripted([goes_to("boss")])), an_agent("right", provider=right))
        nodes.b.hosts(supervising("boss", "right", provider=boss))
        nodes.meet()
        run = nodes.a.start()
        await right.was_begun()
        assert nodes.b.peers.board is not None
        stopping = [asyncio.create_task(nodes.b.runtime.drain(AMPLE_S)), asyncio.create_task(nodes.b.peers.board.drain(AMPLE_S))]
        await asyncio.sleep(0)
        right.let_all()
        assert (await all_events(run))[-1].data["answer"] == "It is heavy."
        await asyncio.gather(*stopping)


async def test_a_worker_whose_node_went_away_is_a_failure_that_the_others_outlive() -> None:
    async with three() as nodes:
        left, right = HeldModel("never"), HeldModel("Heavy.")
        boss = Scripted([gives(("left", "Count."), ("right", "Weigh.")), gives(), "Heavy."])
        nodes.a.hosts(supervising("boss", "left", "right", provider=boss))
        nodes.b.hosts(an_agent("left", provider=left))
        nodes.c.hosts(an_agent("right", provider=right))
        nodes.meet()
        run = nodes.a.start(agent="boss")
        reading = asyncio.create_task(drained(run.events))
        await left.was_begun()
        await right.was_begun()
        await nodes.closing["b"].aclose()
        right.let_all()
        async with asyncio.timeout(AMPLE_S):
            events, failure = await reading
        assert failure is None
        assert events[-1].data["answer"] == "Heavy."
        assert "b went away" in boss.asked[1].transcript[-1].content


@pytest.mark.parametrize("body", [{}, {"act": {"agent": "left"}}, {"act": {"agent": 7, "task": "Go."}}, {"act": "left", "path": 3}])
async def test_a_body_that_is_no_act_is_answered_and_breaks_nothing(body: Mapping[str, Any]) -> None:
    async with three() as nodes:
        nodes.b.hosts(an_agent("left", provider=Scripted(["Yes."])))
        nodes.meet()
        with pytest.raises(MalformedBody):
            await nodes.b.runtime.act(body, 60.0, "a-000000")
        peer = nodes.a.roster.hosting("left")[0]
        with pytest.raises(AgentUnavailable, match="b does not understand"):
            await nodes.a.peers.ask_once(peer, ACT, body, dict, timeout_s=AMPLE_S)
        with pytest.raises(MalformedBody):
            nodes.b.runtime.take_reply({"act_id": "x"}, "a-000000")
        assert nodes.b.runtime.active_runs == 0


async def test_a_reply_that_nobody_waits_for_and_one_from_the_wrong_node_change_nothing() -> None:
    async with three() as nodes:
        right = HeldModel("Yes.")
        boss = Scripted([gives(("right", "Go.")), gives(), "Right said yes."])
        nodes.a.hosts(in_a_swarm("desk", "boss", provider=Scripted([goes_to("boss")])), an_agent("right", provider=right))
        nodes.b.hosts(supervising("boss", "right", provider=boss))
        nodes.meet()
        run = nodes.a.start()
        await right.was_begun()
        (key,) = nodes.b.runtime.served._awaited
        forged = {"act_id": key.act_id, "number": key.number, "answer": {"text": "Forged.", "by": "right"}}
        nodes.b.runtime.take_reply(forged, "c-000000")
        nodes.b.runtime.take_reply({**forged, "act_id": "another"}, "a-000000")
        right.let_all()
        assert (await all_events(run))[-1].data["answer"] == "Right said yes."
        assert "Forged" not in boss.asked[1].transcript[-1].content


@pytest.mark.parametrize(
    "said_there",
    [
        [],
        [{"position": 0, "kind": "act.began", "data": {"pid": 1}}],
        [{"position": 0, "kind": "act.began", "data": {}}],
        [{"position": 0, "kind": "act.began", "data": {"pid": 1}}, {"position": 1, "kind": "act.ended", "data": {"answer": 7}}],
        [{"position": 0, "kind": "act.ended", "data": {"answer": {"text": "x", "by": "y"}, "spans": [[1]]}}],
        [{"position": 0, "kind": "act.began", "data": {"pid": 1}}, {"position": 1, "kind": "route", "data": {"node": 7}}],
        [
            {"position": 0, "kind": "act.began", "data": {"pid": 1}},
            *({"position": n, "kind": "act.asks", "data": {"number": n, "agent": "desk", "task": "Go."}} for n in range(99)),
        ],
        [{"nonsense": True}],
    ],
)
async def test_a_node_that_speaks_nonsense_of_an_act_is_itself_to_blame(said_there: list[Mapping[str, Any]]) -> None:
    async def nonsense(_: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        for body in said_there:
            yield body

    a = Rooms("a", linked=True)
    async with a.open_door(), Switchboard(me=Greeting("b-000000", "id-b"), handlers={ACT: nonsense}) as board:
        a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        a.sees(member("b-000000", agents=["billing"], link=Address("127.0.0.1", await board.serve("127.0.0.1", 0))))
        failure = await failure_of(a.start())
    assert isinstance(failure, PeerLost)
    assert "b " in failure.message


async def test_a_node_that_hands_on_what_was_to_be_answered_or_speaks_out_of_turn_is_not_believed() -> None:
    async def odd(_: IncomingCall) -> AsyncIterator[Mapping[str, Any]]:
        yield {"position": 0, "kind": "act.began", "data": {"pid": 1}}
        yield {"position": 1, "kind": "token", "data": {"content": "Out of turn.", "index": 0}}
        yield {"position": 2, "kind": "act.ended", "data": {"hand_off": {"to": "desk", "by": "left"}}}

    a = Rooms("a", linked=True)
    boss = Scripted([gives(("left", "Go.")), gives(), "Nobody did."])
    async with a.open_door(), Switchboard(me=Greeting("b-000000", "id-b"), handlers={ACT: odd}) as board:
        a.hosts(supervising("boss", "left", provider=boss))
        a.sees(member("b-000000", agents=["left"], link=Address("127.0.0.1", await board.serve("127.0.0.1", 0))))
        events = await all_events(a.start(agent="boss"))
    assert said(events) == "Nobody did."
    assert "handed on a task" in boss.asked[1].transcript[-1].content


async def test_a_node_of_another_version_that_knows_no_acts_is_passed_over() -> None:
    a = Rooms("a", linked=True)
    async with a.open_door(), Switchboard(me=Greeting("b-000000", "id-b"), handlers={}) as board:
        a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")])))
        a.sees(member("b-000000", agents=["billing"], link=Address("127.0.0.1", await board.serve("127.0.0.1", 0))))
        failure = await failure_of(a.start())
    assert isinstance(failure, AgentUnavailable)


async def test_two_hundred_runs_at_once_are_handed_over_and_all_are_answered() -> None:
    runs = 200
    async with three() as nodes:
        nodes.a.hosts(in_a_swarm("desk", "billing", provider=Scripted([goes_to("billing")] * runs)))
        nodes.b.hosts(an_agent("billing"))
        nodes.c.has(Scripted([f"Answer {number}." for number in range(runs)]))
        nodes.meet()
        done = await asyncio.gather(*(nodes.a.ask(f"Question {number}?", request_id=f"r{number}") for number in range(runs)))
        assert sorted(one["answer"] for one in done) == sorted(f"Answer {number}." for number in range(runs))
        await until_idle(nodes.a, nodes.b, nodes.c)
        counted = nodes.b.metrics.registry.get_sample_value("astromesh_peer_calls_served_total", {"kind": ACT, "outcome": "ok"})
        assert counted == runs

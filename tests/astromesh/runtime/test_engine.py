"""Runs: whose turn it is, how long they may take, and what is left when nobody waits for them any more."""

from __future__ import annotations

import asyncio

import pytest
from tests.rig.held_model import AMPLE_S, HeldModel
from tests.rig.mesh_view import member
from tests.rig.rooms import MODEL, Rooms, all_events, an_agent, drained

from astromesh.dialogue import Message, ModelReply, ToolCall
from astromesh.errors import (
    AgentUnavailable,
    AgentUnusable,
    AstromeshError,
    DeadlineExceeded,
    Draining,
    MalformedBody,
    ModelFailed,
    Overloaded,
    RunCancelled,
    TurnsExhausted,
    UnknownAgent,
)
from astromesh.memory.backends.in_memory import InMemory
from astromesh.memory.port import Conversation, Turn
from astromesh.memory.window import Window
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime import course, engine
from astromesh.runtime.engine import Run
from astromesh.runtime.models import LocalModel
from astromesh.tools.backends.datetime_now import DatetimeNow


def remembering(rooms: Rooms, model: Scripted | HeldModel, name: str = "desk") -> None:
    rooms.hosts(an_agent(name, provider=model, memory=rooms.memory))


async def failure_of(run: Run) -> AstromeshError:
    _, failure = await drained(run.events)
    await run.close()
    assert failure is not None, "the run went well"
    return failure


async def test_a_run_ends_with_done_and_everything_that_was_used() -> None:
    rooms = Rooms()
    rooms.hosts(an_agent(provider=Scripted(["Good day, Ada."])))
    done = await rooms.ask("Hello", session_id="s1", request_id="r7")
    assert {key: value for key, value in done.items() if key != "trace"} == {
        "answer": "Good day, Ada.",
        "finish_reason": "stop",
        "steps": [{"thought": None, "action": None, "action_input": None, "observation": None, "result": "Good day, Ada."}],
        "usage": {
            "tokens_in": 1,
            "tokens_out": 3,
            "model": "m",
            "by_model": [{"provider": "local", "model": "m", "role": "default", "calls": 1, "tokens_in": 1, "tokens_out": 3, "cost": 0.0}],
        },
        "data": None,
        "session_id": "s1",
        "node": "here",
        "home": "here",
        "route": "local",
        "attempts": 1,
        "handoffs": [],
    }
    assert (done["trace"]["trace_id"], done["trace"]["status"]) == ("r7", "ok")
    assert rooms.traces.get("r7") is not None


# Sessions.


async def test_two_runs_at_once_in_one_session_take_turns_and_the_second_remembers_the_first() -> None:
    rooms = Rooms()
    model = HeldModel("Hello.")
    remembering(rooms, model)
    first, second = rooms.start("I am Ada.", session_id="s1"), rooms.start("Who am I?", session_id="s1", request_id="r2")
    await model.was_begun()
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(model.asked) == 1
    model.let_all()
    await all_events(first)
    model.let_all()
    await all_events(second)
    assert [message.content for message in model.asked[1].transcript] == ["I am Ada.", "Hello.", "Who am I?"]


async def test_a_run_that_waits_for_its_turn_says_so_and_when_it_goes_on() -> None:
    rooms = Rooms()
    model = HeldModel("Hello.")
    remembering(rooms, model)
    first, second = rooms.start("I am Ada.", session_id="s1"), rooms.start("Who am I?", session_id="s1", request_id="r2")
    waiting = aiter(second.events)
    queued = await anext(waiting)
    assert (queued.kind, queued.data) == ("status", {"state": "queued"})
    model.let_all()
    assert "status" not in [event.kind for event in await all_events(first)]
    going_on = await anext(waiting)
    assert (going_on.kind, going_on.data) == ("status", {"state": "running"})
    await second.close()


async def test_a_run_whose_model_has_to_be_loaded_first_says_so() -> None:
    rooms = Rooms()
    rooms.models.local[MODEL] = LocalModel(Scripted(["Good day."]), lambda: False, wakes=lambda: True)
    rooms.hosts(an_agent())
    events = await all_events(rooms.start())
    assert [(event.kind, event.data) for event in events[:1]] == [("status", {"state": "loading", "model": MODEL})]
    assert events[-1].data["answer"] == "Good day."


async def test_runs_of_different_sessions_do_not_wait_for_each_other() -> None:
    rooms = Rooms()
    model = HeldModel("Hello.")
    remembering(rooms, model)
    runs = [rooms.start(session_id=name, request_id=name) for name in ("s1", "s2")]
    async with asyncio.timeout(AMPLE_S):
        while model.open < 2:
            await asyncio.sleep(0)
    for run in runs:
        await run.close()


async def test_a_run_without_a_session_gets_a_fresh_one_that_can_be_gone_on_with() -> None:
    rooms = Rooms()
    model = Scripted(["Hello, Ada.", "Hello, stranger.", "You are Ada."])
    remembering(rooms, model)
    mine, theirs = await rooms.ask("I am Ada."), await rooms.ask("Who am I?")
    assert mine["session_id"] != theirs["session_id"]
    assert len(model.asked[1].transcript) == 1
    again = await rooms.ask("Who am I?", session_id=mine["session_id"])
    assert (again["session_id"], len(model.asked[2].transcript)) == (mine["session_id"], 3)


async def test_two_agents_given_the_same_session_share_nothing() -> None:
    rooms = Rooms()
    model = Scripted(["Noted.", "I do not know."])
    remembering(rooms, model, "desk")
    remembering(rooms, model, "billing")
    await rooms.ask("I am Ada.", agent="desk", session_id="s1")
    await rooms.ask("Who am I?", agent="billing", session_id="s1")
    assert [message.content for message in model.asked[1].transcript] == ["Who am I?"]


async def test_only_the_window_of_a_long_conversation_goes_into_the_prompt() -> None:
    rooms = Rooms()
    model = Scripted(["One.", "Two.", "Three."])
    rooms.hosts(an_agent(provider=model, memory=rooms.memory, window=Window(turns_max=1)))
    for question in ("1?", "2?", "3?"):
        await rooms.ask(question, session_id="s1")
    assert [message.content for message in model.asked[2].transcript] == ["2?", "Two.", "3?"]


async def test_a_run_that_failed_leaves_no_turn_and_lets_the_next_one_in() -> None:
    rooms = Rooms()
    model = Scripted([ModelFailed("no", code="model_timeout"), "Yes."])
    remembering(rooms, model)
    assert (await failure_of(rooms.start("One?", session_id="s1"))).code == "model_timeout"
    await rooms.ask("Two?", session_id="s1")
    assert [message.content for message in model.asked[1].transcript] == ["Two?"]


async def test_a_run_that_is_given_up_while_it_waits_for_its_turn_takes_nobodys_turn() -> None:
    rooms = Rooms()
    model = HeldModel("Hello.")
    remembering(rooms, model)
    first, second, third = (rooms.start(session_id="s1", request_id=name) for name in ("r1", "r2", "r3"))
    await model.was_begun()
    await second.close()
    model.let_all()
    await all_events(first)
    model.let_all()
    assert (await all_events(third))[-1].kind == "done"
    assert rooms.runtime._sessions == {}


async def test_a_session_lets_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SESSIONS_WAITING_MAX", 1)
    rooms = Rooms()
    model = HeldModel("Hello.")
    remembering(rooms, model)
    runs = [rooms.start(session_id="s1", request_id=name) for name in ("r1", "r2", "r3")]
    failure = await failure_of(runs[2])
    assert isinstance(failure, Overloaded)
    assert failure.definite
    for run in runs[:2]:
        await run.close()


async def test_sessions_that_are_over_are_forgotten() -> None:
    rooms = Rooms()
    remembering(rooms, Scripted(["One.", "Two."]))
    await rooms.ask(session_id="s1")
    await rooms.ask(session_id="s2")
    assert rooms.runtime._sessions == {}


async def test_a_history_of_the_callers_own_waits_for_no_turn() -> None:
    rooms = Rooms()
    model = HeldModel("Hello.")
    remembering(rooms, model)
    runs = [rooms.start(session_id="s1", request_id="r1"), rooms.start(session_id="s1", request_id="r2", history=())]
    async with asyncio.timeout(AMPLE_S):
        while model.open < 2:
            await asyncio.sleep(0)
    for run in runs:
        await run.close()


# Ends.


async def test_a_deadline_ends_the_run_and_says_what_was_done_by_then() -> None:
    class ThenSilence(HeldModel):
        """Calls a tool, then never says another word."""

        async def complete(self, request, *, timeout_s):  # type: ignore[no-untyped-def]
            if not self.asked:
                self.asked.append(request)
                yield ModelReply("Let me see.", (ToolCall("c1", "datetime_now", "{}"),), "tool_calls")
                return
            async for event in super().complete(request, timeout_s=timeout_s):
                yield event

    rooms = Rooms()
    model = ThenSilence("never")
    rooms.hosts(an_agent(provider=model, tools=[DatetimeNow()], timeout_s=0.05))
    failure = await failure_of(rooms.start())
    assert isinstance(failure, DeadlineExceeded)
    assert failure.details is not None
    assert {key: failure.details[key] for key in ("error", "agent", "timeout_seconds")} == {
        "error": "timeout",
        "agent": "desk",
        "timeout_seconds": 0.05,
    }
    assert [step["action"] for step in failure.details["steps"]] == ["datetime_now"]
    assert "spec.orchestration.timeout_seconds" in failure.hint
    assert model.open == 0
    trace = rooms.traces.get("r1")
    assert trace is not None
    assert trace.status == "timeout"


async def test_a_limit_that_strikes_while_the_turn_is_written_does_not_deny_what_is_kept() -> None:
    class SlowDisk(InMemory):
        """Writes until the run's limit is over."""

        async def remember(self, conversation: Conversation, turn: Turn, *, expires_at: float | None = None) -> None:
            written = asyncio.Event()
            asyncio.get_running_loop().call_later(0.2, written.set)
            await written.wait()
            await super().remember(conversation, turn, expires_at=expires_at)

    rooms, disk = Rooms(), SlowDisk()
    rooms.hosts(an_agent(provider=Scripted(["Yes."]), memory=disk, timeout_s=0.1))
    done = await rooms.ask(session_id="s1")
    assert done["answer"] == "Yes."
    assert len((await disk.recall(Conversation("desk", "s1"), now=0.0)).turns) == 1


async def test_a_disk_that_takes_no_turn_does_not_hold_a_run_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class StuckDisk(InMemory):
        async def remember(self, conversation: Conversation, turn: Turn, *, expires_at: float | None = None) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(course, "KEEPING_S", 0.1)
    rooms = Rooms()
    rooms.hosts(an_agent(provider=Scripted(["Yes."]), memory=StuckDisk(), timeout_s=0.1))
    async with asyncio.timeout(AMPLE_S):
        assert isinstance(await failure_of(rooms.start()), DeadlineExceeded)


async def test_closing_a_run_cancels_it_and_closes_the_models_stream() -> None:
    rooms = Rooms()
    model = HeldModel("One ", "two")
    rooms.hosts(an_agent(provider=model))
    run = rooms.start()
    model.let()
    async for event in run.events:
        if event.kind == "token":
            break
    await run.close()
    assert (model.open, model.finished, rooms.runtime.active_runs) == (0, 0, 0)
    trace = rooms.traces.get("r1")
    assert trace is not None
    assert trace.status == "cancelled"


async def test_closing_a_run_that_is_over_does_nothing() -> None:
    rooms = Rooms()
    rooms.hosts(an_agent(provider=Scripted(["Hello."])))
    run = rooms.start()
    await all_events(run)
    await run.close()
    assert rooms.runtime.active_runs == 0


async def test_a_run_that_nobody_reads_can_be_closed_even_where_its_queue_is_full() -> None:
    rooms = Rooms()
    rooms.hosts(an_agent(provider=Scripted(["word " * 2000])))
    run = rooms.start()
    for _ in range(2000):
        await asyncio.sleep(0)
    async with asyncio.timeout(AMPLE_S):
        await run.close()
    assert rooms.runtime.active_runs == 0


async def test_a_mistake_of_ours_ends_the_run_with_an_error_that_tells_nothing_but_where_to_look(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Scripted):
        async def complete(self, request, *, timeout_s):  # type: ignore[no-untyped-def]
            raise ZeroDivisionError("/home/secret")
            yield

    rooms = Rooms()
    rooms.hosts(an_agent(provider=Broken([])))
    failure = await failure_of(rooms.start(request_id="r9"))
    assert type(failure) is AstromeshError
    assert "secret" not in failure.message + failure.hint
    assert "r9" in failure.hint
    assert "ZeroDivisionError" in caplog.text


async def test_a_model_that_only_calls_tools_ends_the_run_with_its_turns() -> None:
    rooms = Rooms()
    calls = ModelReply("", (ToolCall("c1", "datetime_now", "{}"),), "tool_calls")
    rooms.hosts(an_agent(provider=Scripted([calls, calls]), tools=[DatetimeNow()], turns=2))
    assert isinstance(await failure_of(rooms.start()), TurnsExhausted)


# How many, and until when.


async def test_a_draining_node_takes_nothing_new_lets_the_rest_end_and_then_cancels_it_aloud() -> None:
    rooms = Rooms()
    quick, slow = HeldModel("Quick."), HeldModel("never")
    rooms.hosts(an_agent("quick", provider=quick), an_agent("slow", provider=slow))
    ending, lasting = rooms.start(agent="quick"), rooms.start(agent="slow", request_id="r2")
    await quick.was_begun()
    await slow.was_begun()
    draining = asyncio.create_task(rooms.runtime.drain(grace_s=0.2))
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        rooms.start(agent="quick", request_id="r3")
    quick.let_all()
    assert (await all_events(ending))[-1].kind == "done"
    async with asyncio.timeout(AMPLE_S):
        assert isinstance(await failure_of(lasting), RunCancelled)
        await draining
    assert (slow.open, rooms.runtime.active_runs) == (0, 0)


async def test_a_run_that_is_cancelled_in_its_very_first_moment_ends_aloud_too() -> None:
    rooms = Rooms()
    rooms.hosts(an_agent(provider=HeldModel("never")))
    run = rooms.start()
    run.cancel()
    async with asyncio.timeout(AMPLE_S):
        assert isinstance(await failure_of(run), RunCancelled)
    assert rooms.runtime.recent.find("r1").told.over


async def test_draining_with_nothing_under_way_is_over_at_once() -> None:
    async with asyncio.timeout(AMPLE_S):
        await Rooms().runtime.drain(grace_s=3600)


async def test_a_node_conducts_only_so_many_runs_and_then_refuses_for_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RUNS_MAX", 2)
    rooms = Rooms()
    rooms.hosts(an_agent(provider=HeldModel("never")))
    runs = [rooms.start(request_id=name) for name in ("r1", "r2")]
    with pytest.raises(Overloaded) as raised:
        rooms.start(request_id="r3")
    assert raised.value.definite
    await runs[0].close()
    await rooms.start(request_id="r4").close()
    await runs[1].close()


# Who is not here.


async def test_an_agent_that_nobody_has_is_unknown_at_once() -> None:
    with pytest.raises(UnknownAgent, match="'nobody'"):
        Rooms().start(agent="nobody")


async def test_an_agent_whose_document_is_broken_says_what_is_wrong_with_it() -> None:
    rooms = Rooms()
    rooms.runtime.broken["desk"] = "agents/desk.agent.yaml:7: no model is named"
    with pytest.raises(AgentUnusable, match=r"desk\.agent\.yaml:7"):
        rooms.start()


async def test_an_agent_whose_host_is_gone_says_who_had_it() -> None:
    rooms = Rooms()
    rooms.sees(member("b-000002", agents=["desk"], status="dead"))
    with pytest.raises(AgentUnavailable, match="agent desk was hosted by b, which is dead"):
        rooms.start()


async def test_a_run_that_another_node_asks_for_is_conducted_here_or_refused_and_never_passed_on() -> None:
    rooms = Rooms()
    rooms.sees(member("b-000002", agents=["elsewhere"]))
    with pytest.raises(AgentUnavailable, match="not on here any more"):
        await rooms.runtime.serve({"agent": "elsewhere", "query": "Hello"}, 60.0)
    with pytest.raises(MalformedBody):
        await rooms.runtime.serve({"query": "Hello"}, 60.0)


async def test_a_run_for_another_node_has_no_more_time_than_that_node_gives_it() -> None:
    rooms = Rooms()
    rooms.hosts(an_agent(provider=HeldModel("never"), timeout_s=3600))
    failure = await failure_of(await rooms.runtime.serve({"agent": "desk", "query": "Hello"}, 0.05))
    assert isinstance(failure, DeadlineExceeded)


def test_an_agent_can_be_served_where_its_model_can_be() -> None:
    rooms = Rooms()
    rooms.hosts(an_agent("own", provider=Scripted([])), an_agent("shared", model="m2"))
    assert rooms.runtime.can_serve("own")
    assert not rooms.runtime.can_serve("shared")
    rooms.sees(member("b-000002", models=["m2"], agents=["elsewhere"]))
    assert rooms.runtime.can_serve("shared")
    assert rooms.runtime.can_serve("elsewhere")
    assert not rooms.runtime.can_serve("nobody")


async def test_runs_are_counted_by_how_they_ended() -> None:
    rooms = Rooms()
    rooms.hosts(an_agent(provider=Scripted(["Yes.", ModelFailed("no", code="model_timeout")])))
    await rooms.ask()
    await failure_of(rooms.start())

    def counted(outcome: str) -> float | None:
        return rooms.metrics.registry.get_sample_value("astromesh_runs_total", {"agent": "desk", "outcome": outcome})

    assert (counted("ok"), counted("model_timeout")) == (1, 1)


async def test_the_context_of_the_caller_fills_the_agents_templates() -> None:
    rooms = Rooms()
    model = Scripted(["Yes."])
    rooms.hosts(an_agent(provider=model, system="You serve {{ shop }}.", context="It is {{ day }}."))
    await rooms.ask("Open?", context={"shop": "Ada's", "day": "Sunday"})
    assert model.asked[0].transcript == (Message("system", "You serve Ada's."), Message("user", "It is Sunday.\n\nOpen?"))

"""The stage answers a script's effects: replies, failures that the script may catch, and one span for each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import pytest
from tests.rig.held_model import HeldModel
from tests.rig.rooms import Rooms, all_events, an_agent, drained

from astromesh.dialogue import Message, ModelReply, ToolCall, ToolSchema, Transcript
from astromesh.effects import AskModel, CallTools, Effect, Note, Recall, Remember, Script
from astromesh.errors import AstromeshError, ModelFailed, TurnsExhausted
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime.agent import Agent
from astromesh.runtime.counting import TokenCounts
from astromesh.runtime.course import Course
from astromesh.runtime.events import RunEvents
from astromesh.runtime.stage import Place, Services, Stage
from astromesh.telemetry.traces import Trace
from astromesh.tools.backends.datetime_now import DatetimeNow

QUESTION: Transcript = (Message("user", "What time is it?"),)
BUSY = ModelFailed("busy", code="model_provider_unavailable", definite=True)
LOOK = ToolCall("c1", "datetime_now", "{}")


class Performance:
    """One stage with all that it needs, and what was told while it performed."""

    def __init__(self, agent: Agent, *, rooms: Rooms | None = None, time_s: float = 60.0) -> None:
        rooms = rooms or Rooms()
        self.events = RunEvents(watched=True)
        self.trace = Trace("t1", agent.name, 0.0, rooms.node)
        now = perf_counter()
        self.course = Course(self.events, self.trace, home=rooms.node, session_id="s1", began_at=now, deadline=now + time_s)
        services = Services(rooms.models, TokenCounts(rooms.models.local))
        self.stage = Stage(agent, Place(self.course, (agent.name,)), services=services, company=rooms.runtime.conductor)

    async def told(self) -> list[tuple[str, dict[str, object]]]:
        self.events.end(None)
        return [(event.kind, dict(event.data)) async for event in self.events]

    @property
    def spans(self) -> list[str]:
        return [span.name for span in self.trace.spans]


def recovering(*effects: Effect[object]) -> Script[list[object]]:
    """Performs one effect after the other; a failure is a reply like any other."""
    replies: list[object] = []
    for effect in effects:
        try:
            replies.append((yield from effect))
        except AstromeshError as failure:
            replies.append(failure)
    return replies


async def test_a_failure_of_an_effect_is_raised_in_the_script_which_may_recover() -> None:
    performance = Performance(an_agent(provider=Scripted([BUSY, "Noon."])))
    failure, reply = await performance.stage.perform(recovering(AskModel(QUESTION), AskModel(QUESTION)))
    assert failure is BUSY
    assert isinstance(reply, ModelReply)
    assert reply.text == "Noon."


async def test_a_failure_that_the_script_lets_pass_is_the_failure_of_the_run() -> None:
    def script() -> Script[None]:
        yield from AskModel(QUESTION)

    with pytest.raises(ModelFailed) as raised:
        await Performance(an_agent(provider=Scripted([BUSY]))).stage.perform(script())
    assert raised.value is BUSY


async def test_a_script_may_fail_by_itself_and_clean_up_on_the_way() -> None:
    left = []

    def script() -> Script[None]:
        try:
            yield from Note("begun", {})
            raise TurnsExhausted("enough")
        finally:
            left.append("cleaned up")

    with pytest.raises(TurnsExhausted):
        await Performance(an_agent()).stage.perform(script())
    assert left == ["cleaned up"]


async def test_every_effect_but_a_note_is_one_span_and_a_failed_one_carries_its_code() -> None:
    rooms = Rooms()
    agent = an_agent(provider=Scripted([BUSY, "Noon."]), tools=[DatetimeNow()], memory=rooms.memory)
    performance = Performance(agent, rooms=rooms)
    said = (Message("user", "Hello"), Message("assistant", "Hello."))
    await performance.stage.perform(
        recovering(Recall(), AskModel(QUESTION), AskModel(QUESTION), CallTools((LOOK,)), Note("step", {}), Remember(said))
    )
    assert performance.spans == ["memory_build", "llm.complete", "llm.complete", "tool.call", "memory_persist"]
    failed, went_well, tool = (dict(span.attributes) for span in performance.trace.spans[1:4])
    assert failed == {"error": "model_provider_unavailable"}
    assert went_well == {"node": "here", "route": "local", "model": "m", "pid": os.getpid(), "tokens_in": 4, "tokens_out": 1}
    assert tool == {"tools": ["datetime_now"]}
    starts = [span.start_ms for span in performance.trace.spans]
    assert starts == sorted(starts)
    assert all(span.duration_ms is not None and span.duration_ms >= 0 for span in performance.trace.spans)


async def test_no_span_carries_what_was_said() -> None:
    performance = Performance(an_agent(provider=Scripted(["The vault opens at noon."])))
    await performance.stage.perform(recovering(AskModel((Message("user", "When does the vault open?"),))))
    assert "vault" not in str(performance.trace.as_json())


async def test_the_text_that_streams_is_the_answer() -> None:
    performance = Performance(an_agent(provider=Scripted(["It is  noon,\nor nearly."])))
    (reply,) = await performance.stage.perform(recovering(AskModel(QUESTION)))
    assert isinstance(reply, ModelReply)
    tokens = [data for kind, data in await performance.told() if kind == "token"]
    assert "".join(str(token["content"]) for token in tokens) == reply.text == "It is  noon,\nor nearly."
    assert [token["index"] for token in tokens] == list(range(len(tokens)))


async def test_who_answers_is_told_before_the_first_token_and_tools_around_their_calls() -> None:
    agent = an_agent(provider=Scripted(["Noon."]), tools=[DatetimeNow()])
    performance = Performance(agent)
    await performance.stage.perform(recovering(AskModel(QUESTION), CallTools((LOOK, ToolCall("c2", "fly", "{}")))))
    assert await performance.told() == [
        ("route", {"node": "here", "route": "local", "model": "m", "attempts": 1, "home": "here"}),
        ("token", {"content": "Noon.", "index": 0}),
        (
            "usage",
            {"provider": "local", "model": "m", "role": "default", "tokens_in": 4, "tokens_out": 1, "cached_tokens": 0, "cost": 0.0},
        ),
        ("tool_call", {"id": "c1", "name": "datetime_now", "arguments": "{}"}),
        ("tool_call", {"id": "c2", "name": "fly", "arguments": "{}"}),
        ("tool_result", {"id": "c1", "ok": True}),
        ("tool_result", {"id": "c2", "ok": False}),
    ]


class Log:
    """A tool whose results begin as failures do."""

    schema = ToolSchema("log", "The last line of the log.", {"type": "object"})

    async def call(self, arguments: Mapping[str, Any]) -> str:
        return "error: the printer is out of paper"


async def test_a_result_that_reads_like_a_failure_is_none() -> None:
    performance = Performance(an_agent(tools=[Log()]))
    calls = (ToolCall("c1", "log", "{}"), ToolCall("c2", "log", "[]"), ToolCall("c3", "log", "{"), ToolCall("c4", "fly", "{}"))
    await performance.stage.perform(recovering(CallTools(calls)))
    results = [data for kind, data in await performance.told() if kind == "tool_result"]
    assert [(result["id"], result["ok"]) for result in results] == [("c1", True), ("c2", False), ("c3", False), ("c4", False)]


async def test_usage_and_steps_add_up_over_a_run() -> None:
    performance = Performance(an_agent(provider=Scripted(["One two.", "Three."])))
    step = {"thought": None, "action": None, "action_input": None, "observation": None, "result": "Three."}
    await performance.stage.perform(recovering(AskModel(QUESTION), AskModel(QUESTION), Note("step", step), Note("mood", {"is": "fine"})))
    tally = performance.course.tally
    assert (tally.calls, tally.usage.tokens_in, tally.usage.tokens_out, tally.steps) == (2, 8, 3, [step])


async def test_the_model_is_asked_with_the_agents_own_name_tools_and_sampling() -> None:
    model = Scripted(["Noon."])
    agent = an_agent(provider=model, model="smollm2", tools=[DatetimeNow()])
    await Performance(agent).stage.perform(recovering(AskModel(QUESTION, agent.part.tools)))
    (asked,) = model.asked
    assert (asked.model, asked.transcript, [tool.name for tool in asked.tools], asked.stream) == (
        "smollm2",
        QUESTION,
        ["datetime_now"],
        True,
    )


async def test_when_time_is_over_no_model_is_asked_any_more() -> None:
    model = Scripted(["No."])
    (failure,) = await Performance(an_agent(provider=model), time_s=-1).stage.perform(recovering(AskModel(QUESTION)))
    assert isinstance(failure, AstromeshError)
    assert failure.code == "timeout"
    assert "spec.orchestration.timeout_seconds" in failure.hint
    assert model.asked == []


async def test_a_cancellation_passes_the_script_by_and_closes_the_models_stream() -> None:
    model = HeldModel("never")
    caught: list[BaseException] = []

    def script() -> Script[None]:
        try:
            yield from AskModel(QUESTION)
        except Exception as failure:  # noqa: BLE001  a pattern that catches everything must not catch this
            caught.append(failure)

    task = asyncio.create_task(Performance(an_agent(provider=model)).stage.perform(script()))
    await model.was_begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (model.open, caught) == (0, [])


async def test_an_effect_that_no_stage_knows_is_named() -> None:
    class Levitate(Effect[None]):
        pass

    def script() -> Script[None]:
        yield from Levitate()

    with pytest.raises(TypeError, match="no stage performs Levitate"):
        await Performance(an_agent()).stage.perform(script())


async def test_a_run_that_calls_a_tool_streams_the_last_answer_after_it() -> None:
    rooms = Rooms()
    model = Scripted([ModelReply("", (LOOK,), "tool_calls"), "It is noon."])
    rooms.hosts(an_agent(provider=model, tools=[DatetimeNow()]))
    events = await all_events(rooms.start("What time is it?"))
    kinds = [event.kind for event in events]
    first, second = ["route", "usage", "tool_call", "tool_result", "step"], ["route", "token", "token", "token", "usage", "step", "done"]
    assert kinds == first + second
    assert "".join(event.data["content"] for event in events if event.kind == "token") == events[-1].data["answer"] == "It is noon."
    (_, answered) = model.asked[1].transcript[-2:]
    assert (answered.role, answered.tool_call_id) == ("tool", "c1")


async def test_what_a_failed_run_had_told_is_read_before_its_failure() -> None:
    rooms = Rooms()
    model = HeldModel("Half ", failure=BUSY)
    model.let_all()
    rooms.hosts(an_agent(provider=model))
    run = rooms.start()
    seen, failure = await drained(run.events)
    await run.close()
    assert [event.kind for event in seen] == ["route", "token"]
    assert failure is BUSY

"""Every pattern with a real model of 135 million parameters: what holds is the form of its work, whatever it says.

The first round is greedy. `PATTERN_ROUNDS` adds rounds by chance, each with a seed of its own: there a decision may be unusable twice,
which ends a run with a clear error, and mostly it is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from tests.rig.parts import other, own
from tests.rig.rooms import Rooms, all_events, an_agent

from astromesh.dialogue import ModelEvent, ModelRequest, Sampling, ToolSchema
from astromesh.inference.backends.llama_cpp.engine import LlamaCppEngine
from astromesh.inference.manifest import StoredModel
from astromesh.inference.port import ModelSpecification
from astromesh.runtime.agent import Agent
from astromesh.runtime.events import RunEvent
from astromesh.runtime.targets import Choice, Target
from astromesh.specs.schemas import Schema

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

MODEL = "smollm2"
ROUNDS = int(os.environ.get("PATTERN_ROUNDS", "1"))
ANSWER_TOKENS_MAX = 24
QUESTION = "What do bees make?"
POEM = "Write a poem about the sea."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(smollm2: StoredModel) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(ModelSpecification(MODEL, smollm2.path, smollm2.sha256))
    await engine.start()
    yield engine
    await engine.close()


def samplings() -> list[Sampling]:
    by_chance = [Sampling(temperature=0.3, seed=seed, max_tokens=ANSWER_TOKENS_MAX) for seed in range(1, ROUNDS)]
    return [Sampling(temperature=0, max_tokens=ANSWER_TOKENS_MAX), *by_chance]


def an_agent_of(sampling: Sampling, name: str = "desk", system: str = "You are a helpful assistant.", **keys: Any) -> Agent:
    agent = an_agent(name, system=system, choices={"default": Choice((Target(MODEL, sampling=sampling),), name=name)}, turns=3)
    return replace(agent, part=replace(agent.part, **keys))


async def runs(engine: LlamaCppEngine, *agents: Mapping[str, Any], query: str = QUESTION) -> list[list[RunEvent]]:
    """The events of the greedy run, and of those by chance that came to an answer. The first agent is asked."""
    told = []
    for sampling in samplings():
        rooms = Rooms()
        rooms.has(engine, name=MODEL)
        company = [an_agent_of(sampling, **keys) for keys in agents]
        rooms.hosts(*company)
        told.append(await all_events(rooms.start(query, agent=company[0].name)))
    greedy, *by_chance = told
    assert greedy[-1].kind == "done", greedy[-1].data
    answered = [events for events in by_chance if events[-1].kind == "done"]
    assert all(events[-1].data["code"] == "unusable_reply" for events in by_chance if events not in answered)
    assert len(answered) >= len(by_chance) / 2, [events[-1].data for events in by_chance]
    for events in (greedy, *answered):
        done = events[-1].data
        assert "".join(event.data["content"] for event in events if event.kind == "token") == done["answer"]
        assert done["answer"].strip()
        assert not done["trace"].get("error")
    print([[step["action"] for step in events[-1].data["steps"]] for events in (greedy, *answered)])
    return [greedy, *answered]


def steps(events: list[RunEvent], action: str = "") -> list[Mapping[str, Any]]:
    """The steps that decide something; those of one action."""
    told = [event.data for event in events if event.kind == "step" and event.data["action"]]
    return [step for step in told if not action or step["action"] == action]


def given(step: Mapping[str, Any]) -> Any:
    return json.loads(step["action_input"])


async def test_a_swarm_hands_the_conversation_to_its_peer_who_answers(engine: LlamaCppEngine) -> None:
    host = {"name": "host", "description": "first contact", "pattern": "swarm", "peers": (other("poet", "poems and songs"),)}
    greedy, *by_chance = await runs(engine, host, {"name": "poet", "system": "You are a poet."}, query=POEM)
    assert greedy[-1].data["handoffs"] == [{"from": "host", "to": "poet", "node": "here"}]
    assert [step["action"] for step in steps(greedy)] == ["hand_off"]
    for events in by_chance:
        (decided,) = steps(events)
        assert (decided["action"] == "hand_off") == bool(events[-1].data["handoffs"])


async def test_a_supervisor_gives_tasks_to_its_workers_and_concludes(engine: LlamaCppEngine) -> None:
    workers = (other("facts", "finds facts"), own("sums", "You add numbers.", max_tokens=ANSWER_TOKENS_MAX))
    facts = {"name": "facts", "system": "You state one fact."}
    for events in await runs(engine, {"pattern": "supervisor", "workers": workers}, facts):
        delegated = [(given(step)["worker"], given(step)["task"]) for step in steps(events, "delegate")]
        assert delegated
        assert {worker for worker, _ in delegated} <= {"facts", "sums"}
        assert all(task and step["observation"] for (_, task), step in zip(delegated, steps(events, "delegate"), strict=True))
        assert len(delegated) == len(set(delegated)), "what was brought is not asked for again"
        assert steps(events)[-1]["action"] == "conclude"


async def test_a_plan_is_made_carried_out_in_its_order_and_answered_from(engine: LlamaCppEngine) -> None:
    for events in await runs(engine, {"pattern": "plan_and_execute"}):
        [plan] = [given(step)["steps"] for step in steps(events, "plan")]
        ids = [step["id"] for step in plan]
        assert ids
        assert len(ids) == len(set(ids))
        done: list[str] = []
        for step in steps(events)[1:]:
            id_ = step["action"].removeprefix("step ")
            assert id_ in ids
            assert set(given(step)["after"]) <= set(done)
            assert step["observation"]
            done.append(id_)
        assert sorted(done) == sorted(ids)


async def test_a_question_is_split_worked_on_side_by_side_and_merged(engine: LlamaCppEngine) -> None:
    for events in await runs(engine, {"pattern": "parallel_fan_out"}):
        (split,) = steps(events, "split")
        tasks = given(split)["tasks"]
        assert 1 <= len(tasks) <= 8
        branches = [(given(step)["task"], bool(step["observation"])) for step in steps(events)[1:]]
        assert branches == [(task, True) for task in tasks]


async def test_a_pipeline_goes_through_its_stages_each_on_what_the_one_before_made(engine: LlamaCppEngine) -> None:
    stages = tuple(own(name, f"{name}:", max_tokens=ANSWER_TOKENS_MAX) for name in ("Answer", "Shorten", "Translate into French"))
    for events in await runs(engine, {"pattern": "pipeline", "stages": stages}):
        first, second = steps(events)
        assert [first["action"], second["action"]] == ["Answer", "Shorten"]
        assert given(first)["input"] == QUESTION
        assert given(second)["input"] == first["observation"]


async def test_the_orchestrator_of_a_team_picks_and_the_writer_writes(engine: LlamaCppEngine) -> None:
    team = tuple(own(name, f"You are a {name}.", max_tokens=ANSWER_TOKENS_MAX) for name in ("researcher", "analyst", "writer"))
    for events in await runs(engine, {"pattern": "team", "workers": team}):
        plan, *worked = steps(events)
        assert plan["action"] == "plan"
        picked = [one["member"] for one in given(plan)["plan"]]
        assert set(picked) <= {"researcher", "analyst"}
        assert [step["action"] for step in worked] == picked
        assert all(step["observation"] for step in worked)
        roles = [event.data["role"] for event in events if event.kind == "usage"]
        assert roles[-1] in ("writer", "default")
        assert len(roles) == len(picked) + 2, "the pick, those who were picked, and the writer"


async def test_an_answer_under_a_schema_is_data_that_obeys_it(engine: LlamaCppEngine) -> None:
    document = {
        "type": "object",
        "properties": {"animal": {"enum": ["bee", "cow"]}, "legs": {"type": "integer"}, "why": {"type": "string", "maxLength": 30}},
        "required": ["animal", "legs", "why"],
        "additionalProperties": False,
    }
    schema = Schema(document)
    for sampling in samplings():
        agent = an_agent_of(replace(sampling, max_tokens=100), output=schema)
        rooms = Rooms()
        rooms.has(engine, name=MODEL)
        rooms.hosts(agent)
        done = await rooms.ask("Which animal makes honey, and how many legs has it?")
        assert not schema.complaints(done["data"])
        assert json.loads(done["answer"]) == done["data"]


class Forced:
    """The model, made to call a tool first: one this small never begins a call by itself."""

    def __init__(self, engine: LlamaCppEngine) -> None:
        self._engine = engine

    def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        forced = request.tools and not any(message.role == "tool" for message in request.transcript)
        return self._engine.complete(replace(request, tool_choice="required") if forced else request, timeout_s=timeout_s)

    async def close(self) -> None:
        """The engine is its fixture's."""


class Clock:
    schema = ToolSchema("clock", "The time.", {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]})

    async def call(self, arguments: Mapping[str, Any]) -> str:
        return f"It is noon in {arguments['zone']}."


async def test_a_tool_is_called_as_its_schema_says_and_the_model_answers_from_its_result(engine: LlamaCppEngine) -> None:
    for sampling in samplings():
        rooms = Rooms()
        choice = Choice((Target(MODEL, provider=Forced(engine), sampling=sampling),), name="desk")
        rooms.hosts(an_agent(tools=(Clock(),), choices={"default": choice}))
        events = await all_events(rooms.start("What time is it?"))
        (called,) = [event.data for event in events if event.kind == "tool_call"]
        assert (called["name"], json.loads(called["arguments"])["zone"] in ("UTC", "CET")) == ("clock", True)
        assert [event.data["ok"] for event in events if event.kind == "tool_result"] == [True]
        (step,) = steps(events)
        assert step["observation"] == f"It is noon in {json.loads(called['arguments'])['zone']}."
        assert (events[-1].kind, events[-1].data["answer"].strip() != "") == ("done", True)

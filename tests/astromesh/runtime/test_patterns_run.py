"""Every pattern on a real stage: what streams, what is told of it, and what the result says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.rig.company import gives
from tests.rig.guarded import guarded
from tests.rig.parts import other, own
from tests.rig.rooms import Rooms, all_events, an_agent

from astromesh.dialogue import ModelReply, Sampling, ToolCall, Usage
from astromesh.orchestration.plan import Member
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime.agent import Agent
from astromesh.runtime.events import RunEvent
from astromesh.runtime.targets import Choice, Target
from astromesh.specs.schemas import Schema

MAIL = "john@example.com"
PII = {"type": "pii_detection"}


def desk(*replies: ModelReply | str, name: str = "desk", **keys: Any) -> tuple[Agent, Scripted]:
    model = Scripted(replies)
    agent = an_agent(name, provider=model, system=f"You are {name}.")
    return replace(agent, part=replace(agent.part, **keys)), model


def streamed(events: list[RunEvent]) -> str:
    return "".join(event.data["content"] for event in events if event.kind == "token")


async def run(rooms: Rooms, *agents: Agent) -> tuple[list[RunEvent], Mapping[str, Any]]:
    rooms.hosts(*agents)
    events = await all_events(rooms.start())
    assert events[-1].kind == "done", events[-1].data
    return events, events[-1].data


def actions(done: Mapping[str, Any]) -> list[str | None]:
    return [step["action"] for step in done["steps"]]


async def test_a_pipeline_streams_its_last_stage_alone() -> None:
    agent, model = desk("A draft.", "The answer.", pattern="pipeline", stages=(own("draft", "Draft."), own("edit", "Edit.")))
    events, done = await run(Rooms(), agent)
    assert streamed(events) == done["answer"] == "The answer."
    assert [asked.transcript[-1].content for asked in model.asked] == ["Draft.\n\nHello", "Edit.\n\nA draft."]
    assert actions(done) == ["draft", None]


async def test_a_supervisor_asks_an_agent_of_the_node_and_streams_its_conclusion() -> None:
    delegate = json.dumps({"judgement": "", "delegations": [{"worker": "facts", "task": "Look."}]})
    conclude = json.dumps({"judgement": "Good.", "delegations": []})
    lead, asked = desk(delegate, conclude, "The answer.", pattern="supervisor", workers=(other("facts"),))
    facts, worker = desk("A fact.", name="facts")
    events, done = await run(Rooms(), lead, facts)
    assert streamed(events) == done["answer"] == "The answer."
    assert [event.data for event in events if event.kind == "status"] == [{"state": "delegated", "agent": "facts", "node": "here"}]
    assert [message.content for message in worker.asked[0].transcript] == ["You are facts.", "Look."]
    wanted = [(request.response_format or {})["json_schema"]["schema"]["required"] for request in asked.asked[:2]]
    assert wanted == [["delegations"], ["judgement", "delegations"]]
    assert "A fact." in asked.asked[1].transcript[-1].content
    assert [action for action in actions(done) if action] == ["delegate", "conclude"]


async def test_a_swarm_streams_who_speaks_in_the_end_and_names_the_hand_off() -> None:
    lead, _ = desk(json.dumps({"agent": "billing"}), pattern="swarm", peers=(other("billing"),))
    billing, model = desk("Paid.", name="billing")
    events, done = await run(Rooms(), lead, billing)
    assert streamed(events) == done["answer"] == "Paid."
    assert done["handoffs"] == [{"from": "desk", "to": "billing", "node": "here"}]
    assert model.asked[0].transcript[-1].content == "(Agent desk has handed this conversation over to you.)\n\nHello"
    kinds = [event.kind for event in events]
    assert kinds.index("handoff") < kinds.index("token")


@pytest.mark.parametrize("decides", ["shape", "tools"])
async def test_in_a_dry_run_a_swarm_hands_nothing_over_and_says_so(decides: Any) -> None:
    handing = ModelReply("", (ToolCall("1", "hand_off_to_billing", '{"reason": "money"}'),), "tool_calls")
    decision = json.dumps({"agent": "billing"}) if decides == "shape" else handing
    lead, _ = desk(decision, pattern="swarm", peers=(other("billing"),), decides=decides, dry_run=True)
    billing, model = desk("Paid.", name="billing")
    events, done = await run(Rooms(), lead, billing)
    assert done["answer"] == streamed(events) == "dry run: this conversation was not handed to agent billing, and nothing happened."
    assert (model.asked, done["handoffs"]) == ([], [])


@pytest.mark.parametrize(
    "pattern",
    [{"pattern": "supervisor", "workers": (other("facts"),)}, {"pattern": "pipeline", "stages": (other("facts"), own("end", "End."))}],
    ids=lambda pattern: str(pattern["pattern"]),
)
async def test_in_a_dry_run_no_other_agent_is_asked_and_the_model_is_told(pattern: dict[str, Any]) -> None:
    replies = [gives(("facts", "Look.")), gives(), "The answer."] if pattern["pattern"] == "supervisor" else ["The answer."]
    lead, asked = desk(*replies, **pattern, dry_run=True)
    facts, worker = desk("A fact.", name="facts")
    _, done = await run(Rooms(), lead, facts)
    assert (done["answer"], worker.asked) == ("The answer.", [])
    assert "dry run: agent facts was not asked, and nothing happened." in str([request.transcript for request in asked.asked])


async def test_agents_of_a_namespace_are_told_by_their_keys() -> None:
    lead, _ = desk(json.dumps({"agent": "billing"}), pattern="swarm", peers=(Member("billing", agent="shop/billing"),), namespace="shop")
    billing, model = desk("Paid.", name="billing")
    rooms = Rooms()
    rooms.runtime.agents.update({"shop/desk": replace(lead, namespace="shop"), "shop/billing": replace(billing, namespace="shop")})
    events = await all_events(rooms.start(agent="shop/desk"))
    done = events[-1].data
    assert done["answer"] == "Paid."
    assert done["handoffs"] == [{"from": "shop/desk", "to": "shop/billing", "node": "here"}]
    assert "(Agent shop/desk has handed" in model.asked[0].transcript[-1].content
    assert rooms.traces.recent(limit=1, agent="shop/desk")


async def test_a_plan_is_carried_out_and_only_its_synthesis_streams() -> None:
    plan = json.dumps({"steps": [{"id": "a", "task": "Look.", "after": []}, {"id": "b", "task": "Think.", "after": ["a"]}]})
    agent, _ = desk(plan, "Seen.", "Thought.", "The answer.", pattern="plan_and_execute")
    events, done = await run(Rooms(), agent)
    assert streamed(events) == done["answer"] == "The answer."
    assert actions(done) == ["plan", "step a", "step b", None]
    assert {row["role"] for row in done["usage"]["by_model"]} == {"default"}  # the document names no other


async def test_a_vote_streams_what_no_model_was_asked_to_write_again() -> None:
    agent, model = desk("Lima", "Quito", "lima.", pattern="parallel_fan_out", merge="vote", workers=(own("a"), own("b"), own("c")))
    events, done = await run(Rooms(), agent)
    assert streamed(events) == done["answer"]
    assert done["answer"].casefold().startswith("lima")
    assert len(model.asked) == 3


async def test_a_team_streams_its_writer() -> None:
    plan = json.dumps({"plan": [{"member": "coder", "task": "Code."}]})
    agent, model = desk(
        plan, "print()", "The answer.", pattern="team", workers=(own("coder", "You code."), own("writer", "You write.", max_tokens=7))
    )
    events, done = await run(Rooms(), agent)
    assert streamed(events) == done["answer"] == "The answer."
    assert model.asked[-1].transcript[0].content == "You write."
    assert model.asked[-1].sampling.max_tokens == 7


async def test_what_ends_answers_ends_no_decision_and_a_member_has_its_own_length() -> None:
    plan = json.dumps({"plan": [{"member": "coder", "task": "Code."}]})
    model = Scripted([plan, "print()", "The answer."])
    choice = Choice((Target("m", provider=model, sampling=Sampling(max_tokens=9, stop=("}",))),))
    agent = an_agent(choices={"default": choice})
    workers = (own("coder", "You code.", max_tokens=4096),)
    rooms = Rooms()
    rooms.hosts(replace(agent, part=replace(agent.part, pattern="team", workers=workers)))
    await rooms.ask()
    assert [(asked.sampling.max_tokens, asked.sampling.stop) for asked in model.asked] == [(2048, ()), (4096, ("}",)), (9, ("}",))]


async def test_an_answer_under_a_schema_streams_whole_and_its_data_is_in_the_result() -> None:
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]}
    agent, model = desk("Quite good.", '{"score": 7}', output=Schema(schema))
    events, done = await run(Rooms(), agent)
    assert [event.data["content"] for event in events if event.kind == "token"] == ['{"score":7}']
    assert (done["answer"], done["data"]) == ('{"score":7}', {"score": 7})
    assert (model.asked[0].response_format or {})["json_schema"] == {"name": "reply", "schema": schema}
    assert actions(done) == [None]


@pytest.mark.parametrize("watched", [True, False])
async def test_what_was_thought_aside_and_said_in_the_end_is_guarded_where_it_is_told(watched: bool) -> None:
    conclude = json.dumps({"judgement": f"{MAIL} asks.", "delegations": []})
    lead, _ = desk(conclude, f"Hello {MAIL}.", pattern="supervisor", workers=(other("facts"),))
    rooms = Rooms()
    rooms.hosts(guarded(lead, output=[PII]))
    told = await all_events(rooms.start(watched=watched))
    assert MAIL not in str(told)
    assert told[-1].data["steps"][0]["thought"] == "[REDACTED_EMAIL] asks."
    assert told[-1].data["answer"] == "Hello [REDACTED_EMAIL]."


async def test_personal_data_is_in_no_data_either() -> None:
    agent, _ = desk(json.dumps({"mail": MAIL}), output=Schema({"type": "object"}))
    rooms = Rooms()
    rooms.hosts(guarded(agent, output=[PII]))
    done = await rooms.ask()
    assert done["data"] == {"mail": "[REDACTED_EMAIL]"}
    assert MAIL not in str(done)


async def test_a_limit_of_costs_that_ends_a_decision_is_an_outcome_with_its_message() -> None:
    delegate = json.dumps({"judgement": "", "delegations": [{"worker": "own", "task": "Look."}]})
    costly = ModelReply(delegate, usage=Usage(tokens_in=50, tokens_out=50))
    lead, _ = desk(costly, pattern="supervisor", workers=(own("own", "You look."),))
    rooms = Rooms()
    rooms.hosts(guarded(lead, input=[{"type": "cost_limit", "max_tokens_per_turn": 100, "message": "That is enough."}]))
    events = await all_events(rooms.start())
    done = events[-1].data
    assert (done["answer"], done["blocked"], done["finish_reason"]) == ("That is enough.", True, "content_filter")
    assert streamed(events) == "That is enough."

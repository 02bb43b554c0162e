"""Agents that were written to harm their node, posted to it over HTTP: each is refused by name, and everybody else is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.rig.documents import agent, provider
from tests.rig.inside import Inside, node_inside
from tests.rig.stub_openai import StubOpenAI

BOMBS = {
    "a text, multiplied": "{{ 'a' * 10**9 }}",
    "loops that write nothing": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a long range": "{{ range(10**9)|list }}",
    "a macro that calls itself twice": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "what the caller sent, many times": "{{ query * 10**7 }}",
    "a constant that the compiler would compute": "{{ 'x'|center(10**9) }}",
}
NO_TEMPLATES = {
    "nested brackets": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "nested loops": "{% for a in b %}" * 30 + "{% endfor %}" * 30,
    "many variables": "{{ a }}" * 14_000,
}
AT_ONCE = 200
OWN_LIMIT = {"orchestration": {"pattern": "react", "max_iterations": 2, "timeout_seconds": 20}}


@pytest.fixture
async def stub() -> AsyncIterator[StubOpenAI]:
    async with StubOpenAI(models=["stub"]) as server:
        yield server


@pytest.fixture
async def node(tmp_path: Path, stub: StubOpenAI) -> AsyncIterator[Inside]:
    async with node_inside(tmp_path, {**provider(stub.endpoint), **agent("desk", memory={"conversational": {}})}) as opened:
        yield opened


def document(name: str, **spec: Any) -> Any:
    [(_, written)] = agent(name, **spec).items()
    return written


async def posted(node: Inside, name: str, **spec: Any) -> tuple[int, Any]:
    status, answer = await node.send("POST", "/v1/agents", document(name, **spec))
    if status == 201:
        status, answer = await node.send("POST", f"/v1/agents/{name}/deploy")
    return status, answer


@pytest.mark.parametrize("where", ["system", "context"])
async def test_a_prompt_that_would_take_everything_ends_its_own_runs_alone(node: Inside, stub: StubOpenAI, where: str) -> None:
    for number, text in enumerate(BOMBS.values()):
        status, answer = await posted(node, f"bomb-{number}", prompts={where: text})
        assert status == 200, answer
    bombs = [node.ask(f"bomb-{number}") for number in range(len(BOMBS))]
    answers = await asyncio.gather(*bombs, *(node.ask("desk", f"Question {number}.") for number in range(9)))
    for name, (status, body) in zip(BOMBS, answers, strict=False):
        assert (status, body["code"]) == (422, "prompt_unrenderable"), name
        assert f"prompts.{where}" in body["detail"], name
    assert [body["answer"] for _, body in answers[len(BOMBS) :]] == [f"You said: Question {number}." for number in range(9)]
    assert len(stub.asked("stub")) == 9


async def test_a_prompt_that_no_compiler_takes_is_a_mistake_of_its_document(node: Inside) -> None:
    for name, text in NO_TEMPLATES.items():
        status, problem = await posted(node, "bomb", prompts={"system": text})
        assert (status, problem["code"]) == (422, "invalid_document"), (name, problem)
        assert "spec.prompts.system" in str(problem), name
    assert (await node.ask("desk"))[0] == 200


async def test_a_member_that_nobody_has_is_named_and_a_circle_on_one_node_is_refused(node: Inside, stub: StubOpenAI) -> None:
    lost = {"pattern": "pipeline", "stages": [{"name": "one", "agent": "nobody"}]}
    status, problem = await posted(node, "lost", orchestration=lost)
    assert status == 200, problem
    status, problem = await node.ask("lost")
    assert status == 404, problem
    assert "nobody" in str(problem["detail"])
    for name, asks in (("round", "round"), ("left", "right"), ("right", "left")):
        stages = [{"name": "one", "agent": asks}]
        status, problem = await posted(node, name, orchestration={"pattern": "pipeline", "stages": stages})
        assert (status, "the agent itself" in str(problem)) == ((422, True) if name == asks else (200, False)), problem
    status, problem = await node.ask("left")
    assert (status, problem["code"]) == (502, "delegation_refused"), problem
    assert "left → right → left" in str(problem["detail"])
    assert stub.asked("stub") == []


async def test_two_hundred_runs_at_once_in_two_hundred_sessions_are_answered_once_each(node: Inside, stub: StubOpenAI) -> None:
    answers = await asyncio.gather(*(node.ask("desk", f"Question {number}.", session_id=f"s{number}") for number in range(AT_ONCE)))
    assert [(status, body["answer"]) for status, body in answers] == [(200, f"You said: Question {number}.") for number in range(AT_ONCE)]
    assert len(stub.asked("stub")) == AT_ONCE
    for number in range(0, AT_ONCE, 20):
        kept = (await node.get(f"/v1/memory/desk/history/s{number}"))["history"]
        assert [row["content"] for row in kept] == [f"Question {number}.", f"You said: Question {number}."]


async def test_two_hundred_runs_at_once_in_one_session_are_answered_in_turn_or_refused_by_name(node: Inside, stub: StubOpenAI) -> None:
    answers = await asyncio.gather(*(node.ask("desk", f"Question {number}.", session_id="s") for number in range(AT_ONCE)))
    answered = [body["answer"].removeprefix("You said: ") for status, body in answers if status == 200]
    assert answered
    assert {(status, body.get("code")) for status, body in answers if status != 200} <= {(429, "overloaded"), (503, "overloaded")}
    assert len(stub.asked("stub")) == len(answered)
    kept = (await node.get("/v1/memory/desk/history/s"))["history"]
    asked = [row["content"] for row in kept if row["role"] == "user"]
    assert sorted(asked) == sorted(answered)


async def test_a_plan_that_is_no_plan_is_asked_for_twice_and_then_named(node: Inside, stub: StubOpenAI) -> None:
    status, problem = await posted(node, "planner", orchestration={"pattern": "plan_and_execute"})
    assert status == 200, problem
    stub.say("stub", "I would rather not.", '{"steps": [{"id": "a", "task": "x", "after": ["a"]}]}')
    status, problem = await node.ask("planner")
    assert (status, problem["code"]) == (502, "unusable_reply")
    assert len(stub.asked("stub")) == 2
    assert (await node.ask("desk"))[0] == 200

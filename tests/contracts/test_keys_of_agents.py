"""What documents say of agents: who they are, what they are told, how they go about a question, what they refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.contracts.witness import Witness
from tests.rig.documents import Documents, agent, provider, runtime
from tests.rig.stub_answers import Say
from tests.rig.stub_openai import StubOpenAI

CLOCK = [{"type": "builtin", "name": "datetime_now"}]
COUNTS = [{"type": "builtin", "name": "json_transform"}]


def messages(stub: StubOpenAI, number: int = -1) -> list[str]:
    """What a model was asked, in order."""
    return [message["content"] for message in stub.asked("stub")[number].body["messages"]]


def an_agent(stub: StubOpenAI, **spec: Any) -> Documents:
    return {**provider(stub.endpoint, models=["stub", "other"]), **agent("desk", **spec)}


async def test_an_agent_is_shown_as_its_document_names_it(witness: Witness, stub: StubOpenAI) -> None:
    identity = {"display_name": "The desk", "description": "Answers.", "avatar": "desk.png"}
    files = dict(an_agent(stub, identity=identity))
    metadata = {"name": "desk", "version": "2.1.0", "namespace": "sales", "labels": {"tier": "1"}, "annotations": {"owner": "me"}}
    files["agents/desk.agent.yaml"] = {**files["agents/desk.agent.yaml"], "metadata": metadata}  # type: ignore[dict-item]
    files |= provider(stub.endpoint, name="meta", share="none")
    files["providers-meta.yaml"] = {**files["providers-meta.yaml"], "metadata": {**metadata, "name": "meta"}}  # type: ignore[dict-item]
    files["runtime.yaml"] = {**runtime(mesh={"enabled": True})["runtime.yaml"], "metadata": {**metadata, "name": "mine"}}  # type: ignore[dict-item]
    async with witness.node(files) as node:
        shown = await node.get("/v1/agents/desk?namespace=sales")
        assert shown["apiVersion"] == "astromesh/v1"
        assert shown["metadata"] == metadata
        assert shown["spec"]["identity"] == identity
        [row] = (await node.get("/v1/agents"))["agents"]
        assert (row["version"], row["namespace"]) == ("2.1.0", "sales")
        assert (await node.get("/v1/system/status"))["warnings"] == []


@pytest.mark.parametrize("version", ["astromesh/v1", "astromesh.io/v1alpha1"])
async def test_a_document_takes_variables_from_the_environment(
    witness: Witness, stub: StubOpenAI, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE", "the lake")
    files = dict(an_agent(stub, system="You are at ${WHERE}, ${WHEN_NOBODY_SAYS:-today}."))
    files["agents/desk.agent.yaml"] = {**files["agents/desk.agent.yaml"], "apiVersion": version}  # type: ignore[dict-item]
    async with witness.node(files) as node:
        await node.answer()
        assert messages(stub)[0] == "You are at the lake, today."


async def test_keys_may_be_written_in_camel_case(witness: Witness, stub: StubOpenAI) -> None:
    spec = {
        "model": {"primary": {"providerRef": "stub", "model": "stub", "parameters": {"maxTokens": 3}, "contextWindow": 500}},
        "orchestration": {"pattern": "react", "maxIterations": 1, "timeoutSeconds": 20, "maxToolResultTokens": 5},
        "memory": {"conversational": {"backend": "in_memory", "maxTurns": 2}},
        "guardrails": {"input": [{"type": "content_filter", "forbiddenKeywords": ["secret"], "message": "Not that."}]},
        "permissions": {"deniedActions": ["datetime_now"]},
        "tools": CLOCK,
    }
    files = dict(an_agent(stub))
    files["agents/desk.agent.yaml"] = {**files["agents/desk.agent.yaml"], "spec": spec}  # type: ignore[dict-item]
    async with witness.node(files) as node:
        [said] = (await node.warnings()).splitlines()
        assert "spec.permissions.denied_actions" in said
        assert (await node.answer(query="one two three", session_id="s-1"))["answer"] == "You said: one"
        assert "tools" not in stub.asked("stub")[-1].body
        await node.answer(query="And now?", session_id="s-1")
        assert messages(stub)[-3:] == ["one two three", "You said: one", "And now?"]
        assert (await node.answer(query="The secret?"))["answer"] == "Not that."


async def test_prompts_are_templates_and_what_is_undefined_is_empty(witness: Witness, stub: StubOpenAI) -> None:
    prompts = {
        "system": "You serve {{ shop }}.{{ nothing }} {% include 'rules' %}",
        "templates": {"rules": "Be brief with {{ name }}."},
        "context": "It is {{ day }}.",
    }
    async with witness.node(an_agent(stub, prompts=prompts)) as node:
        await node.answer(query="Hello", context={"shop": "a shop", "name": "Ada", "day": "Monday"})
        assert messages(stub) == ["You serve a shop. Be brief with Ada.", "It is Monday.\n\nHello"]


async def test_an_answer_obeys_its_schema(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node(an_agent(stub, output_schema={"score": {"type": "integer"}})) as node:
        stub.say("stub", '{"score": 5}')
        assert (await node.answer())["data"] == {"score": 5}
        stub.say("stub", '{"score": "five"}', '{"score": "five"}')
        refused = await node.run()
        assert (refused.status, refused.body["code"]) == (502, "unusable_reply")


GOES = '{"agent": "till"}'
PLAN = json.dumps({"steps": [{"id": "a", "task": "Look.", "after": []}]})
SUPERVISES = json.dumps({"judgement": "", "next": "delegate", "delegations": [{"worker": "facts", "task": "Look."}]})
CONCLUDES = json.dumps({"judgement": "", "next": "conclude", "delegations": []})
TEAM = json.dumps({"plan": [{"member": "facts", "task": "Look."}]})
WORKERS = [
    {"name": "facts", "description": "Finds facts.", "prompt": "You find facts.", "role": "facts", "max_tokens": 50},
    {"agent": "till"},
]


def worked(stub: StubOpenAI) -> list[str]:
    """The system prompts under which models were asked, without repetitions."""
    return list(dict.fromkeys(request.body["messages"][0]["content"] for request in stub.requests if request.method == "POST"))


async def test_react_answers_and_calls_tools_until_its_iterations_are_over(witness: Witness, stub: StubOpenAI) -> None:
    react = {"pattern": "react", "max_iterations": 2, "timeout": 20, "max_tool_result_tokens": 5}
    async with witness.node(an_agent(stub, tools=COUNTS, orchestration=react)) as node:
        call = Say(calls=(("json_transform", {"data": {"a": "x" * 1000}, "expression": "a"}),))
        stub.say("stub", call, "Done.")
        assert (await node.answer())["answer"] == "Done."
        assert len(messages(stub)[-1]) < 200
        stub.say("stub", call, call, call)
        refused = await node.run()
        assert (refused.status, refused.body["code"]) == (502, "turns_exhausted")


async def test_a_pipeline_goes_through_its_stages(witness: Witness, stub: StubOpenAI) -> None:
    stages = [
        {"name": "draft", "prompt": "Write about {{ input }}", "role": "writer", "max_tokens": 20},
        {"name": "check", "agent": "till"},
    ]
    async with witness.node(
        {**an_agent(stub, orchestration={"pattern": "pipeline", "stages": stages}), **agent("till", model="other")}
    ) as node:
        stub.say("stub", "A draft.")
        stub.say("other", "Checked.")
        assert (await node.answer(query="lakes"))["answer"] == "Checked."
        assert "Write about lakes" in "".join(messages(stub))
        assert stub.asked("stub")[-1].body["max_tokens"] == 20
        assert "A draft." in stub.asked("other")[-1].body["messages"][-1]["content"]


@pytest.mark.parametrize("merge", ["model", "vote", "concat"])
async def test_a_fan_out_asks_all_its_workers_and_merges_what_they_say(witness: Witness, stub: StubOpenAI, merge: str) -> None:
    how = {"pattern": "parallel_fan_out", "merge": merge, "workers": WORKERS}
    async with witness.node({**an_agent(stub, orchestration=how), **agent("till", model="other")}) as node:
        stub.say("stub", "Blue.")
        stub.say("other", "Blue.")
        answer = (await node.answer())["answer"]
        assert answer == "Blue." if merge == "vote" else "Blue." in answer
        assert len(stub.asked("stub")) == (2 if merge == "model" else 1)
        assert stub.asked("stub")[0].body["max_tokens"] == 50


async def test_a_supervisor_gives_tasks_to_its_workers(witness: Witness, stub: StubOpenAI) -> None:
    how = {"pattern": "supervisor", "workers": WORKERS}
    async with witness.node({**an_agent(stub, orchestration=how), **agent("till", model="other")}) as node:
        stub.say("stub", SUPERVISES, "A fact.", CONCLUDES, "The answer.")
        done = await node.answer()
        assert done["answer"] == "The answer."
        assert "Finds facts." in str(messages(stub, 0))
        assert any("You find facts." in prompt for prompt in worked(stub))


async def test_a_plan_is_made_and_carried_out(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node(an_agent(stub, orchestration={"pattern": "plan_and_execute"})) as node:
        stub.say("stub", PLAN, "I looked.", "The answer.")
        assert (await node.answer())["answer"] == "The answer."


async def test_a_team_works_through_a_plan_of_its_specialists(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node(an_agent(stub, orchestration={"pattern": "team", "workers": [WORKERS[0]]})) as node:
        stub.say("stub", TEAM, "A fact.", "The report.")
        assert (await node.answer())["answer"] == "The report."


@pytest.mark.parametrize("key", ["max_handoffs", "max_hand_offs"])
async def test_a_swarm_hands_on_only_so_often(witness: Witness, stub: StubOpenAI, key: str) -> None:
    peer = {"name": "money", "agent": "till", "description": "Knows prices."}
    swarm = {"pattern": "swarm", "peers": [peer], key: 1}
    back = {"pattern": "swarm", "peers": ["desk"]}
    async with witness.node({**an_agent(stub, orchestration=swarm), **agent("till", model="other", orchestration=back)}) as node:
        stub.say("stub", Say(calls=(("hand_off_to_money", {"reason": "prices"}),)))
        stub.say("other", "Ten.")
        done = await node.answer()
        assert (done["answer"], done["handoffs"]) == ("Ten.", [{"from": "desk", "to": "till", "node": "solo"}])
        assert "Knows prices." in str(stub.asked("stub")[0].body["tools"])
        assert "tools" not in stub.asked("other")[0].body, "nobody is left to hand on to"


async def test_what_an_agent_does_not_say_of_its_orchestration_the_node_says(witness: Witness, stub: StubOpenAI) -> None:
    said = {
        "pattern": "plan_and_execute",
        "max_iterations": 2,
        "timeout_seconds": 20,
        "max_tool_result_tokens": 5,
        "max_handoffs": 1,
        "merge": "vote",
    }
    written = runtime(mesh={"enabled": True}, defaults={"orchestration": said})
    files = dict(an_agent(stub, orchestration={}, tools=COUNTS))
    async with witness.node({**files, **written}) as node:
        stub.say("stub", PLAN, "I looked.", "The answer.")
        assert (await node.answer())["answer"] == "The answer."
    reacts = {"pattern": "react", "max_iterations": 1, "timeout": 0.3, "max_hand_offs": 0}
    silent = dict(an_agent(stub, tools=COUNTS, orchestration={}))
    late = agent("late", model="hangs", orchestration={})
    files = {**provider(stub.endpoint, models=["stub", "hangs"]), "agents/desk.agent.yaml": silent["agents/desk.agent.yaml"], **late}
    async with witness.node({**files, **runtime(mesh={"enabled": True}, defaults={"orchestration": reacts})}, name="other") as node:
        stub.say("stub", Say(calls=(("json_transform", {"data": 1, "expression": "@"}),)))
        refused = await node.run()
        assert (refused.status, refused.body["code"]) == (502, "turns_exhausted")
        refused = await node.run("late")
        assert (refused.status, refused.body["detail"]["timeout_seconds"]) == (504, 0.3)


@pytest.mark.parametrize("merge", ["model", "concat"])
async def test_a_node_may_let_every_agent_fan_out(witness: Witness, stub: StubOpenAI, merge: str) -> None:
    said = runtime(mesh={"enabled": True}, defaults={"orchestration": {"pattern": "parallel_fan_out", "merge": merge}})
    async with witness.node({**an_agent(stub, orchestration={"workers": WORKERS[:1]}), **said}) as node:
        stub.say("stub", "Blue.", "All in all: blue.")
        assert ((await node.answer())["answer"] == "All in all: blue.") == (merge == "model")


Rule = dict[str, Any]
CARD = "4111 1111 1111 1111"
BLOCKING: dict[str, tuple[Rule, str]] = {
    "pii_detection": ({"action": "block"}, CARD),
    "topic_filter": ({"blocked_topics": ["gambling"]}, "Tell me of gambling"),
    "forbidden_topics": ({"type": "topic_filter", "forbidden_topics": ["gambling"]}, "Tell me of gambling"),
    "allowed_topics": ({"type": "topic_filter", "allowed_topics": ["lakes"]}, "Tell me of mountains"),
    "max_length": ({"max_chars": 10}, "More than ten characters"),
    "max_characters": ({"type": "max_length", "max_characters": 10}, "More than ten characters"),
    "content_filter": ({"blocked_patterns": ["sec.et"]}, "the secret"),
    "forbidden_keywords": ({"type": "content_filter", "forbidden_keywords": ["secret"]}, "the secret"),
}


@pytest.mark.parametrize("direction", ["input", "output"])
async def test_a_rule_that_blocks_answers_with_its_message(witness: Witness, stub: StubOpenAI, direction: str) -> None:
    files: dict[str, Any] = dict(provider(stub.endpoint))
    for name, (rule, _) in BLOCKING.items():
        whole = {"type": name, "action": "block", **rule, "message": f"Not that: {name}."}
        files |= agent(name.replace("_", "-"), guardrails={direction: [whole]})
    async with witness.node(files) as node:
        for name, (rule, text) in BLOCKING.items():
            if direction == "output":
                stub.say("stub", text)
            ran = await node.run(name.replace("_", "-"), text if direction == "input" else "A lake?")
            assert (ran.status, ran.body.get("blocked"), ran.body["answer"]) == (200, True, f"Not that: {name}."), ran.body
            assert ran.body["guardrail"] | {"reason": ""} == {"direction": direction, "rule": rule.get("type", name), "reason": ""}


@pytest.mark.parametrize("direction", ["input", "output"])
async def test_a_rule_may_redact_or_warn_instead(witness: Witness, stub: StubOpenAI, direction: str) -> None:
    rules = {
        "redact": {"type": "pii_detection", "action": "redact"},
        "warn": {"type": "content_filter", "forbidden_keywords": ["card"], "action": "warn"},
    }
    files = {path: text for name, rule in rules.items() for path, text in agent(name, guardrails={direction: [rule]}).items()}
    async with witness.node({**provider(stub.endpoint), **files}) as node:
        for name in rules:
            stub.say("stub", f"The card {CARD}")
            done = await node.answer(name, f"The card {CARD}")
            hidden = messages(stub)[-1] if direction == "input" else done["answer"]
            assert hidden == ("The card [REDACTED_CC]" if name == "redact" else f"The card {CARD}")
            assert ("warnings" in done) == (name == "warn")


@pytest.mark.parametrize("direction", ["input", "output"])
async def test_a_limit_of_costs_cuts_an_answer_and_ends_a_session(witness: Witness, stub: StubOpenAI, direction: str) -> None:
    turn = {"type": "cost_limit", "max_tokens_per_turn": 3, "message": "Enough."}
    session = {"type": "cost_limit", "max_tokens_per_session": 20, "message": "Enough."}
    files = {**agent("turn", guardrails={direction: [turn]}), **agent("session", guardrails={direction: [session]})}
    async with witness.node({**provider(stub.endpoint), **files}) as node:
        assert (await node.answer("turn", "one two three"))["finish_reason"] == "length"
        for _ in range(3):
            done = await node.answer("session", "one two three four five", session_id="s-1")
        assert (done["blocked"], done["answer"], done["guardrail"]["rule"]) == (True, "Enough.", "cost_limit")

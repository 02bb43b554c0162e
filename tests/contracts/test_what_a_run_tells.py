"""Asking an agent: as JSON, as a stream, over a WebSocket; taken up again, cancelled, blocked, failed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from tests.contracts.witness import Witness
from tests.rig.answering import a_server_that
from tests.rig.documents import Documents, agent, provider
from tests.rig.doors import sent_events
from tests.rig.eventually import eventually
from tests.rig.stub_answers import Say, spoken
from tests.rig.stub_openai import StubOpenAI, whole_answer

from astromesh.runtime import engine, recent_runs

CLOCK = [{"type": "builtin", "name": "datetime_now"}]
CALLS = Say(calls=(("datetime_now", {}),))
LEAVING_GOAL_S = 2.0
MEETING_GOAL_S = 3.0


def a_pair(stub: StubOpenAI) -> Documents:
    """An agent that may hand on to another, and has a clock."""
    swarm = {"pattern": "swarm", "peers": ["till"]}
    return {**provider(stub.endpoint), **agent("desk", orchestration=swarm), **agent("till", tools=CLOCK)}


def hands_on(stub: StubOpenAI) -> None:
    stub.say("stub", Say(calls=(("hand_off_to_till", {"reason": "It has a clock."}),)), CALLS, "It is noon.")


async def test_an_answer_has_every_key_and_its_headers_say_who_made_it(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node(a_pair(stub)) as node:
        hands_on(stub)
        ran = await node.run(query="What time is it?", session_id="s-1", context={"day": "Monday"}, stream=False, namespace="default")
        assert (ran.status, ran.body["answer"], ran.body["session_id"]) == (200, "It is noon.", "s-1")
        assert ran.body["handoffs"] == [{"from": "desk", "to": "till", "node": "solo"}]
        assert [step["action"] for step in ran.body["steps"]].count("datetime_now") == 1
        assert ran.body["usage"]["model"] == "stub"
        assert ran.body["usage"]["tokens_out"] == sum(row["tokens_out"] for row in ran.body["usage"]["by_model"]) > 0
        assert ran.body["data"] is None
        assert {name: ran.headers[name] for name in ran.headers if name.startswith("X-Astromesh-")} == {
            "X-Astromesh-Node": "solo", "X-Astromesh-Home": "solo", "X-Astromesh-Route": "local", "X-Astromesh-Attempts": "1",
        }  # fmt: skip
        assert ran.headers["X-Request-Id"] == ran.body["trace"]["trace_id"]


async def test_a_conversation_that_another_node_takes_over_is_in_one_trace(witness: Witness, stub: StubOpenAI) -> None:
    swarm = {"pattern": "swarm", "peers": ["till"]}
    on_attic = {**provider(stub.endpoint), **agent("desk", orchestration=swarm)}
    on_kitchen = {**provider(stub.endpoint), **agent("till", tools=CLOCK)}
    async with witness.node(on_attic, name="attic") as attic, witness.node(on_kitchen, name="kitchen") as kitchen:
        assert (await attic.ask("POST", "/v1/mesh/join", {"address": kitchen.gossip})).status == 200

        async def till_is_known() -> bool:
            return (await attic.ask("GET", "/v1/ready?agent=till")).status == 200

        await eventually(till_is_known, MEETING_GOAL_S)
        hands_on(stub)
        done = await attic.answer(query="Time?")
        assert (done["answer"], done["home"], done["node"]) == ("It is noon.", "attic", "kitchen")
        assert done["handoffs"] == [{"from": "desk", "to": "till", "node": "kitchen"}]
        assert {span["node"] for span in done["trace"]["spans"]} == {"attic", "kitchen"}


async def test_a_stream_tells_what_happens_as_it_happens(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node(a_pair(stub)) as node:
        for how in ({"body": {"query": "Time?", "stream": True}}, {"body": {"query": "Time?"}, "headers": {"Accept": "text/event-stream"}}):
            hands_on(stub)
            streamed = await node.ask("POST", "/v1/agents/desk/run", **how)  # type: ignore[arg-type]
            assert streamed.headers["X-Astromesh-Node"] == "solo"
            assert [int(event.id) for event in streamed.events] == list(range(len(streamed.events)))
            assert "".join(token["content"] for token in streamed.told("token")) == "It is noon."
            assert [token["index"] for token in streamed.told("token")] == [0, 1, 2]
            [call], [result] = streamed.told("tool_call"), streamed.told("tool_result")
            assert (call["name"], call["id"], result["ok"]) == ("datetime_now", result["id"], True)
            assert streamed.told("handoff") == [{"from": "desk", "to": "till", "node": "solo"}]
            [done] = streamed.told("done")
            assert (done["answer"], done["node"], done["attempts"], done["route"]) == ("It is noon.", "solo", 1, "local")
            assert streamed.events[-1].event == "done"


async def test_tokens_arrive_through_another_node_while_the_model_still_speaks(witness: Witness, stub: StubOpenAI) -> None:
    on_kitchen = {**provider(stub.endpoint, models=["slow"]), **agent("desk", model="slow")}
    async with witness.node({}, name="attic") as attic, witness.node(on_kitchen, name="kitchen") as kitchen:
        assert (await attic.ask("POST", "/v1/mesh/join", {"address": kitchen.gossip})).status == 200

        async def desk_is_known() -> bool:
            return (await attic.ask("GET", "/v1/ready?agent=desk")).status == 200

        await eventually(desk_is_known, MEETING_GOAL_S)
        async with attic.http.post("/v1/agents/desk/run", json={"query": "word " * 20, "stream": True}) as response:
            spoken_to = [stub.active async for event in sent_events(response) if event.event == "token"]
        assert len(spoken_to) == 22
        assert spoken_to.count(1) > 10, "the model was still speaking when these arrived"


async def test_a_turn_that_waits_for_another_of_its_session_says_so(witness: Witness, stub: StubOpenAI) -> None:
    remembers = {"conversational": {"backend": "in_memory"}}
    async with witness.node({**provider(stub.endpoint, models=["slow"]), **agent("desk", model="slow", memory=remembers)}) as node:
        asked = [node.run(query="one two three four", session_id="s-1", stream=True) for _ in range(2)]
        states = [status["state"] for answer in await asyncio.gather(*asked) for status in answer.told("status")]
        assert states == ["queued", "running"]


async def test_an_error_after_the_first_token_is_the_last_event(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node({**provider(stub.endpoint, models=["half-a-stream"]), **agent("desk", model="half-a-stream")}) as node:
        streamed = await node.run(query="one two three four", stream=True)
        assert (streamed.status, streamed.events[-1].event) == (200, "error")
        assert streamed.told("token")
        [error] = streamed.told("error")
        assert error["code"].startswith("model_")
        assert error["hint"]


async def test_a_websocket_tells_the_same_and_outlives_bad_json_and_a_cancel(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node({**a_pair(stub), **agent("slow", model="slow")}) as node, node.talk("desk", query="session_id=s-9") as talk:
        await talk.say("{")
        [error] = await talk.until("error")
        assert error["code"] == "malformed_body"
        hands_on(stub)
        await talk.say({"query": "What time is it?"})
        told = await talk.until("done", "error")
        assert (told[-1]["answer"], told[-1]["session_id"]) == ("It is noon.", "s-9")
        assert "".join(event["content"] for event in told if event["type"] == "token") == "It is noon."
        await talk.say({"cancel": True})
        assert (await talk.until("status"))[-1]["state"] == "idle"


async def test_a_run_is_cancelled_over_its_websocket_and_by_its_id(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node({**provider(stub.endpoint, models=["hangs"]), **agent("desk", model="hangs")}) as node:
        async with node.talk() as talk:
            await talk.say({"query": "Hello"})
            [started] = await talk.until("status")
            await talk.say({"cancel": True})
            assert (await talk.until("error"))[-1]["code"] == "run_cancelled"
            await talk.say({"query": "Hello"})
            [started] = await talk.until("status")
            assert (await node.ask("DELETE", f"/v1/runs/{started['run_id']}")).status == 202
            assert (await talk.until("error"))[-1]["code"] == "run_cancelled"
        assert (await node.ask("DELETE", "/v1/runs/nothing")).status == 404


async def test_a_run_is_read_again_from_behind_an_event(witness: Witness, stub: StubOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    async with witness.node({**provider(stub.endpoint), **agent("desk")}) as node:
        first = await node.run(query="one two three", stream=True)
        path = f"/v1/runs/{first.headers['X-Request-Id']}/events"
        assert [event.data for event in (await node.ask("GET", path)).events] == [event.data for event in first.events]
        rest = await node.ask("GET", path, headers={"Last-Event-ID": "2"})
        assert [event.id for event in rest.events] == [event.id for event in first.events[3:]]
        assert (await node.ask("GET", "/v1/runs/nothing/events")).status == 404
        monkeypatch.setattr(recent_runs, "KEPT_S", 0.0)
        await node.run()
        assert (await node.ask("GET", path)).status == 410


async def test_a_client_that_goes_away_cancels_its_run(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node({**provider(stub.endpoint, models=["hangs"]), **agent("desk", model="hangs")}) as node:
        asking = asyncio.create_task(node.run())

        async def asked() -> bool:
            return stub.active == 1

        async def given_up() -> bool:
            return stub.cancelled == 1

        await eventually(asked, LEAVING_GOAL_S)
        asking.cancel()
        await eventually(given_up, LEAVING_GOAL_S)


async def test_personal_data_is_redacted_on_its_way_in_and_out(witness: Witness, stub: StubOpenAI) -> None:
    rule = [{"type": "pii_detection", "action": "redact"}]
    async with witness.node({**provider(stub.endpoint), **agent("desk", guardrails={"input": rule, "output": rule})}) as node:
        private = "ada@example.org, 555-867-5309, 078-05-1120, 4111 1111 1111 1111"
        hidden = "[REDACTED_EMAIL], [REDACTED_PHONE], [REDACTED_SSN], [REDACTED_CC]"
        done = await node.answer(query=f"I am {private}")
        assert stub.requests[-1].body["messages"][-1]["content"] == f"I am {hidden}"
        stub.say("stub", f"Write to {private}")
        done = await node.answer()
        assert done["answer"] == f"Write to {hidden}"


async def test_a_guardrail_that_blocks_is_an_outcome(witness: Witness, stub: StubOpenAI) -> None:
    rule = {"type": "content_filter", "forbidden_keywords": ["secret"], "message": "Not that."}
    async with witness.node({**provider(stub.endpoint), **agent("desk", guardrails={"input": [rule]})}) as node:
        ran = await node.run(query="Tell me the secret")
        assert (ran.status, ran.body["blocked"], ran.body["answer"]) == (200, True, "Not that.")
        assert (ran.body["guardrail"]["direction"], ran.body["guardrail"]["rule"]) == ("input", "content_filter")
        assert ran.body["guardrail"]["reason"]
        assert stub.asked("stub") == []


async def test_a_run_that_cannot_be_meant_is_422(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node({**provider(stub.endpoint), **agent("desk")}) as node:
        for body in ({}, {"query": ""}, {"query": 1}, {"query": "a", "context": []}, {"query": "a", "session_id": ""}):
            refused = await node.ask("POST", "/v1/agents/desk/run", body)
            assert (refused.status, refused.body["code"]) == (422, "invalid_request")
            assert refused.body["hint"]


async def test_a_run_that_takes_too_long_is_504_with_what_was_done(witness: Witness) -> None:
    limited = {"pattern": "react", "timeout_seconds": 0.5}

    async def calls_and_hangs(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["messages"][-1]["role"] == "tool":
            await asyncio.Event().wait()
        return web.json_response(whole_answer(spoken(CALLS, body), "stub", "c-1"))

    async with (
        a_server_that(calls_and_hangs) as endpoint,
        witness.node({**provider(endpoint, share="none"), **agent("desk", tools=CLOCK, orchestration=limited)}) as node,
    ):
        late = await node.run()
        assert (late.status, late.body["code"]) == (504, "timeout")
        detail = late.body["detail"]
        assert (detail["error"], detail["agent"], detail["timeout_seconds"]) == ("timeout", "desk", 0.5)
        assert [step["action"] for step in detail["steps"]] == ["datetime_now"]


async def test_too_many_runs_are_429(witness: Witness, stub: StubOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    async with witness.node({**provider(stub.endpoint), **agent("desk")}) as node:
        monkeypatch.setattr(engine, "RUNS_MAX", 0)
        refused = await node.run()
        assert (refused.status, refused.body["code"]) == (429, "overloaded")


async def test_a_session_whose_home_is_gone_is_503(witness: Witness, stub: StubOpenAI) -> None:
    remembers = {"conversational": {"backend": "in_memory"}}
    async with witness.node({**provider(stub.endpoint), **agent("desk", memory=remembers)}) as node:
        session = (await node.answer())["session_id"]
        away = session.replace("-solo-", "-gone-")
        assert away != session
        refused = await node.run(session_id=away)
        assert (refused.status, refused.body["code"]) == (503, "session_home_unreachable")
        assert refused.headers["Retry-After"]


def at(server: str, model: str = "stub", **more: Any) -> dict[str, Any]:
    return {"primary": {"provider": server, "model": model, **more}}


MODEL_FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "model_connection_refused": (at("absent"), "endpoint"),
    "model_dns_resolution_failed": (at("nowhere"), "endpoint"),
    "model_missing_api_key": (at("keyed"), "A_KEY_THAT_NOBODY_HAS"),
    "model_provider_unavailable": (at("well", "fails-500"), "server"),
    "model_timeout": (at("well", "hangs", timeout=0.2), "timeout"),
    "model_no_eligible_provider": (at("well", context_window=3), "spec.model.primary.context_window"),
    "model_no_providers": (at("local", "unheard-of"), "models list"),
    "model_all_providers_failed": ({**at("absent"), "fallback": [{"provider": "well", "model": "fails-500"}]}, "endpoint"),
}


async def test_every_way_in_which_no_model_answers_has_its_code_and_a_hint_that_names_the_knob(witness: Witness, stub: StubOpenAI) -> None:
    servers = {
        **provider(stub.endpoint, name="well"),
        **provider("http://127.0.0.1:9", name="absent"),
        **provider("http://nobody.invalid:9", name="nowhere"),
        **provider(stub.endpoint, name="keyed", api_key_env="A_KEY_THAT_NOBODY_HAS"),
    }
    agents = {
        path: document
        for code, (model, _) in MODEL_FAILURES.items()
        for path, document in agent(code.replace("_", "-"), model="stub").items()
    }
    for code, (model, _) in MODEL_FAILURES.items():
        agents[f"agents/{code.replace('_', '-')}.agent.yaml"]["spec"]["model"] = model  # type: ignore[index]
    async with witness.node({**servers, **agents}) as node:
        for code, (_, knob) in MODEL_FAILURES.items():
            refused = await node.run(code.replace("_", "-"), "one two three")
            detail = refused.body["detail"]
            assert (refused.status, refused.body["code"], detail["error"]) == (502, code, code)
            assert detail["message"]
            assert knob in detail["hint"], (code, detail["hint"])


async def test_a_breaker_opens_after_three_failures_of_an_endpoint_and_not_for_the_callers_mistakes(
    witness: Witness, stub: StubOpenAI
) -> None:
    async with witness.node(
        {
            **provider(stub.endpoint, models=["fails-500", "refuses-400"]),
            **agent("ill", model="fails-500"),
            **agent("mistaken", model="refuses-400"),
        }
    ) as node:

        async def breaker() -> str:
            [row] = (await node.get("/v1/providers"))["providers"]
            return str(row["breaker"])

        for _ in range(4):
            assert (await node.run("mistaken")).status == 400
        assert await breaker() == "closed"
        while await breaker() == "closed":
            assert len(stub.asked("fails-500")) < 3
            assert (await node.run("ill")).status == 502
        assert len(stub.asked("fails-500")) == 3
        refused = await node.run("mistaken")
        assert refused.status == 502, "the breaker is of the endpoint, whichever agent asks"

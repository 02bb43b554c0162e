"""The routes that tell of a node: whether it lives, what it has, what it did."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.contracts.witness import Witness
from tests.rig.documents import agent, provider, runtime
from tests.rig.eventually import eventually
from tests.rig.stub_openai import StubOpenAI

from astromesh.api.app import ROUTES
from astromesh.api.bodies import BODY_BYTES_MAX

MEETING_GOAL_S = 3.0
JSON = {"Content-Type": "application/json"}


async def test_a_node_is_alive_and_ready_and_says_for_whom(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node({**provider(stub.endpoint), **agent("desk")}) as node:
        health = await node.get("/v1/health")
        assert health["status"] == "ok"
        assert health["version"]
        assert await node.get("/v1/ready") == {"ready": True, "reasons": []}
        for asked in ("agent=desk", "model=stub"):
            assert (await node.get(f"/v1/ready?{asked}"))["ready"]
        for asked in ("agent=nobody", "model=nobody"):
            answer = await node.ask("GET", f"/v1/ready?{asked}")
            assert (answer.status, answer.body["ready"]) == (503, False)
            assert "nobody" in answer.body["reasons"][0]


async def test_two_nodes_tell_of_each_other(witness: Witness, stub: StubOpenAI) -> None:
    shared = agent("desk", model="stub", provider_name=None)
    async with (
        witness.node({**shared, **provider(stub.endpoint)}, name="kitchen") as kitchen,
        witness.node(agent("till", provider_name=None), name="attic") as attic,
    ):
        assert (await attic.ask("POST", "/v1/mesh/join", {"address": kitchen.gossip})).status == 200

        async def both_know() -> bool:
            ready = await attic.ask("GET", "/v1/ready?model=stub")
            listed = [len((await node.get("/v1/nodes"))["nodes"]) for node in (kitchen, attic)]
            return ready.status == 200 and listed == [2, 2]

        await eventually(both_know, MEETING_GOAL_S)
        status = await attic.get("/v1/system/status")
        assert (status["mode"], status["agents_loaded"]) == ("dev", 1)
        assert [peer["name"] for peer in status["peers"]] == ["kitchen"]
        assert status["peers"][0]["url"] == kitchen.url
        assert (status["mesh"]["enabled"], status["mesh"]["node_name"], status["mesh"]["cluster_size"]) == (True, "attic", 2)
        assert status["mesh"]["status"] == "alive"

        state = await attic.get("/v1/mesh/state")
        assert {row["name"]: row["status"] for row in state["nodes"]} == {"kitchen": "alive", "attic": "alive"}
        assert state["leader_id"] == status["mesh"]["leader"] == min(row["node_id"] for row in state["nodes"])
        assert [row["leader"] for row in state["nodes"]].count(True) == 1
        assert {row["name"]: row["agents"] for row in state["nodes"]} == {"kitchen": ["desk"], "attic": ["till"]}

        nodes = {row["name"]: row for row in (await attic.get("/v1/nodes"))["nodes"]}
        assert nodes["kitchen"]["models"] == [{"name": "stub", "state": "remote"}]
        assert (nodes["attic"]["link"]["state"], nodes["kitchen"]["role"]) == ("self", "full")

        agents = {row["name"]: row for row in (await attic.get("/v1/agents"))["agents"]}
        assert {name: row["nodes"] for name, row in agents.items()} == {"desk": ["kitchen"], "till": ["attic"]}
        assert [row["name"] for row in (await attic.get("/v1/agents?scope=local"))["agents"]] == ["till"]
        assert (await attic.get("/v1/agents?namespace=elsewhere"))["agents"] == []

        models = await attic.get("/v1/models")
        row = next(row for row in models["data"] if row["id"] == "stub")
        assert (models["object"], row["object"], row["nodes"]) == ("list", "model", [{"name": "kitchen", "state": "remote"}])
        assert {"agent:desk", "agent:till"} <= {row["id"] for row in models["data"]}

        ran = await attic.run("till")
        assert (ran.headers["X-Astromesh-Node"], ran.headers["X-Astromesh-Home"]) == ("kitchen", "attic")
        assert (ran.headers["X-Astromesh-Route"], ran.headers["X-Astromesh-Attempts"]) == ("peer", "1")
        ran = await attic.run("desk")
        assert (ran.status, ran.headers["X-Astromesh-Home"]) == (200, "kitchen")

        assert (await attic.ask("POST", "/v1/mesh/leave")).status == 200
        assert [row["name"] for row in (await attic.get("/v1/mesh/state"))["nodes"] if row["status"] == "alive"] == ["attic"]


async def test_a_node_whose_mesh_is_off_says_so(witness: Witness) -> None:
    async with witness.node(runtime(mesh={"enabled": False}), said_by_files=["mesh"]) as node:
        for method, path, body in (
            ("GET", "/v1/mesh/state", None),
            ("POST", "/v1/mesh/join", {"address": "h"}),
            ("POST", "/v1/mesh/leave", None),
        ):
            answer = await node.ask(method, path, body)
            assert (answer.status, answer.body["code"]) == (503, "mesh_off")
            assert "spec.mesh.enabled" in answer.body["hint"]
        assert (await node.get("/v1/system/status"))["mesh"] == {
            "enabled": False, "node_id": None, "node_name": "solo", "leader": None, "cluster_size": 1, "status": "off",
        }  # fmt: skip


async def test_servers_are_listed_with_their_health(witness: Witness, stub: StubOpenAI) -> None:
    priced = provider(stub.endpoint, models=[{"name": "stub", "cost_per_1k_tokens": 0.5}], share="mesh")  # type: ignore[list-item]
    async with witness.node({**priced, **agent("desk")}) as node:

        async def healthy() -> bool:
            [row] = (await node.get("/v1/providers"))["providers"]
            return bool(row["health"] == "healthy")

        await eventually(healthy, MEETING_GOAL_S)
        [row] = (await node.get("/v1/providers"))["providers"]
        assert (row["name"], row["breaker"], row["shared"]) == ("stub", "closed", True)
        assert row["cost_per_1k_tokens"] == {"stub": 0.5}


async def test_runs_are_found_again_as_traces(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node({**provider(stub.endpoint), **agent("desk"), **agent("till")}) as node:
        ran = await node.ask("POST", "/v1/agents/desk/run", {"query": "Hello"}, headers={"X-Request-Id": "mine-1"})
        assert ran.headers["X-Request-Id"] == "mine-1"
        await node.run("till")
        found = await node.get("/v1/traces/mine-1")
        assert found["trace_id"] == "mine-1"
        assert {"agent.run", "llm.complete"} <= {span["name"] for span in found["spans"]}
        assert [trace["trace_id"] for trace in (await node.get("/v1/traces?agent=desk&limit=5"))["traces"]] == ["mine-1"]
        assert len((await node.get("/v1/traces?limit=1"))["traces"]) == 1
        assert (await node.ask("GET", "/v1/traces/nothing")).status == 404
        assert (await node.ask("GET", "/v1/traces?limit=many")).status == 422
        figures = await node.ask("GET", "/metrics")
        samples = [sample for family in text_string_to_metric_families(figures.body) for sample in family.samples]
        assert [sample.value for sample in samples if sample.name == "astromesh_runs_total"] == [1.0, 1.0]
        counters = (await node.get("/v1/metrics"))["counters"]
        assert [(row["labels"]["agent"], row["value"]) for row in counters["astromesh_runs"]] == [("desk", 1.0), ("till", 1.0)]


async def test_builtin_tools_and_those_of_agents_are_listed_and_called(witness: Witness, stub: StubOpenAI) -> None:
    tools = [{"type": "agent", "agent": "till", "name": "ask_till", "description": "Counts."}]
    async with witness.node({**provider(stub.endpoint), **agent("desk", tools=tools), **agent("till")}) as node:
        listed = await node.get("/v1/tools")
        assert {row["name"]: row["type"] for row in listed["tools"]} == {
            "ask_till": "agent", "datetime_now": "builtin", "http_request": "builtin", "json_transform": "builtin",
        }  # fmt: skip
        assert listed["count"] == 4
        assert (await node.get("/v1/tools/builtin"))["count"] == 3
        given = {"tool_name": "json_transform", "arguments": {"data": {"a": 1}, "expression": "a"}}
        done = await node.ask("POST", "/v1/tools/execute", given)
        assert (done.status, done.body) == (200, {"tool": "json_transform", "result": "1", "status": "ok"})
        assert (await node.ask("POST", "/v1/tools/execute", {"tool_name": "nothing"})).status == 404
        unfit = await node.ask("POST", "/v1/tools/execute", {"tool_name": "json_transform", "arguments": {"expression": 1}})
        assert (unfit.status, unfit.body["param"]) == (422, "arguments")


async def test_a_history_is_shown_and_deleted(witness: Witness, stub: StubOpenAI) -> None:
    remembers = {"conversational": {"backend": "in_memory"}}
    async with witness.node({**provider(stub.endpoint), **agent("desk", memory=remembers), **agent("till")}) as node:
        session = (await node.answer(query="I am Ada."))["session_id"]
        kept = await node.get(f"/v1/memory/desk/history/{session}?namespace=default")
        assert (kept["agent"], kept["session_id"]) == ("desk", session)
        assert [(said["role"], said["content"]) for said in kept["history"]] == [
            ("user", "I am Ada."),
            ("assistant", "You said: I am Ada."),
        ]
        cleared = await node.ask("DELETE", f"/v1/memory/desk/history/{session}?namespace=default")
        assert (cleared.status, cleared.body["status"]) == (200, "cleared")
        assert (await node.get(f"/v1/memory/desk/history/{session}"))["history"] == []
        for agent_name in ("till", "nobody"):
            for method in ("GET", "DELETE"):
                assert (await node.ask(method, f"/v1/memory/{agent_name}/history/{session}")).status == 404


async def test_the_description_names_every_route_that_answers(witness: Witness) -> None:
    async with witness.node({}) as node:
        document = await node.get("/openapi.json")
        assert document["openapi"].startswith("3.1")
        assert {(method.upper(), path) for path, methods in document["paths"].items() for method in methods} >= {
            (route.method, route.path) for route in ROUTES
        }
        page = await node.ask("GET", "/docs")
        assert "/v1/agents/{name}/run" in page.body
        assert (await node.ask("GET", "/")).headers["Location"] == "/docs"


async def test_every_route_answers_with_and_without_a_trailing_slash(witness: Witness) -> None:
    async with witness.node({}) as node:
        for route in ROUTES:
            if route.method == "GET" and "{" not in route.path and "/events" not in route.path:
                plain, slashed = [await node.ask("GET", path) for path in (route.path, f"{route.path}/")]
                assert plain.status == slashed.status == 200, route.path
                assert plain.headers["X-Request-Id"] != slashed.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ({"headers": {"Host": "evil.example"}}, 403, "foreign_origin"),
        ({"headers": {"Origin": "http://evil.example"}}, 403, "foreign_origin"),
        ({"headers": {"Content-Type": "text/plain"}, "raw": b"{}"}, 415, "unsupported_media_type"),
        ({"headers": JSON, "raw": b"{"}, 400, "malformed_body"),
        ({"headers": JSON, "raw": b'"' + b"x" * BODY_BYTES_MAX + b'"'}, 413, "body_too_large"),
        ({"headers": JSON, "raw": b'{"context": {"a": [' + b"1," * 20_000 + b"1]}}"}, 413, "too_many_values"),
        ({"body": {"query": "Hello", "quary": "Hello"}}, 422, "invalid_request"),
    ],
    ids=["host", "origin", "type", "syntax", "bytes", "values", "key"],
)  # fmt: skip
async def test_a_refused_request_is_a_problem(witness: Witness, how: dict[str, object], status: int, code: str) -> None:
    async with witness.node({}) as node:
        answer = await node.ask("POST", "/v1/agents/desk/run", **how)  # type: ignore[arg-type]
        assert (answer.status, answer.body["status"], answer.body["code"]) == (status, status, code)
        assert answer.body["detail"]
        assert answer.body["hint"]
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_an_unknown_key_is_answered_with_those_that_there_are(witness: Witness) -> None:
    async with witness.node({}) as node:
        for method, path, body in (
            ("POST", "/v1/agents/desk/run", {"query": "Hello", "sesion_id": "1"}),
            ("POST", "/v1/tools/execute", {"tool_name": "datetime_now", "args": {}}),
            ("POST", "/v1/mesh/join", {"address": "h", "port": 1}),
        ):
            answer = await node.ask(method, path, body)
            assert answer.status == 422
            assert f"it takes: {next(iter(body))}" in answer.body["hint"]


async def test_files_are_read_again_all_of_them_or_none(witness: Witness, stub: StubOpenAI, tmp_path: Path) -> None:
    async with witness.node({**provider(stub.endpoint), **agent("desk")}) as node:
        file = node.config / "agents/desk.agent.yaml"
        file.write_text(file.read_text().replace("You are a test.", "You are another."))
        again = await node.ask("POST", "/v1/system/reload")
        assert (again.status, again.body["status"], again.body["agents"]["changed"]) == (200, "reloaded", ["desk"])
        await node.run()
        assert stub.requests[-1].body["messages"][0]["content"] == "You are another."
        file.write_text(file.read_text().replace("prompts:", "promts:"))
        refused = await node.ask("POST", "/v1/system/reload")
        assert refused.status == 422
        assert "Did you mean 'prompts'?" in refused.body["detail"]["message"]
        assert (await node.run()).status == 200


async def test_a_bad_file_is_named_with_its_line_and_the_others_run(witness: Witness, stub: StubOpenAI) -> None:
    bad = "apiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: bad}\nspec:\n  modl: {}\n"
    async with witness.node({**provider(stub.endpoint), **agent("desk"), "agents/bad.agent.yaml": bad}) as node:
        assert (await node.run("desk")).status == 200
        row = next(row for row in (await node.get("/v1/agents"))["agents"] if row["name"] == "bad")
        assert "bad.agent.yaml:4" in row["error"]
        assert (await node.run("bad")).status == 404

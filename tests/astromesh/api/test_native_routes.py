"""The native routes: the node, its agents, its mesh, its traces and figures, and what every answer has."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families
from tests.rig.doors import Doors, Membership, open_doors
from tests.rig.mesh_view import HERE, member, mesh_view
from tests.rig.rooms import MODEL, Rooms, an_agent

from astromesh.api.app import ROUTES
from astromesh.api.route import Route
from astromesh.errors import JoinRefused
from astromesh.fleet import loads
from astromesh.fleet.devices import Cpu, Devices, Gpu, Memory
from astromesh.fleet.loads import Load
from astromesh.fleet.offers import OfferedProvider
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime.health import ProviderHealth
from astromesh.specs.provider import Provider, ProviderSpec
from maia.view import LoadSeen

PROBLEM_KEYS = {"type", "title", "status", "detail", "code", "hint"}


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
async def doors(rooms: Rooms) -> AsyncIterator[Doors]:
    async with open_doors(rooms) as opened:
        yield opened


@pytest.fixture
def membership() -> Membership:
    return Membership()


@pytest.fixture
async def meshed(rooms: Rooms, membership: Membership) -> AsyncIterator[Doors]:
    """With a neighbour `b` that lives, and `c` that died."""
    me = member(HERE, models=[MODEL], agents=["desk"], api="127.0.0.1:8000")
    rooms.view = mesh_view(
        member("b-000001", models=[MODEL, ("big", "loading")], agents=["billing"], api="127.0.0.1:8001"),
        member("c-000003", models=["old"], agents=["gone"], status="dead"),
        me=me,
        version=7,
    )
    async with open_doors(rooms, mesh=membership) as opened:
        yield opened


def values(route: Route) -> str:
    """A path that can be asked for: every variable is the name of something that is not there."""
    return re.sub(r"\{\w+\}", "nothing", route.path)


# What every route has in common.


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_every_route_answers_with_and_without_a_slash_and_names_the_request(doors: Doors, route: Route) -> None:
    answers = []
    for path in (values(route), values(route) + "/"):
        async with doors.http.request(route.method, path, json={} if route.body else None) as response:
            answers.append((response.status, response.headers["Content-Type"]))
            assert response.status in (*route.codes, 404), f"{response.status} is not among the codes that are documented"
            assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-Id"])
    assert answers[0] == answers[1]


async def test_a_request_id_of_the_callers_own_is_kept(doors: Doors) -> None:
    async with doors.http.get("/v1/health", headers={"X-Request-Id": "My-Request_7.1"}) as response:
        assert response.headers["X-Request-Id"] == "My-Request_7.1"


@pytest.mark.parametrize("unsafe", ["", "a b", "x" * 129, "ü", "<script>"])
async def test_a_request_id_that_is_unsafe_to_repeat_is_replaced(doors: Doors, unsafe: str) -> None:
    async with doors.http.get("/v1/health", headers={"X-Request-Id": unsafe}) as response:
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-Id"])


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("DELETE", "/v1/health", 405, "method_not_allowed"),
        ("GET", "/v1/agents/nobody", 404, "agent_not_found"),
        ("GET", "/v1/agents?scope=galaxy", 422, "invalid_request"),
        ("GET", "/v1/traces?limit=many", 422, "invalid_request"),
        ("GET", "/v1/traces/nothing", 404, "trace_not_found"),
        ("GET", "/v1/nodes", 503, "mesh_off"),
        ("GET", "/v1/mesh/state", 503, "mesh_off"),
        ("POST", "/v1/mesh/leave", 503, "mesh_off"),
    ],
)
async def test_every_refusal_is_a_problem_with_a_code_and_a_hint(doors: Doors, method: str, path: str, status: int, code: str) -> None:
    async with doors.http.request(method, path) as response:
        assert response.status == status
        assert response.headers["Content-Type"] == "application/problem+json"
        body = orjson.loads(await response.read())
    assert body.keys() >= PROBLEM_KEYS
    assert (body["status"], body["code"]) == (status, code)
    assert body["hint"]
    assert body["title"]


async def test_a_wrong_method_names_the_right_ones(doors: Doors) -> None:
    async with doors.http.delete("/v1/health") as response:
        assert response.headers["Allow"] == "GET"


async def test_a_mistake_of_ours_is_500_and_tells_only_where_to_look(
    rooms: Rooms, doors: Doors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(doors.house, "model_rows", lambda: 1 / 0)
    status, body = await doors.get("/v1/models", headers={"X-Request-Id": "r42"})
    assert status == 500
    assert "r42" in str(body)
    assert "ZeroDivisionError" not in str(body)
    assert "ZeroDivisionError" in caplog.text


# The node.


async def test_a_node_that_lives_says_so_whatever_the_mesh_does(doors: Doors) -> None:
    assert await doors.get("/v1/health") == (200, {"status": "ok", "version": "1.2.3"})


async def test_a_node_is_ready_when_nothing_is_missing(rooms: Rooms, doors: Doors) -> None:
    assert await doors.get("/v1/ready") == (200, {"ready": True, "reasons": []})
    doors.house.not_ready.append("the node is starting")
    assert await doors.get("/v1/ready") == (503, {"ready": False, "reasons": ["the node is starting"]})


@pytest.mark.parametrize(("query", "said"), [("agent=desk", "agent desk could not be served"), ("model=m", "model m could not be served")])
async def test_ready_can_be_asked_for_one_agent_or_model(rooms: Rooms, doors: Doors, query: str, said: str) -> None:
    status, body = await doors.get(f"/v1/ready?{query}")
    assert (status, body["ready"]) == (503, False)
    assert body["reasons"][0].startswith(said)
    rooms.has(Scripted([]))
    rooms.hosts(an_agent())
    assert (await doors.get(f"/v1/ready?{query}"))[0] == 200


async def test_the_status_has_the_keys_of_the_contract(rooms: Rooms, doors: Doors, meshed: Doors) -> None:
    _, alone = await Doors(doors.house, doors.url, doors.http).get("/v1/system/status")
    _, among_others = await meshed.get("/v1/system/status")
    for body in (alone, among_others):
        assert body.keys() >= {"version", "uptime_seconds", "mode", "agents_loaded", "pid", "services", "peers", "mesh"}
        assert body["mesh"].keys() >= {"enabled", "node_id", "node_name", "leader", "cluster_size", "status"}
    assert among_others["peers"] == [{"name": "b", "url": "http://127.0.0.1:8001", "services": {}}]
    assert among_others["mesh"] == {
        "enabled": True,
        "node_id": "000000",
        "node_name": "here",
        "leader": "000000",
        "cluster_size": 2,
        "status": "alive",
    }


async def test_without_a_mesh_the_status_is_that_of_one_node(doors: Doors) -> None:
    _, body = await doors.get("/v1/system/status")
    assert body["mesh"] == {"enabled": False, "node_id": None, "node_name": "here", "leader": None, "cluster_size": 1, "status": "off"}
    assert body["peers"] == []


# Agents.


async def test_agents_of_the_whole_mesh_are_listed_and_those_that_cannot_run_with_their_mistake(rooms: Rooms, meshed: Doors) -> None:
    rooms.hosts(an_agent("desk", warnings=("agents/desk.agent.yaml:9: spec.judge is not honoured",)))
    rooms.runtime.broken["bad"] = "agents/bad.agent.yaml:7: no model is named"
    _, body = await meshed.get("/v1/agents")
    rows = {row["name"]: row for row in body["agents"]}
    assert list(rows) == ["bad", "billing", "desk"]
    assert {name: (row["status"], row["nodes"]) for name, row in rows.items()} == {
        "bad": ("draft", ["here"]),
        "billing": ("deployed", ["b"]),
        "desk": ("deployed", ["here"]),
    }
    assert rows["desk"]["warnings"] == ["agents/desk.agent.yaml:9: spec.judge is not honoured"]
    assert rows["bad"]["error"] == "agents/bad.agent.yaml:7: no model is named"
    _, local = await meshed.get("/v1/agents?scope=local")
    assert [row["name"] for row in local["agents"]] == ["bad", "desk"]


async def test_what_an_agent_names_and_nobody_has_is_a_warning_of_it(rooms: Rooms, meshed: Doors) -> None:
    rooms.hosts(an_agent("desk", model="nowhere"))
    _, body = await meshed.get("/v1/agents?scope=local")
    assert body["agents"][0]["warnings"] == ["model nowhere: nobody in the mesh has it at the moment"]


async def test_an_agents_document_is_shown(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent("desk"))
    assert await doors.get("/v1/agents/desk") == (200, {"kind": "Agent", "metadata": {"name": "desk"}})


# The mesh.


async def test_nodes_are_listed_with_what_each_offers(meshed: Doors) -> None:
    _, body = await meshed.get("/v1/nodes")
    nodes = {node["name"]: node for node in body["nodes"]}
    assert list(nodes) == ["b", "c", "here"]
    for node in nodes.values():
        assert node.keys() >= {"node_id", "name", "status", "role", "devices", "models", "agents", "load", "link"}
    assert nodes["b"]["models"] == [{"name": "m", "state": "loaded"}, {"name": "big", "state": "loading"}]
    assert (nodes["b"]["agents"], nodes["b"]["link"]) == (["billing"], {"state": "open", "rtt_ms": 0.5})
    assert (nodes["c"]["status"], nodes["here"]["link"]) == ("dead", {"state": "self", "rtt_ms": None})


async def test_the_state_of_the_mesh_has_the_keys_of_the_contract_and_the_lowest_living_id_leads(meshed: Doors) -> None:
    _, body = await meshed.get("/v1/mesh/state")
    assert body.keys() == {"nodes", "leader_id", "version"}
    keys = {"node_id", "name", "url", "services", "agents", "models", "load", "leader", "joined_at", "last_heartbeat", "status"}
    for node in body["nodes"]:
        assert node.keys() >= keys
    assert (body["version"], body["leader_id"]) == (7, "000000")
    assert [node["name"] for node in body["nodes"] if node["leader"]] == ["here"]
    mine = next(node for node in body["nodes"] if node["name"] == "here")
    assert mine["load"].keys() == {"cpu_percent", "memory_percent", "active_requests"}


async def test_a_stock_agent_is_listed_and_leads_nobody(rooms: Rooms, membership: Membership) -> None:
    rooms.view = mesh_view(replace(member("stock"), node_id="", role=""), me=member(HERE))
    async with open_doors(rooms, mesh=membership) as doors:
        _, body = await doors.get("/v1/mesh/state")
        assert {node["name"]: node["leader"] for node in body["nodes"]} == {"here": True, "stock": False}
        assert body["leader_id"] == "000000"


async def test_how_busy_others_are_is_shown_as_they_said_it_and_unknown_is_absent(rooms: Rooms, meshed: Doors) -> None:
    told = LoadSeen(loads.write(Load(20.0, 40.0, 6, 1)), 5.0)
    devices = Devices(Cpu("A processor", 4, 8, "abc"), Memory(16, 8))
    rooms.sees(member("b-000002", load=told, devices=devices), member("c-000003"))
    for path in ("/v1/nodes", "/v1/mesh/state"):
        _, body = await meshed.get(path)
        shown = {node["name"]: node["load"] for node in body["nodes"]}
        assert shown["b"] == {"cpu_percent": 20.0, "memory_percent": 40.0, "active_requests": 6}
        assert shown["c"] == {}
        assert shown["here"] == {"cpu_percent": 12.5, "memory_percent": 50.0, "active_requests": 3}
    _, body = await meshed.get("/v1/nodes")
    rows = {node["name"]: node for node in body["nodes"]}
    assert rows["b"]["devices"] == devices.as_json()
    assert (rows["c"]["devices"], rows["b"]["gpus_known"]) == ([], False)


async def test_the_cards_of_all_nodes_are_listed_and_not_known_is_not_none(rooms: Rooms, meshed: Doors) -> None:
    rooms.devices = Devices(gpus=(Gpu("A card", "GPU-1", 24 * 2**30, None, 37, usable=True),))
    rooms.sees(
        member("b-000002", devices=Devices(gpus=())),
        member("c-000003", devices=Devices(troubles=("nvidia: it hangs",))),
        member("d-000004", devices=Devices(gpus=(Gpu("Gone", "GPU-2"),)), status="dead"),
    )
    _, body = await meshed.get("/v1/gpus")
    here, b, c = sorted(body["nodes"], key=lambda row: row["node"] != "here")
    card = {"id": "GPU-1", "name": "A card", "total_bytes": 24 * 2**30, "free_bytes": None, "utilisation_percent": 37, "usable": True}
    assert here == {"node": "here", "known": True, "gpus": [{**card, "note": None}], "troubles": []}
    assert b == {"node": "b", "known": True, "gpus": [], "troubles": []}
    assert c == {"node": "c", "known": False, "gpus": [], "troubles": ["nvidia: it hangs"]}


async def test_the_servers_of_all_nodes_are_listed_with_their_health(rooms: Rooms, meshed: Doors) -> None:
    spec = {"type": "vllm", "models": ["m", {"name": "paid", "cost_per_1k_tokens": 0.5}]}
    rooms.health = meshed.house.health = ProviderHealth(
        [Provider("ours", ProviderSpec.model_validate(spec), "providers.yaml", 1)], changed=lambda: None
    )
    rooms.sees(
        member("b-000002", providers=[OfferedProvider("theirs", "ollama", ("q",), "down", True, "open")]),
        member("d-000004", status="dead", providers=[OfferedProvider("gone", "ollama", (), "healthy", True)]),
    )
    _, body = await meshed.get("/v1/providers")
    shared = {"latency_ms": None, "first_token_ms": {}, "total_ms": {}}
    assert body == {
        "providers": [
            {"name": "ours", "node": "here", "type": "vllm", "models": ["m", "paid"], "health": "unknown", "breaker": None, "shared": False}
            | {"cost_per_1k_tokens": {"paid": 0.5}, **shared},
            {"name": "theirs", "node": "b", "type": "ollama", "models": ["q"], "health": "down", "breaker": "open", "shared": True}
            | {"cost_per_1k_tokens": {}, **shared},
        ]
    }


async def test_joining_and_leaving_reach_the_mesh(meshed: Doors, membership: Membership) -> None:
    async with meshed.http.post("/v1/mesh/join", json={"address": "10.0.0.7"}) as response:
        assert (response.status, await response.json()) == (200, {"status": "joined", "address": "10.0.0.7", "members": 2})
    async with meshed.http.post("/v1/mesh/leave") as response:
        assert (response.status, await response.json()) == (200, {"status": "left"})
    assert (membership.joined, membership.left) == (["10.0.0.7"], 1)


async def test_a_join_that_finds_nobody_is_502(rooms: Rooms) -> None:
    mesh = Membership(refuses=JoinRefused("nobody answers at 10.0.0.7", hint="is it up?"))
    async with open_doors(rooms, mesh=mesh) as doors, doors.http.post("/v1/mesh/join", json={"address": "10.0.0.7"}) as response:
        assert response.status == 502
        body = orjson.loads(await response.read())
    assert body["detail"] == {"error": "join_failed", "message": "nobody answers at 10.0.0.7", "hint": "is it up?"}


@pytest.mark.parametrize("body", [{}, {"address": ""}, {"address": "a", "token": "b"}])
async def test_a_join_that_cannot_be_meant_is_422(meshed: Doors, membership: Membership, body: dict[str, str]) -> None:
    async with meshed.http.post("/v1/mesh/join", json=body) as response:
        assert response.status == 422
    assert membership.joined == []


# Traces and figures.


async def test_a_run_can_be_looked_up_by_its_request_id(rooms: Rooms, doors: Doors) -> None:
    rooms.hosts(an_agent(provider=Scripted(["Yes.", "No."])), an_agent("billing", provider=Scripted(["Yes."])))
    await doors.run({"query": "A secret question"}, headers={"X-Request-Id": "r1"})
    await doors.run({"query": "Hello"}, agent="billing", headers={"X-Request-Id": "r2"})
    status, body = await doors.get("/v1/traces/r1")
    assert (status, body["trace_id"], body["agent"], body["status"]) == (200, "r1", "desk", "ok")
    assert [span["name"] for span in body["spans"]] == ["agent.run", "llm.complete"]
    assert "secret" not in str(body)
    _, recent = await doors.get("/v1/traces")
    assert [trace["trace_id"] for trace in recent["traces"]] == ["r2", "r1"]
    _, one = await doors.get("/v1/traces?limit=1&agent=desk")
    assert [trace["trace_id"] for trace in one["traces"]] == ["r1"]


@pytest.mark.parametrize(
    ("method", "path", "name", "hint"),
    [
        ("GET", "/v1/agents?scpe=local", "scpe", "did you mean scope?"),
        ("GET", "/v1/agents/?scope=local&x=1", "x", "there are: scope, namespace"),
        ("GET", "/v1/ready?agnet=desk", "agnet", "did you mean agent?"),
        ("POST", "/v1/agents/desk/run?session=1", "session", "there are: namespace"),
        ("DELETE", "/v1/memory/desk/history/s?limit=1", "limit", "there are: namespace"),
    ],
)
async def test_a_parameter_that_a_route_does_not_have_is_422_by_its_name(
    doors: Doors, method: str, path: str, name: str, hint: str
) -> None:
    body = {"json": {"query": "Hello"}} if method == "POST" else {}
    async with doors.http.request(method, path, **body) as response:
        said = await response.json(content_type=None)
    assert (response.status, said["param"], said["hint"]) == (422, name, hint)


async def test_what_asks_a_route_without_parameters_may_add_one(doors: Doors) -> None:
    async with doors.http.get("/v1/health?once=17") as response:
        assert response.status == 200


@pytest.mark.parametrize("limit", ["0", "257", "-1", "\u00b2", "9" * 5000, "", "1.5"])
async def test_a_limit_that_is_none_is_422(doors: Doors, limit: str) -> None:
    status, body = await doors.get("/v1/traces", params={"limit": limit})
    assert (status, body["param"]) == (422, "limit")


async def test_figures_are_prometheus_text_and_move(rooms: Rooms, doors: Doors) -> None:
    async def figures() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        async with doors.http.get("/metrics") as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            families = text_string_to_metric_families(await response.text())
        return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}

    def requests(route: str, status: str) -> tuple[str, tuple[tuple[str, str], ...]]:
        return "astromesh_http_requests_total", (("route", route), ("status", status))

    rooms.hosts(an_agent(provider=Scripted(["Yes."])))
    before = await figures()
    await doors.run({"query": "Hello"})
    await doors.run({}, agent="desk")
    await doors.get("/v1/no/such/route")
    after = await figures()
    assert before.get(requests("/v1/agents/{name}/run", "200")) is None
    assert after[requests("/v1/agents/{name}/run", "200")] == 1
    assert after[requests("/v1/agents/{name}/run", "422")] == 1
    assert after[requests("none", "404")] == 1
    assert after[requests("/metrics", "200")] == 1
    assert after["astromesh_runs_total", (("agent", "desk"), ("outcome", "ok"))] == 1
    assert after["astromesh_model_tokens_total", (("direction", "out"), ("model", "m"))] == 1


# The description.


async def test_the_description_is_valid_and_names_exactly_the_table_of_routes(doors: Doors) -> None:
    status, document = await doors.get("/openapi.json")
    assert status == 200
    OpenAPIV31SpecValidator(document).validate()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    operations = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(operations) == len(set(operations))


async def test_the_description_has_every_code_body_and_parameter_of_its_route(doors: Doors) -> None:
    _, document = await doors.get("/openapi.json")
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        passed_through = {"403"} | ({"400", "413", "415", "422"} if route.body is not None else set())
        assert {str(code) for code in route.codes} <= set(operation["responses"]) <= {str(code) for code in route.codes} | passed_through
        assert ("requestBody" in operation) == (route.body is not None)
        named = {parameter["name"] for parameter in operation.get("parameters", ())}
        assert named == {*re.findall(r"\{(\w+)\}", route.path), *(name for name, _ in (*route.query, *route.headers))}


async def test_the_page_for_people_names_every_route(doors: Doors) -> None:
    async with doors.http.get("/docs") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        page = await response.text()
    for route in ROUTES:
        assert route.path in page

"""Agents from draft to removal over a node's doors: what is stored, what answers, and what is there after the next start."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.rig.documents import agent, provider
from tests.rig.eventually import eventually
from tests.rig.inside import Inside, node_inside
from tests.rig.stub_openai import StubOpenAI

from astromesh.service import lifecycle

AGENTS_GOAL_S = 10.0


@pytest.fixture
async def stub() -> AsyncIterator[StubOpenAI]:
    async with StubOpenAI(models=["stub", "slow"], pause_s=0.05) as server:
        yield server


@pytest.fixture
async def node(stub: StubOpenAI, tmp_path: Path) -> AsyncIterator[Inside]:
    async with node_inside(tmp_path, {**provider(stub.endpoint, models=["stub", "slow"]), **agent("filed")}) as opened:
        yield opened


def document(name: str = "desk", *, version: str = "1.0.0", namespace: str | None = None, **how: Any) -> dict[str, Any]:
    (whole,) = agent(name, **how).values()
    assert not isinstance(whole, str)
    metadata = {"name": name, "version": version, **({} if namespace is None else {"namespace": namespace})}
    return {**whole, "metadata": metadata}


def with_model(name: str, model: dict[str, Any]) -> dict[str, Any]:
    whole = document(name)
    return {**whole, "spec": {**whole["spec"], "model": model}}


async def deployed(node: Inside, name: str = "desk", **how: Any) -> None:
    assert (await node.send("POST", "/v1/agents", document(name, **how)))[0] == 201
    assert (await node.send("POST", f"/v1/agents/{name}/deploy"))[0] == 200


async def test_an_agent_goes_from_draft_to_deployed_to_paused_and_back_and_is_removed(node: Inside) -> None:
    status, made = await node.send("POST", "/v1/agents", document())
    assert (status, made["name"], made["status"]) == (201, "desk", "registered")
    assert (await node.rows())["desk"]["status"] == "draft"
    status, refused = await node.ask("desk")
    assert (status, refused["code"]) == (404, "agent_not_deployed")
    assert "agents deploy desk" in refused["hint"]
    assert (await node.send("GET", "/v1/ready?agent=desk"))[0] == 503

    status, said = await node.send("POST", "/v1/agents/desk/deploy")
    assert (status, said["agent"], said["status"], said["nodes"]) == (200, "desk", "deployed", ["solo"])
    assert (await node.ask("desk"))[0] == 200

    assert (await node.send("POST", "/v1/agents/desk/pause"))[1]["status"] == "paused"
    assert (await node.rows())["desk"]["status"] == "paused"
    status, refused = await node.ask("desk")
    assert (status, refused["code"]) == (503, "agent_paused")
    assert "agents deploy desk" in refused["hint"]
    assert (await node.send("GET", "/v1/ready?agent=desk"))[0] == 503
    assert "agent:desk" not in {row["id"] for row in (await node.get("/v1/models"))["data"]}

    assert (await node.send("POST", "/v1/agents/desk/deploy"))[0] == 200
    assert (await node.ask("desk"))[0] == 200
    status, said = await node.send("DELETE", "/v1/agents/desk")
    assert (status, said["name"], said["status"]) == (200, "desk", "removed")
    assert (await node.ask("desk"))[0] == 404
    assert list(node.kept.iterdir()) == []


async def test_a_draft_beside_a_deployed_agent_changes_nothing_until_it_is_deployed(node: Inside, stub: StubOpenAI) -> None:
    await deployed(node, system="First.")
    status, said = await node.send("PUT", "/v1/agents/desk", document(version="2.0.0", system="Second."))
    assert (status, said["agent"], said["status"]) == (200, "desk", "updated")
    row = (await node.rows())["desk"]
    assert (row["status"], row["version"], row["draft"]) == ("deployed", "1.0.0", "2.0.0")
    await node.ask("desk")
    assert stub.requests[-1].body["messages"][0]["content"] == "First."
    assert (await node.get("/v1/agents/desk"))["metadata"]["version"] == "1.0.0"
    assert (await node.get("/v1/agents/desk?state=draft"))["metadata"]["version"] == "2.0.0"

    await node.send("POST", "/v1/agents/desk/deploy")
    await node.ask("desk")
    assert stub.requests[-1].body["messages"][0]["content"] == "Second."
    row = (await node.rows())["desk"]
    assert (row["version"], "draft" in row) == ("2.0.0", False)


@pytest.mark.parametrize("state", ["draft", "deployed", "paused", "deployed with a draft"])
async def test_every_state_is_there_again_after_the_next_start(stub: StubOpenAI, tmp_path: Path, state: str) -> None:
    files = provider(stub.endpoint)
    async with node_inside(tmp_path, files) as node:
        await node.send("POST", "/v1/agents", document())
        if state != "draft":
            await node.send("POST", "/v1/agents/desk/deploy")
        if state == "paused":
            await node.send("POST", "/v1/agents/desk/pause")
        if state == "deployed with a draft":
            await node.send("PUT", "/v1/agents/desk", document(version="2.0.0"))
        before = await node.rows()
    async with node_inside(tmp_path) as node:
        assert await node.rows() == before
        assert (await node.ask("desk"))[0] == {"draft": 404, "paused": 503}.get(state, 200)


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({**document(), "spec": {**document()["spec"], "tool": []}}, "tools"),
    "no spec": ({key: value for key, value in document().items() if key != "spec"}, "spec"),
    "another kind": ({**document(), "kind": "RAGPipeline"}, "Agent"),
    "no such kind": ({**document(), "kind": "Agnet"}, "Agent"),
    "a template that is none": (document(system="{{ x"), "system"),
    "a program to start": (document(tools=[{"type": "mcp", "name": "t", "command": "rm"}]), "program"),
    "a masked secret": (
        document(tools=[{"type": "webhook", "name": "t", "url": "http://h", "headers": {"Authorization": "***"}}]),
        "secret",
    ),
    "a variable that is not set": (document(system="${NOT_SET_ANYWHERE}"), "NOT_SET_ANYWHERE"),
    "too many values": (
        document(tools=[{"type": "builtin", "name": "datetime_now", "parameters": {str(n): 1 for n in range(6000)}}]),
        "values",
    ),
}


@pytest.mark.parametrize("case", INVALID)
async def test_an_invalid_document_is_refused_with_all_its_mistakes_and_nothing_of_it_is_stored(node: Inside, case: str) -> None:
    wrong, said = INVALID[case]
    before = await node.rows()
    status, refused = await node.send("POST", "/v1/agents", wrong)
    assert (status, refused["code"]) == (422, "invalid_document")
    assert said in json.dumps(refused)
    assert await node.rows() == before
    assert not node.kept.exists() or list(node.kept.iterdir()) == []


async def test_all_mistakes_are_told_at_once(node: Inside) -> None:
    wrong = document()
    wrong["spec"] = {**wrong["spec"], "orchestration": {"patern": "react", "max_iterations": "many"}}
    _, refused = await node.send("POST", "/v1/agents", wrong)
    assert {mistake["path"] for mistake in refused["detail"]["mistakes"]} == {
        "spec.orchestration.patern",
        "spec.orchestration.max_iterations",
    }


UNSAFE = [
    None, "", "..", "../x", "a/b", "a b", "A", "ä", "x" * 64, "x" * 253, "-x", "x-", ".x", "x.y",
    "x\u0000", "x\n", "\u202e", 7, ["x"], {}, True,
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE, ids=repr)
async def test_a_name_that_is_not_safe_is_a_conflict_and_touches_no_file(node: Inside, name: Any) -> None:
    before = sorted(path for path in node.folder.rglob("*") if "wal" not in path.name)
    for wrong in ({"name": name}, {"name": "desk", "namespace": name} if name is not None else {}):
        status, refused = await node.send("POST", "/v1/agents", {**document(), "metadata": wrong})
        assert (status, refused["code"]) == (409, "unsafe_agent_name")
    assert sorted(path for path in node.folder.rglob("*") if "wal" not in path.name) == before


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "%2e%2e", "a%2Fb", "A", "x" * 253, "%00", "%C3%A4"])
@pytest.mark.parametrize(("method", "verb"), [("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/deploy"), ("POST", "/pause")])
async def test_what_no_agent_can_be_called_is_unknown_by_every_route(node: Inside, name: str, method: str, verb: str) -> None:
    from yarl import URL

    address = URL(f"{node.http._base_url}/v1/agents/{name}{verb}", encoded=True)
    async with node.http.request(method, address, json={} if method == "PUT" else None) as response:
        assert response.status == 404, await response.text()


async def test_a_name_that_is_taken_is_a_conflict(node: Inside) -> None:
    await node.send("POST", "/v1/agents", document())
    assert (await node.send("POST", "/v1/agents", document()))[1]["code"] == "agent_exists"
    status, refused = await node.send("POST", "/v1/agents", document("filed"))
    assert (status, refused["code"]) == (409, "agent_in_file")
    assert "agents/filed.agent.yaml:" in refused["detail"]


async def test_agents_of_two_namespaces_share_a_name_and_nothing_else(node: Inside, stub: StubOpenAI) -> None:
    await deployed(node, system="Usual.")
    assert (await node.send("POST", "/v1/agents?namespace=sales", document(system="Sales.")))[0] == 201
    assert (await node.send("POST", "/v1/agents/desk/run?namespace=sales", {"query": "Hi"}))[1]["code"] == "agent_not_deployed"
    assert (await node.send("POST", "/v1/agents/desk/deploy?namespace=sales"))[0] == 200
    assert (await node.send("POST", "/v1/agents/desk/run?namespace=sales", {"query": "Hi"}))[0] == 200
    assert stub.requests[-1].body["messages"][0]["content"] == "Sales."
    rows = (await node.get("/v1/agents?namespace=sales"))["agents"]
    assert [(row["name"], row["namespace"]) for row in rows] == [("desk", "sales")]
    await node.send("DELETE", "/v1/agents/desk?namespace=sales")
    assert (await node.ask("desk"))[0] == 200


async def test_a_namespace_that_is_said_twice_is_said_alike(node: Inside) -> None:
    assert (await node.send("POST", "/v1/agents?namespace=a", document(namespace="b")))[0] == 422
    assert (await node.send("POST", "/v1/agents?namespace=..", document()))[0] == 422


async def test_an_agent_cannot_be_renamed(node: Inside) -> None:
    await deployed(node)
    assert (await node.send("PUT", "/v1/agents/desk", document("other")))[0] == 422
    assert (await node.send("PUT", "/v1/agents/nobody", document("nobody")))[0] == 404


async def test_a_draft_that_this_node_cannot_run_is_kept_with_a_warning_and_not_deployed(node: Inside) -> None:
    wanting = document(provider_name="nowhere")
    status, made = await node.send("POST", "/v1/agents", wanting)
    assert status == 201
    assert "nowhere" in " ".join(made["warnings"])
    status, refused = await node.send("POST", "/v1/agents/desk/deploy")
    assert (status, refused["code"]) == (400, "agent_undeployable")
    assert "nowhere" in refused["detail"]
    assert (await node.rows())["desk"]["status"] == "draft"


async def test_a_deploy_that_fails_leaves_what_was_deployed(node: Inside) -> None:
    await deployed(node)
    await node.send("PUT", "/v1/agents/desk", document(version="2.0.0", provider_name="nowhere"))
    assert (await node.send("POST", "/v1/agents/desk/deploy"))[0] == 400
    assert (await node.ask("desk"))[0] == 200
    row = (await node.rows())["desk"]
    assert (row["version"], row["draft"]) == ("1.0.0", "2.0.0")


async def test_a_draft_cannot_be_paused(node: Inside) -> None:
    await node.send("POST", "/v1/agents", document())
    assert (await node.send("POST", "/v1/agents/desk/pause"))[0] == 400


async def test_what_a_file_says_only_the_file_changes_and_a_pause_of_it_is_kept(stub: StubOpenAI, tmp_path: Path) -> None:
    async with node_inside(tmp_path, {**provider(stub.endpoint), **agent("filed")}) as node:
        for method, body in (("PUT", document("filed")), ("DELETE", None)):
            status, refused = await node.send(method, "/v1/agents/filed", body)
            assert (status, refused["code"]) == (409, "agent_in_file")
            assert "filed.agent.yaml" in refused["detail"]
        assert (await node.send("POST", "/v1/agents/filed/deploy"))[0] == 200
        assert (await node.send("POST", "/v1/agents/filed/pause"))[0] == 200
        assert (await node.ask("filed"))[0] == 503
    async with node_inside(tmp_path) as node:
        assert (await node.rows())["filed"]["status"] == "paused"
        assert (await node.ask("filed"))[0] == 503
        await node.send("POST", "/v1/agents/filed/deploy")
        assert (await node.ask("filed"))[0] == 200
    async with node_inside(tmp_path) as node:
        assert (await node.ask("filed"))[0] == 200


async def test_a_file_wins_over_an_agent_of_its_name_that_came_over_the_api_and_says_so(stub: StubOpenAI, tmp_path: Path) -> None:
    async with node_inside(tmp_path, provider(stub.endpoint)) as node:
        await deployed(node, system="Over the API.")
    async with node_inside(tmp_path, agent("desk", system="In a file.")) as node:
        assert (await node.ask("desk"))[0] == 200
        assert stub.requests[-1].body["messages"][0]["content"] == "In a file."
        assert "default.desk.json" in " ".join((await node.rows())["desk"]["warnings"])
    (tmp_path / "config/agents/desk.agent.yaml").unlink()
    async with node_inside(tmp_path) as node:
        await node.ask("desk")
        assert stub.requests[-1].body["messages"][0]["content"] == "Over the API."


async def test_secrets_are_masked_kept_as_written_and_for_the_owner_alone(
    node: Inside, stub: StubOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_SECRET", "hidden-in-the-environment")
    whole = document(system="${DESK_SECRET}")
    whole["spec"]["model"]["primary"] |= {"api_key": "sk-written-out", "endpoint": stub.endpoint, "provider": "openai_compat"}
    del whole["spec"]["model"]["primary"]["providerRef"]
    assert (await node.send("POST", "/v1/agents", whole))[0] == 201
    assert (await node.send("POST", "/v1/agents/desk/deploy"))[0] == 200
    shown = await node.get("/v1/agents/desk")
    assert shown["spec"]["model"]["primary"]["api_key"] == "***"
    assert shown["spec"]["prompts"]["system"] == "${DESK_SECRET}"
    file = node.kept / "default.desk.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(node.kept.stat().st_mode) == 0o700
    assert "hidden-in-the-environment" not in file.read_text()
    assert json.loads(file.read_text())["deployed"]["spec"]["prompts"]["system"] == "${DESK_SECRET}"
    await node.ask("desk")
    assert stub.requests[-1].body["messages"][0]["content"] == "hidden-in-the-environment"
    # What is shown cannot be sent back as if it were the secret.
    assert (await node.send("PUT", "/v1/agents/desk", shown))[0] == 422


async def test_a_run_that_began_ends_with_the_agent_that_it_began_with(node: Inside, stub: StubOpenAI) -> None:
    await deployed(node, model="slow", system="First.")
    running = asyncio.create_task(node.ask("desk"))

    async def asked() -> bool:
        return bool(stub.requests)

    await eventually(asked, 1.0, what="the model was asked")
    await node.send("PUT", "/v1/agents/desk", document(version="2.0.0", system="Second."))
    await node.send("POST", "/v1/agents/desk/deploy")
    await node.send("POST", "/v1/agents/desk/pause")
    await node.send("DELETE", "/v1/agents/desk")
    assert not running.done(), "the model answered too fast for this test"
    status, answer = await running
    assert status == 200, answer
    assert stub.requests[-1].body["messages"][0]["content"] == "First."


async def test_a_conversation_goes_on_with_the_next_version(node: Inside, stub: StubOpenAI) -> None:
    remembers = {"memory": {"conversational": {}}}
    await deployed(node, **remembers)
    _, first = await node.ask("desk", "One")
    await node.send("PUT", "/v1/agents/desk", document(version="2.0.0", system="Second.", **remembers))
    await node.send("POST", "/v1/agents/desk/deploy")
    await node.ask("desk", "Two", session_id=first["session_id"])
    assert [message["content"] for message in stub.requests[-1].body["messages"]][::2] == ["Second.", first["answer"]]
    await node.send("POST", "/v1/agents/desk/pause")
    shown = await node.get(f"/v1/memory/desk/history/{first['session_id']}")
    assert [row["content"] for row in shown["history"]][::2] == ["One", "Two"]


async def test_of_many_that_post_one_name_at_once_one_is_first(node: Inside) -> None:
    answers = await asyncio.gather(*(node.send("POST", "/v1/agents", document(version=f"{number}.0.0")) for number in range(16)))
    assert sorted(status for status, _ in answers) == [201] + [409] * 15
    (first,) = (made["version"] for status, made in answers if status == 201)
    assert (await node.rows())["desk"]["version"] == first
    assert json.loads((node.kept / "default.desk.json").read_text())["draft"]["metadata"]["version"] == first


async def test_two_puts_at_once_are_carried_out_one_after_the_other(node: Inside) -> None:
    await deployed(node)
    answers = await asyncio.gather(*(node.send("PUT", "/v1/agents/desk", document(version=f"{number}.0.0")) for number in range(2, 12)))
    assert {status for status, _ in answers} == {200}
    kept = json.loads((node.kept / "default.desk.json").read_text())
    assert kept["draft"]["metadata"]["version"] == (await node.rows())["desk"]["draft"]
    assert kept["deployed"]["metadata"]["version"] == "1.0.0"


async def test_a_hundred_agents_are_made_listed_and_there_again(stub: StubOpenAI, tmp_path: Path) -> None:
    async with node_inside(tmp_path, provider(stub.endpoint), mesh=True) as node:
        for number in range(100):
            await deployed(node, f"agent-{number}")
        assert len(await node.rows()) == 100
        assert len(node.node.lifecycle.offered) == 100

        async def all_offered() -> bool:
            (own,) = (await node.get("/v1/nodes"))["nodes"]
            return len(own["agents"]) == 100

        await eventually(all_offered, AGENTS_GOAL_S, what="all agents are offered")
    async with node_inside(tmp_path) as node:
        assert {row["status"] for row in (await node.rows()).values()} == {"deployed"}
        assert (await node.ask("agent-99"))[0] == 200


async def test_more_than_the_mesh_takes_of_one_node_is_refused_and_what_was_offered_stays(
    node: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for number in range(400):
        status, answer = await node.send("POST", "/v1/agents", document(f"{'x' * 55}-{number}", version="1" * 60))
        if status != 201:
            assert (status, answer["code"]) == (409, "agent_conflict")
            break
        made.append(number)
    assert 80 < len(made) < 400
    assert len(node.node.lifecycle.offered) == len(made) + 1


async def test_a_disk_that_does_not_take_it_is_said_and_changes_nothing(node: Inside) -> None:
    await deployed(node)
    before = await node.rows()
    (node.kept / "default.desk.json.part").mkdir()  # where the next state would be written first
    for method, path, body in (
        ("PUT", "/v1/agents/desk", document(version="2.0.0")),
        ("POST", "/v1/agents/desk/pause", None),
        ("DELETE", "/v1/agents/desk", None),
    ):
        status, refused = await node.send(method, path, body)
        assert (status, refused["code"]) == (503, "agents_unwritable")
        assert await node.rows() == before
    assert (await node.ask("desk"))[0] == 200


DAMAGED = {
    "nothing in it": b"",
    "half of it": b'{"format": 1, "name": "desk", "nam',
    "noise": os.urandom(300),
    "a list": b"[]",
    "another agent's": json.dumps(
        {"format": 1, "name": "x", "namespace": "default", "status": "draft", "deployed": None, "draft": {}}
    ).encode(),
    "no status": json.dumps({"format": 1, "name": "desk", "namespace": "default", "deployed": None, "draft": None}).encode(),
    "a document that is none": json.dumps(
        {"format": 1, "name": "desk", "namespace": "default", "status": "draft", "deployed": None, "draft": 7}
    ).encode(),
}


@pytest.mark.parametrize("case", DAMAGED)
async def test_a_damaged_file_is_set_aside_and_named_and_the_node_runs(stub: StubOpenAI, tmp_path: Path, case: str) -> None:
    kept = tmp_path / "data" / "agents"
    kept.mkdir(parents=True)
    (kept / "default.desk.json").write_bytes(DAMAGED[case])
    async with node_inside(tmp_path, {**provider(stub.endpoint), **agent("filed")}) as node:
        assert (await node.ask("filed"))[0] == 200
        assert "default.desk.json is damaged" in " ".join((await node.get("/v1/system/status"))["warnings"])
        (aside,) = kept.iterdir()
        assert aside.name.startswith("default.desk.json.damaged-")
        assert aside.read_bytes() == DAMAGED[case]
        await deployed(node)
    async with node_inside(tmp_path) as node:
        assert (await node.ask("desk"))[0] == 200


async def test_a_file_of_a_later_version_is_left_as_it_is(stub: StubOpenAI, tmp_path: Path) -> None:
    kept = tmp_path / "data" / "agents"
    kept.mkdir(parents=True)
    (kept / "default.desk.json").write_text('{"format": 2, "what": "ever"}')
    async with node_inside(tmp_path, provider(stub.endpoint)) as node:
        assert "later version" in " ".join((await node.get("/v1/system/status"))["warnings"])
        assert await node.rows() == {}
    assert (kept / "default.desk.json").read_text() == '{"format": 2, "what": "ever"}'


async def test_an_agent_that_cannot_run_any_more_is_listed_with_the_reason_and_the_node_starts(
    stub: StubOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_WORD", "please")
    async with node_inside(tmp_path, provider(stub.endpoint)) as node:
        await deployed(node, system="${DESK_WORD}")
        await deployed(node, "till")
    monkeypatch.delenv("DESK_WORD")
    (tmp_path / "config/providers-stub.yaml").unlink()
    async with node_inside(tmp_path) as node:
        rows = await node.rows()
        assert "DESK_WORD is not set" in rows["desk"]["error"]
        assert "stub" in rows["till"]["error"]
        assert (await node.ask("desk"))[1]["code"] == "agent_unusable"
        # It can be mended over the API.
        assert (await node.send("PUT", "/v1/agents/desk", document(provider_name=None, version="2.0.0")))[0] == 200
        assert (await node.send("POST", "/v1/agents/desk/deploy"))[0] == 200
        assert "error" not in (await node.rows())["desk"]


async def test_too_many_changes_at_once_are_refused_and_the_others_carried_out(node: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "CHANGES_WAITING_MAX", 2)
    async with node.node.lifecycle.alone():
        first = asyncio.create_task(node.send("POST", "/v1/agents", document()))

        async def waiting() -> bool:
            return node.node.lifecycle._waiting == 2

        await eventually(waiting, 1.0, what="one waits")
        assert (await node.send("POST", "/v1/agents", document("other")))[0] == 429
    assert (await first)[0] == 201


async def test_a_client_that_leaves_leaves_no_half_of_a_change(node: Inside) -> None:
    async with node.node.lifecycle.alone():
        leaving = asyncio.create_task(node.send("POST", "/v1/agents", document()))

        async def waiting() -> bool:
            return node.node.lifecycle._waiting == 2

        await eventually(waiting, 1.0, what="the change waits")
        leaving.cancel()
        await asyncio.wait([leaving])

    async def made() -> bool:
        return "desk" in await node.rows()

    await eventually(made, 1.0, what="the change is carried through")
    assert (node.kept / "default.desk.json").exists()


async def test_a_server_is_forgotten_with_the_last_agent_that_names_it(node: Inside, stub: StubOpenAI) -> None:
    def named(name: str, path: str) -> dict[str, Any]:
        model = {"provider": "openai_compat", "model": "stub", "endpoint": f"{stub.endpoint}/{path}"}
        return with_model(name, {"primary": model})

    async def servers() -> set[str]:
        gc.collect()
        async with node.http.get("/metrics") as response:
            return set(re.findall(r'astromesh_provider_retries_total\{.*?endpoint="([^"]*)"', await response.text()))

    before = await servers()
    for number in range(3):
        assert (await node.send("POST", "/v1/agents", named("desk", f"v{number}")))[0] == 201
        assert await servers() == before  # a draft calls nobody
        assert (await node.send("POST", "/v1/agents/desk/deploy"))[0] == 200
        assert len(await servers() - before) == 1
        assert (await node.send("DELETE", "/v1/agents/desk"))[0] == 200
        assert await servers() == before


async def test_a_draft_does_not_say_how_often_a_server_is_asked_for_its_health(node: Inside) -> None:
    drafted = with_model("desk", {"primary": {"provider": "stub", "model": "stub"}, "routing": {"health_check_interval": 7}})
    watched = node.node.health.of("stub")
    usual = watched.interval_s
    assert (await node.send("POST", "/v1/agents", drafted))[0] == 201
    assert watched.interval_s == usual
    assert (await node.send("POST", "/v1/agents/desk/deploy"))[0] == 200
    assert watched.interval_s == 7.0 != usual
    assert (await node.send("POST", "/v1/agents/desk/pause"))[0] == 200
    assert watched.interval_s == usual

"""Files read again by a node that runs: all that changed is taken over, or nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.rig.documents import Documents, agent, provider, runtime, write_documents
from tests.rig.eventually import eventually
from tests.rig.inside import Inside, node_inside
from tests.rig.stub_openai import StubOpenAI

HEALTH_GOAL_S = 2.0


@pytest.fixture
async def stub() -> AsyncIterator[StubOpenAI]:
    async with StubOpenAI(models=["stub", "slow"], pause_s=0.05) as server:
        yield server


@pytest.fixture
async def node(stub: StubOpenAI, tmp_path: Path) -> AsyncIterator[Inside]:
    files = {**provider(stub.endpoint, models=["stub", "slow"]), **agent("desk", system="First."), **agent("till")}
    async with node_inside(tmp_path, files) as opened:
        yield opened


async def reload(node: Inside, files: Documents | None = None) -> tuple[int, Any]:
    write_documents(node.folder / "config", files or {})
    return await node.send("POST", "/v1/system/reload")


def broken(name: str) -> Documents:
    return {
        f"agents/{name}.agent.yaml": "apiVersion: astromesh/v1\nkind: Agent\n"
        f"metadata: {{name: {name}}}\nspec:\n  model: {{primary: {{provider: local, model: m}}}}\n  orchestration: {{patern: react}}\n"
    }


def system_of(stub: StubOpenAI) -> str:
    return str(stub.requests[-1].body["messages"][0]["content"])


async def test_what_was_added_changed_and_removed_is_taken_over_and_named(node: Inside, stub: StubOpenAI) -> None:
    (node.folder / "config/agents/till.agent.yaml").unlink()
    status, said = await reload(node, {**agent("desk", system="Second."), **agent("fresh")})
    assert (status, said["status"]) == (200, "reloaded")
    assert said["agents"] == {"added": ["fresh"], "changed": ["desk"], "removed": ["till"]}
    assert said["restart_needed"] == said["mistakes"] == []
    assert (await node.rows()).keys() == {"desk", "fresh"}
    assert (await node.ask("desk"))[0] == (await node.ask("fresh"))[0] == 200
    assert (await node.ask("till"))[0] == 404
    await node.ask("desk")
    assert system_of(stub) == "Second."


async def test_one_mistake_in_a_file_that_changed_keeps_everything_as_it_is_and_every_mistake_is_told(
    node: Inside, stub: StubOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    before = await node.rows()
    wrong = {
        **agent("desk", system="Second."),
        **agent("fresh"),
        **broken("till"),
        "providers-more.yaml": "apiVersion: astromesh/v1\nkind: [\n",
    }
    status, refused = await reload(node, wrong)
    assert (status, refused["code"]) == (422, "bad_configuration")
    places = {(row["source"], row["line"]) for row in refused["detail"]["mistakes"]}
    assert places == {("agents/till.agent.yaml", 6), ("providers-more.yaml", 2)}
    assert all(text in refused["detail"]["message"] for text in ("till.agent.yaml:6", "providers-more.yaml:2"))
    assert all(text in caplog.text for text in ("till.agent.yaml:6", "providers-more.yaml:2", "nothing was changed"))
    assert await node.rows() == before
    await node.ask("desk")
    assert system_of(stub) == "First."
    assert (await node.ask("till"))[0] == 200
    # Mended, everything is taken over.
    (node.folder / "config/providers-more.yaml").unlink()
    status, said = await reload(node, agent("till"))
    assert (status, said["agents"]) == (200, {"added": ["fresh"], "changed": ["desk"], "removed": []})


async def test_a_file_that_was_broken_before_and_has_not_changed_keeps_nothing_back(stub: StubOpenAI, tmp_path: Path) -> None:
    async with node_inside(tmp_path, {**provider(stub.endpoint), **broken("bad")}) as node:
        status, said = await reload(node, agent("desk"))
        assert (status, said["agents"]["added"]) == (200, ["desk"])
        assert "bad.agent.yaml:6" in said["mistakes"][0]
        assert "bad.agent.yaml:6" in (await node.rows())["bad"]["error"]
        # Once it is touched and still wrong, it does.
        text = (tmp_path / "config/agents/bad.agent.yaml").read_text()
        status, _ = await reload(node, {**agent("more"), "agents/bad.agent.yaml": text + "# not mended\n"})
        assert status == 422
        assert "more" not in await node.rows()


async def test_a_file_that_cannot_be_read_any_more_keeps_everything_as_it_is(node: Inside) -> None:
    file = node.folder / "config/agents/desk.agent.yaml"
    file.unlink()
    file.mkdir()
    status, refused = await reload(node)
    assert (status, refused["detail"]["mistakes"][0]["source"]) == (422, "agents/desk.agent.yaml")
    assert (await node.ask("desk"))[0] == 200


async def test_a_folder_that_is_gone_keeps_everything_as_it_is(node: Inside) -> None:
    (node.folder / "config").rename(node.folder / "elsewhere")
    status, refused = await node.send("POST", "/v1/system/reload")
    assert (status, refused["code"]) == (422, "bad_configuration")
    assert (await node.ask("desk"))[0] == 200


async def test_a_run_that_began_ends_as_it_began(node: Inside, stub: StubOpenAI) -> None:
    await reload(node, agent("desk", model="slow", system="First."))
    running = asyncio.create_task(node.ask("desk"))

    async def asked() -> bool:
        return bool(stub.requests)

    await eventually(asked, 1.0, what="the model was asked")
    (node.folder / "config/agents/desk.agent.yaml").unlink()
    status, said = await reload(node)
    assert (status, said["agents"]["removed"]) == (200, ["desk"])
    assert not running.done(), "the model answered too fast for this test"
    status, answer = await running
    assert status == 200, answer
    assert system_of(stub) == "First."


async def test_a_conversation_goes_on_after_a_reload(node: Inside, stub: StubOpenAI) -> None:
    remembers = {"memory": {"conversational": {}}}
    await reload(node, agent("desk", **remembers))
    _, first = await node.ask("desk", "One")
    await reload(node, agent("desk", system="Second.", **remembers))
    await node.ask("desk", "Two", session_id=first["session_id"])
    said = [message["content"] for message in stub.requests[-1].body["messages"]]
    assert said == ["Second.", "One", first["answer"], "Two"]


async def test_another_address_of_a_model_server_is_used_from_the_next_call_on(node: Inside, stub: StubOpenAI) -> None:
    async with StubOpenAI(models=["stub"]) as other:
        status, said = await reload(node, provider(other.endpoint, models=["stub", "new"]))
        assert (status, said["providers"]) == (200, {"added": [], "changed": ["stub"], "removed": []})
        before = len(stub.requests)
        assert (await node.ask("desk"))[0] == 200
        assert len(stub.requests) == before
        assert len([request for request in other.requests if request.body]) == 1
        ids = {row["id"] for row in (await node.get("/v1/models"))["data"]}
        assert "new" in ids
        assert "slow" not in ids
        assert [row["models"] for row in (await node.get("/v1/providers"))["providers"]] == [["stub", "new"]]


async def test_a_model_server_that_stays_keeps_what_is_known_of_it_and_a_new_one_is_asked(node: Inside, stub: StubOpenAI) -> None:
    async def healthy(*names: str) -> bool:
        rows = (await node.get("/v1/providers"))["providers"]
        return {row["name"]: row["health"] for row in rows} == dict.fromkeys(names, "healthy")

    await eventually(lambda: healthy("stub"), HEALTH_GOAL_S, what="the server is healthy")
    watched = node.node.health.of("stub")
    async with StubOpenAI(models=["m"]) as other:
        await reload(node, provider(other.endpoint, name="other", models=["m"]))
        assert node.node.health.of("stub") is watched
        await eventually(lambda: healthy("stub", "other"), HEALTH_GOAL_S, what="the new one is healthy, too")


async def test_a_model_server_that_an_agent_needs_cannot_be_taken_away(node: Inside) -> None:
    (node.folder / "config/providers-stub.yaml").unlink()
    status, refused = await reload(node)
    assert status == 422
    assert "desk.agent.yaml" in refused["detail"]["message"]
    assert (await node.ask("desk"))[0] == 200


async def test_nor_where_the_agent_came_over_the_api(stub: StubOpenAI, tmp_path: Path) -> None:
    async with node_inside(tmp_path, provider(stub.endpoint)) as node:
        (document,) = agent("desk").values()
        await node.send("POST", "/v1/agents", document)
        await node.send("POST", "/v1/agents/desk/deploy")
        (tmp_path / "config/providers-stub.yaml").unlink()
        status, refused = await reload(node)
        assert status == 422
        assert "agent desk" in refused["detail"]["message"]
        assert (await node.ask("desk"))[0] == 200


async def test_agents_that_came_over_the_api_follow_their_model_servers(stub: StubOpenAI, tmp_path: Path) -> None:
    async with node_inside(tmp_path, provider(stub.endpoint)) as node, StubOpenAI(models=["stub"]) as other:
        (document,) = agent("desk").values()
        await node.send("POST", "/v1/agents", document)
        await node.send("POST", "/v1/agents/desk/deploy")
        await reload(node, provider(other.endpoint))
        assert (await node.ask("desk"))[0] == 200
        assert [request for request in other.requests if request.body]


async def test_what_needs_a_start_is_said_until_there_was_one(node: Inside) -> None:
    changed = runtime(api={"port": 9123}, mesh={"enabled": True, "mdns": False, "profile": "wan"})
    for _ in range(2):
        status, said = await reload(node, changed)
        assert status == 200
        assert [line.rpartition(": ")[2] for line in said["restart_needed"]] == [
            "spec.api counts from the next start",
            "spec.mesh counts from the next start",
        ]
        assert "runtime.yaml:" in said["restart_needed"][0]
    assert "spec.api counts from the next start" in " ".join((await node.get("/v1/system/status"))["warnings"])
    (node.folder / "config/runtime.yaml").unlink()
    assert (await reload(node))[1]["restart_needed"] == []


async def test_defaults_for_agents_need_none(node: Inside) -> None:
    whole = agent("desk")["agents/desk.agent.yaml"]
    assert not isinstance(whole, str)
    spec = {key: value for key, value in whole["spec"].items() if key != "orchestration"}
    await reload(node, {"agents/desk.agent.yaml": {**whole, "spec": spec}})
    assert node.node.runtime.agents["desk"].timeout_s == 300.0
    status, said = await reload(node, runtime(defaults={"orchestration": {"timeout_seconds": 7}}))
    assert (status, said["restart_needed"]) == (200, ["runtime.yaml:10: spec.mesh counts from the next start"])
    assert node.node.runtime.agents["desk"].timeout_s == 7.0
    assert said["agents"]["changed"] == []


async def test_what_did_not_change_is_not_built_again(node: Inside) -> None:
    desk, till = node.node.runtime.agents["desk"], node.node.runtime.agents["till"]
    await reload(node, agent("till", system="Other."))
    assert node.node.runtime.agents["desk"] is desk
    assert node.node.runtime.agents["till"] is not till


async def test_a_pause_outlives_a_reload(node: Inside) -> None:
    await node.send("POST", "/v1/agents/desk/pause")
    await reload(node, agent("desk", system="Second."))
    assert (await node.rows())["desk"]["status"] == "paused"
    assert (await node.ask("desk"))[0] == 503


async def test_many_reloads_at_once_are_carried_out_one_after_the_other(node: Inside) -> None:
    write_documents(node.folder / "config", agent("fresh"))
    answers = await asyncio.gather(*(node.send("POST", "/v1/system/reload") for _ in range(8)))
    assert {status for status, _ in answers} == {200}
    assert [said["agents"]["added"] for _, said in answers].count(["fresh"]) == 1


async def test_a_node_without_its_own_file_says_in_status_what_counts_instead(tmp_path: Path) -> None:
    async with node_inside(tmp_path, {"runtime.yaml": "kind: [\n"}) as node:
        said = [warning for warning in (await node.get("/v1/system/status"))["warnings"] if "is set aside" in warning]
    assert len(said) == 1
    assert f"no mesh, data {tmp_path}/data, models {tmp_path}/data/models" in said[0]


async def test_a_node_that_joins_nobody_says_at_its_start_what_its_agents_will_not_find(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with node_inside(tmp_path, agent("desk", provider_name=None, model="nowhere")):
        assert "agent desk: model nowhere: nobody in the mesh has it at the moment" in caplog.messages

"""Agents that come over the API, on real processes: what a `kill -9` leaves, and how far a change reaches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.cluster.conftest import FAST, sees
from tests.rig.documents import agent, provider, write_documents
from tests.rig.eventually import eventually
from tests.rig.nodes import Node, node_process
from tests.rig.stub_openai import StubOpenAI
from tests.rig.syscalls import watched

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

GONE_S = 20.0
NEWS_GOAL_S = 2.0
MEMBERS_GOAL_S = 3.0


@pytest.fixture
async def node(stub: StubOpenAI) -> AsyncIterator[Node]:
    async with node_process("one", config=provider(stub.endpoint, models=["lamp"]), arguments=(*FAST, "--no-mesh")) as opened:
        yield opened


@pytest.fixture
async def three(stub: StubOpenAI) -> AsyncIterator[tuple[Node, Node, Node]]:
    """All with the same model server; who has an agent is the test's to say."""
    files = provider(stub.endpoint, models=["lamp"])
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(node_process("a", config=files, arguments=FAST))
        b = await stack.enter_async_context(node_process("b", config=files, join=[a.gossip], arguments=FAST))
        c = await stack.enter_async_context(node_process("c", config=files, join=[a.gossip], arguments=FAST))
        everybody = dict.fromkeys("abc", "alive")
        for each in (a, b, c):
            await eventually(lambda each=each: sees(each, everybody), MEMBERS_GOAL_S, what=f"{each.name} sees three")
        yield a, b, c


def document(name: str = "desk", *, version: str = "1.0.0", system: str = "You are a test.") -> dict[str, Any]:
    (whole,) = agent(name, model="lamp", system=system).values()
    assert not isinstance(whole, str)
    return {**whole, "metadata": {"name": name, "version": version}}


async def send(node: Node, method: str, path: str, body: object = None) -> tuple[int, Any]:
    async with node.http.request(method, path, **({} if body is None else {"json": body})) as response:
        return response.status, await response.json(content_type=None)


async def ask(node: Node, name: str = "desk") -> tuple[int, Any]:
    return await send(node, "POST", f"/v1/agents/{name}/run", {"query": "Hello"})


async def deployed(node: Node, **how: Any) -> None:
    assert (await send(node, "POST", "/v1/agents", document(**how)))[0] == 201
    assert (await send(node, "POST", "/v1/agents/desk/deploy"))[0] == 200


async def row(node: Node, name: str = "desk") -> dict[str, Any]:
    rows = [found for found in (await node.get("/v1/agents"))["agents"] if found["name"] == name]
    return rows[0] if rows else {}


async def until_gone(node: Node) -> None:
    async with asyncio.timeout(GONE_S):
        while node.exit_code is None:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("call", ["put", "deploy", "pause", "remove", "create"])
@pytest.mark.parametrize("moment", ["write when=1", "fsync when=1", "rename when=1", "fsync when=2"])
async def test_a_node_that_is_killed_in_the_middle_of_a_change_has_made_all_of_it_or_none(
    node: Node, tmp_path: Path, call: str, moment: str
) -> None:
    await deployed(node)
    assert (await send(node, "PUT", "/v1/agents/desk", document(version="2.0.0")))[0] == 200
    before = {name: await row(node, name) for name in ("desk", "till")}
    asked = {
        "put": ("PUT", "/v1/agents/desk", document(version="3.0.0")),
        "deploy": ("POST", "/v1/agents/desk/deploy", None),
        "pause": ("POST", "/v1/agents/desk/pause", None),
        "remove": ("DELETE", "/v1/agents/desk", None),
        "create": ("POST", "/v1/agents", document("till")),
    }[call]
    kept = node.directory / "data" / "agents"
    files = [kept / f"default.{name}.json{part}" for name in ("desk", "till") for part in ("", ".part")]
    system_call, when = moment.split()
    inject = f"/^{system_call}:signal=SIGKILL:{when}"  # a pattern: the call has several names
    async with watched(node.pid, [f"/^{system_call}"], log=tmp_path / "calls", inject=inject, paths=[kept, *files]):
        answer: Any = None
        with contextlib.suppress(aiohttp.ClientError):
            answer = await send(node, *asked)
    if node.exit_code is None and answer is not None:
        assert call == "remove", "the change was made without the call that it was to be killed at"  # it writes nothing first
        assert answer[0] == 200
        return
    await until_gone(node)
    await node.kill()
    await node.start()
    after = {name: await row(node, name) for name in ("desk", "till")}
    done = {
        "put": before | {"desk": before["desk"] | {"draft": "3.0.0"}},
        "deploy": before | {"desk": {**{key: value for key, value in before["desk"].items() if key != "draft"}, "version": "2.0.0"}},
        "pause": before | {"desk": before["desk"] | {"status": "paused"}},
        "remove": before | {"desk": {}},
        "create": before | {"till": before["desk"] | {"name": "till", "status": "draft", "version": "1.0.0"}},
    }[call]
    done["till"].pop("draft", None)
    assert after in (before, done)
    # And it goes on: whatever the killed one left lying about is in nobody's way.
    assert (await send(node, asked[0], asked[1], asked[2]))[0] in (200, 201, 404, 409)
    assert (await send(node, "POST", "/v1/agents", document("more")))[0] == 201


async def test_killed_again_and_again_a_node_keeps_every_change_that_it_acknowledged(node: Node) -> None:
    acknowledged = 0
    told = 0
    await deployed(node, version="0.0.0")
    for _ in range(3):
        enough = asyncio.Event()

        async def change(enough: asyncio.Event = enough) -> None:
            nonlocal acknowledged, told
            with contextlib.suppress(aiohttp.ClientError):
                while True:
                    told += 1
                    assert (await send(node, "PUT", "/v1/agents/desk", document(version=f"{told}.0.0")))[0] == 200
                    acknowledged = told
                    if acknowledged % 7 == 6:
                        enough.set()

        changing = asyncio.create_task(change())
        await enough.wait()
        await node.kill()
        await changing
        await node.start()
        kept = int((await row(node))["draft"].partition(".")[0])
        assert acknowledged <= kept <= told
        assert (await ask(node))[0] == 200
        told = kept
    print(f"{acknowledged} changes acknowledged over 3 lives")


async def test_no_document_that_was_ever_sent_keeps_a_node_from_starting_again(node: Node) -> None:
    sent: list[Any] = [
        {}, [], "text", 7, None, {"kind": "Agent"}, {"metadata": {"name": "a"}}, {"metadata": {"name": "../../x"}},
        {**document(), "spec": None}, {**document(), "spec": {"model": []}}, {**document(), "spec": {"model": {"primary": {}}}},
        document(system="{{ broken"), document(system="${UNSET_VARIABLE}"), document(system="\u0000\ud7ff\ufffe" * 10),
        {**document(), "kind": "RuntimeConfig"}, {**document(), "apiVersion": "v9"}, {**document(), "metadata": {"name": "desk", "x": 1}},
        document(version="\u202e" * 300), {**document("deep"), "spec": json.loads("[" * 500 + "]" * 500)},
    ]  # fmt: skip
    for each in sent:
        status, _ = await send(node, "POST", "/v1/agents", each)
        assert status in (201, 400, 409, 413, 422), each
        await send(node, "PUT", "/v1/agents/desk", each)
        await send(node, "POST", "/v1/agents/desk/deploy")
    listed = (await node.get("/v1/agents"))["agents"]
    await node.kill()
    await node.start()
    assert (await node.get("/v1/agents"))["agents"] == listed
    assert (await send(node, "POST", "/v1/agents", document("fine")))[0] == 201
    assert (await send(node, "POST", "/v1/agents/fine/deploy"))[0] == 200
    assert (await ask(node, "fine"))[0] == 200


async def test_sighup_reads_the_files_again_and_says_in_the_log_what_came_of_it(node: Node, stub: StubOpenAI) -> None:
    config = node.directory / "config"
    write_documents(config, agent("desk", model="lamp"))
    os.kill(node.pid, signal.SIGHUP)

    async def answers() -> bool:
        return (await ask(node))[0] == 200

    await eventually(answers, NEWS_GOAL_S, what="the new agent answers")
    assert "agents added: desk" in node.output
    write_documents(config, {"agents/desk.agent.yaml": "apiVersion: astromesh/v1\nkind: Agent\nmetadata:\n\tname: tab\n"})
    os.kill(node.pid, signal.SIGHUP)

    async def refused() -> bool:
        return "desk.agent.yaml:4" in node.output

    await eventually(refused, NEWS_GOAL_S, what="the mistake is in the log")
    assert "nothing was changed" in node.output
    assert (await ask(node))[0] == 200


async def test_a_change_reaches_every_node_that_holds_the_agent_from_whichever_it_is_asked(
    three: tuple[Node, Node, Node], stub: StubOpenAI
) -> None:
    a, b, c = three
    for holder in (a, b):
        await deployed(holder)

    async def known(versions: str = "1.0.0", status: str = "deployed", holders: tuple[str, ...] = ("a", "b")) -> bool:
        found = await row(c)
        assert found, "c knows of no desk"
        assert (sorted(found["nodes"]), found["version"], found["status"]) == (sorted(holders), versions, status), found
        return True

    await eventually(known, NEWS_GOAL_S, what="c knows both")
    # c holds nothing of it: everything below is asked there.
    assert (await c.get("/v1/agents/desk"))["metadata"]["version"] == "1.0.0"
    status, said = await send(c, "PUT", "/v1/agents/desk", document(version="2.0.0", system="Second."))
    assert (status, sorted(said["nodes"]), said["failures"]) == (200, ["a", "b"], [])
    assert (await row(a))["draft"] == (await row(b))["draft"] == "2.0.0"
    assert (await c.get("/v1/agents/desk?state=draft"))["metadata"]["version"] == "2.0.0"
    status, said = await send(c, "POST", "/v1/agents/desk/deploy")
    assert (status, sorted(said["nodes"])) == (200, ["a", "b"])
    await eventually(lambda: known("2.0.0"), NEWS_GOAL_S, what="c knows the new version")
    assert (await ask(c))[0] == 200
    assert stub.requests[-1].body["messages"][0]["content"] == "Second."

    assert (await send(c, "POST", "/v1/agents/desk/pause"))[0] == 200
    await eventually(lambda: known("2.0.0", "paused"), NEWS_GOAL_S, what="c knows the pause")
    for each in three:
        status, refused = await ask(each)
        assert (status, refused["code"]) == (503, "agent_paused"), each.name
    assert (await send(b, "DELETE", "/v1/agents/desk"))[0] == 200
    for each in three:
        assert (await each.get("/v1/agents?scope=local"))["agents"] == []

    async def forgotten() -> bool:
        return all([await row(each) == {} for each in three])

    await eventually(forgotten, NEWS_GOAL_S, what="nobody knows it any more")
    assert (await ask(c))[0] == 404


async def test_what_one_holder_could_not_run_is_deployed_on_none(three: tuple[Node, Node, Node], stub: StubOpenAI) -> None:
    a, b, c = three
    for holder in (a, b):
        await deployed(holder)
    (b.directory / "config/providers-stub.yaml").unlink()
    write_documents(b.directory / "config", provider(stub.endpoint, name="stub2", models=["lamp"]))
    # b runs on with what it has; a document that names another server is fine on a alone.
    write_documents(a.directory / "config", provider(stub.endpoint, name="extra", models=["bulb"]))
    assert (await send(a, "POST", "/v1/system/reload"))[0] == 200
    wanting = document(version="2.0.0")
    wanting["spec"]["model"]["primary"] |= {"providerRef": "extra", "model": "bulb"}

    async def both() -> bool:
        return sorted((await row(c)).get("nodes", [])) == ["a", "b"]

    await eventually(both, NEWS_GOAL_S, what="c knows both")
    assert (await send(c, "PUT", "/v1/agents/desk", wanting))[0] == 200
    status, refused = await send(c, "POST", "/v1/agents/desk/deploy")
    assert (status, refused["code"]) == (400, "agent_undeployable")
    assert refused["detail"].startswith("b:")
    for holder in (a, b):
        found = await row(holder)
        assert (found["version"], found["draft"]) == ("1.0.0", "2.0.0")


async def test_a_holder_that_cannot_be_reached_is_named_and_the_others_change(three: tuple[Node, Node, Node]) -> None:
    a, b, c = three
    for holder in (a, b):
        await deployed(holder)

    async def both() -> bool:
        return sorted((await row(c)).get("nodes", [])) == ["a", "b"]

    await eventually(both, NEWS_GOAL_S, what="c knows both")
    await b.kill()
    status, said = await send(c, "POST", "/v1/agents/desk/pause")
    assert (status, said["nodes"]) == (200, ["a"])
    if said["failures"]:  # else c had heard of the death already
        assert [failure["node"] for failure in said["failures"]] == ["b"]
        assert "b is as it was" in " ".join(said["warnings"])


async def test_where_nodes_disagree_the_own_document_counts_then_the_highest_version_and_a_warning_says_so(
    three: tuple[Node, Node, Node], stub: StubOpenAI
) -> None:
    a, b, c = three
    await deployed(a, version="1.9.0", system="On a.")
    await deployed(b, version="1.10.0", system="On b.")

    async def warned(node: Node, version: str, what: str) -> bool:
        found = await row(node)
        return found.get("version") == version and any(what in warning for warning in found["warnings"])

    await eventually(lambda: warned(c, "1.10.0", "a has another document"), NEWS_GOAL_S, what="c warns")
    await eventually(lambda: warned(a, "1.9.0", "b has another document"), NEWS_GOAL_S, what="a warns")
    for node, system in ((a, "On a."), (b, "On b."), (c, "On b."), (c, "On b."), (c, "On b.")):
        assert (await ask(node))[0] == 200
        assert stub.requests[-1].body["messages"][0]["content"] == system

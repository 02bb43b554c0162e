"""What documents say of tools and permissions."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contracts.witness import Running, Witness
from tests.rig.documents import Documents, agent, provider, runtime
from tests.rig.stub_answers import Say
from tests.rig.stub_openai import StubOpenAI
from tests.rig.web_double import web_double

CLOCK = {"type": "builtin", "name": "datetime_now"}
ADD = {"type": "internal", "name": "add", "function": "operator:add"}


def with_tools(stub: StubOpenAI, *tools: dict[str, Any], **how: Any) -> Documents:
    return {**provider(stub.endpoint), **agent("desk", tools=list(tools), **how)}


def offered(stub: StubOpenAI) -> dict[str, Any]:
    """What the model was offered last, by name."""
    return {tool["function"]["name"]: tool["function"] for tool in stub.asked("stub")[-1].body.get("tools", ())}


async def called(node: Running, stub: StubOpenAI, name: str, **arguments: Any) -> str:
    """What the model was told when it called a tool."""
    stub.say("stub", Say(calls=((name, arguments),)), "Done.")
    await node.answer()
    return str(stub.asked("stub")[-1].body["messages"][-1]["content"])


async def test_a_builtin_tool_is_offered_under_its_description_and_its_result_is_cut(witness: Witness, stub: StubOpenAI) -> None:
    tool = {"type": "builtin", "name": "json_transform", "description": "Takes JSON apart.", "max_result_tokens": 5}
    async with witness.node(with_tools(stub, tool)) as node:
        said = await called(node, stub, "json_transform", data={"a": "x" * 1000}, expression="a")
        assert offered(stub)["json_transform"]["description"] == "Takes JSON apart."
        assert len(said) < 200


async def test_a_webhook_is_sent_its_arguments_where_the_node_lists_the_address_and_nowhere_else(
    witness: Witness, stub: StubOpenAI
) -> None:
    async with web_double() as web:
        ticket = {
            "type": "webhook", "name": "ticket", "url": f"{web.url}/tickets", "method": "PUT", "headers": {"X-Key": "k"},
            "parameters": {"title": {"type": "string"}},
        }  # fmt: skip
        hidden = {"type": "webhook", "name": "hidden", "endpoint": f"http://127.0.0.1:{web.port + 1}/"}
        listed = runtime(mesh={"enabled": True}, tools={"http": {"allow": [web.place]}})
        async with witness.node({**with_tools(stub, ticket, hidden), **listed}) as node:
            assert "PUT" in await called(node, stub, "ticket", title="broken")
            [asked] = web.asked
            assert (asked.method, asked.path, asked.headers["X-Key"], asked.body) == ("PUT", "/tickets", "k", b'{"title":"broken"}')
            assert "title" in await called(node, stub, "ticket", title=[])
            assert "127.0.0.1" in await called(node, stub, "hidden")
            given = {"tool_name": "http_request", "arguments": {"method": "GET", "url": "http://169.254.169.254/latest/meta-data"}}
            assert (await node.ask("POST", "/v1/tools/execute", given)).body["status"] == "error"
            assert len(web.asked) == 1


async def test_another_agent_is_a_tool(witness: Witness, stub: StubOpenAI) -> None:
    tool = {"type": "agent", "agent": "till", "name": "ask_till"}
    async with witness.node(
        {**with_tools(stub, tool), **agent("till", model="other"), **provider(stub.endpoint, models=["stub", "other"])}
    ) as node:
        stub.say("other", "Ninety-nine.")
        [parameter] = (await node.get("/v1/tools"))["tools"][0]["parameters"]["properties"]
        assert "Ninety-nine." in await called(node, stub, "ask_till", **{parameter: "How much?"})


async def test_a_python_function_is_a_tool_where_the_node_lists_its_module_and_nowhere_else(witness: Witness, stub: StubOpenAI) -> None:
    tool = {"type": "internal", "name": "words", "function": "tests.contracts.sample_tools:words"}
    listed = runtime(mesh={"enabled": True}, tools={"modules": ["tests.contracts.sample_tools"]})
    async with witness.node({**with_tools(stub, tool), **listed}) as node:
        assert await called(node, stub, "words", text="one two three") == "3"
        assert offered(stub)["words"]["description"] == "How many words a text has."
    async with witness.node(
        {**with_tools(stub, tool), "runtime.yaml": runtime(mesh={"enabled": True})["runtime.yaml"]}, name="other"
    ) as node:
        row = (await node.get("/v1/agents"))["agents"][0]
        assert "spec.tools.modules" in row["error"]


async def test_a_rate_limit_refuses_calls_and_says_when_to_come_back(witness: Witness, stub: StubOpenAI) -> None:
    async with witness.node(with_tools(stub, CLOCK | {"rate_limit": {"max_calls": 1, "window_seconds": 60}})) as node:
        assert "20" in await called(node, stub, "datetime_now")
        refused = await called(node, stub, "datetime_now")
        assert "1 call" in refused or "limit" in refused, refused


@pytest.mark.parametrize(
    "permissions",
    [{"denied_actions": ["clock.*"]}, {"allowed_actions": ["json_*"]}],
    ids=["denied", "allowed"],
)
async def test_a_tool_that_may_not_be_used_is_not_offered(witness: Witness, stub: StubOpenAI, permissions: dict[str, Any]) -> None:
    tools = [CLOCK | {"permissions": ["clock.read"]}, {"type": "builtin", "name": "json_transform"}]
    async with witness.node(with_tools(stub, *tools, permissions=permissions)) as node:
        await node.run()
        assert list(offered(stub)) == ["json_transform"]


async def test_the_network_is_taken_away_and_a_dry_run_calls_nothing(witness: Witness, stub: StubOpenAI) -> None:
    async with web_double() as web:
        tool = {"type": "webhook", "name": "ticket", "url": f"{web.url}/tickets"}
        listed = runtime(mesh={"enabled": True}, tools={"http": {"allow": [web.place]}})
        dry = {"permissions": {"execution": {"dry_run": True}}}
        async with witness.node({**with_tools(stub, tool, **dry), **listed}) as node:
            assert "dry" in await called(node, stub, "ticket")
            given = {"tool_name": "ticket", "arguments": {}}
            assert (await node.ask("POST", "/v1/tools/execute", given)).body["status"] == "dry_run"
        offline = {"permissions": {"network": {"allowed": False}}}
        async with witness.node({**with_tools(stub, tool, **offline), **listed}, name="offline") as node:
            await node.run()
            assert "ticket" not in offered(stub)
        assert web.asked == []

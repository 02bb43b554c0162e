"""From a document to what its model is really sent: tools of all types, on the terms of their agent."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from tests.rig.documents import agent as document
from tests.rig.rooms import Rooms, all_events, an_agent
from tests.rig.stub_answers import Say
from tests.rig.stub_openai import StubOpenAI
from tests.rig.web_double import WebDouble, web_double

from astromesh.errors import AgentUnusable
from astromesh.inference.dialects import calls_grammar, dialect_of
from astromesh.providers.backends.scripted import Scripted
from astromesh.runtime.agent import Agent
from astromesh.runtime.assembly import Assembly, Providers
from astromesh.runtime.toolmaking import Toolmaker
from astromesh.specs.honoured import BUILTIN_TOOLS
from astromesh.specs.orchestration import Orchestration
from astromesh.specs.parse import parse
from astromesh.specs.provider import ProviderConfig
from astromesh.specs.runtime import NodeTools, Runtime

SHOP = '''
import sys

def count(item: str, shelf: int = 1) -> dict:
    """How many of an item are on a shelf.

    Args:
        item: its name
    """
    return {"item": item, "shelf": shelf, "count": len(item)}

async def leave() -> None:
    sys.exit(1)
'''


class Kitchen:
    """A node's rooms, a model server behind it, and agents out of documents."""

    def __init__(self, stub: StubOpenAI, folder: Path) -> None:
        self.rooms = Rooms()
        self.stub = stub
        self.opened = Providers({})
        self._toolmaker = Toolmaker(NodeTools())
        self._folder = folder

    def agent(self, *, node: dict[str, Any] | None = None, **spec: Any) -> Agent:
        """Built as a node builds it. `node`: its `spec.tools`."""
        [text] = [yaml.safe_dump(one) for one in document("desk", **spec).values()]
        parsed = parse(text, source="desk.yaml", environment={"TICKET_KEY": "hunter2"})
        assert [str(mistake) for mistake in parsed.mistakes] == []
        config = {"spec": {"providers": {"stub": {"type": "openai_compat", "endpoint": self.stub.endpoint, "models": ["stub"]}}}}
        runtime = {"spec": {"tools": node or {}}}
        head = {"apiVersion": "astromesh/v1"}
        [provided] = parse(yaml.safe_dump({**head, "kind": "ProviderConfig", **config}), source="p", environment={}).resources
        [written] = parse(yaml.safe_dump({**head, "kind": "RuntimeConfig", **runtime}), source="r", environment={}).resources
        assert isinstance(provided, ProviderConfig)
        assert isinstance(written, Runtime)
        self._toolmaker = self._toolmaker.renewed(written.spec.tools)
        assembly = Assembly(
            providers=self.providers(provided),
            tools=self._toolmaker,
            defaults=Orchestration(),
            conversations=self._folder / "conversations",
        )
        built = assembly.agent(parsed.agents[0])
        self.rooms.hosts(built)
        return built

    def providers(self, provided: ProviderConfig) -> Providers:
        self.opened = Providers({provider.name: provider for provider in provided.providers})
        return self.opened

    async def asked(self, query: str) -> list[str]:
        """Asks; what the tools said, as the model was sent it."""
        await self.rooms.ask(query)
        body = self.stub.asked("stub")[-1].body
        return [message["content"] for message in body["messages"] if message["role"] == "tool"]

    def offered(self) -> dict[str, Any]:
        """The tools of the first question to the model, by name."""
        return {tool["function"]["name"]: tool["function"] for tool in self.stub.asked("stub")[0].body.get("tools") or ()}


@pytest.fixture
async def kitchen(tmp_path: Path) -> AsyncIterator[Kitchen]:
    async with StubOpenAI() as stub:
        kitchen = Kitchen(stub, tmp_path)
        yield kitchen
        await kitchen.opened.close()


@pytest.fixture
async def web() -> AsyncIterator[WebDouble]:
    async with web_double() as double:
        yield double


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module with functions."""
    (tmp_path / "shop_functions.py").write_text(SHOP)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "shop_functions"
    sys.modules.pop("shop_functions", None)


def call(name: str, /, **arguments: Any) -> str:
    return f"call {name} {orjson.dumps(arguments).decode()}"


async def test_a_function_is_offered_with_its_schema_and_its_result_reaches_the_model(kitchen: Kitchen, shop: str) -> None:
    kitchen.agent(node={"modules": [shop]}, tools=[{"type": "internal", "name": "stock", "function": f"{shop}:count"}])
    assert await kitchen.asked(call("stock", item="tea")) == ['{"item":"tea","shelf":1,"count":3}']
    assert kitchen.offered() == {
        "stock": {
            "name": "stock",
            "description": "How many of an item are on a shelf.",
            "parameters": {
                "type": "object",
                "properties": {"item": {"type": "string", "description": "its name"}, "shelf": {"type": "integer", "default": 1}},
                "required": ["item"],
                "additionalProperties": False,
            },
        }
    }


async def test_a_local_model_can_be_held_to_every_schema_that_a_node_makes(kitchen: Kitchen, shop: str) -> None:
    built = kitchen.agent(
        node={"modules": [shop]},
        tools=[
            *({"type": "builtin", "name": name} for name in BUILTIN_TOOLS),
            {"type": "internal", "function": f"{shop}:count"},
            {"type": "agent", "agent": "billing"},
            {"type": "webhook", "name": "hook", "url": "https://example.org"},
        ],
    )
    assert len(built.toolbox.schemas) == len(BUILTIN_TOOLS) + 3
    assert calls_grammar(built.toolbox.schemas, dialect_of("{{ tools }}", takes_tools=True))


async def test_a_function_that_would_end_the_program_costs_the_run_nothing(kitchen: Kitchen, shop: str) -> None:
    kitchen.agent(node={"modules": [shop]}, tools=[{"type": "internal", "function": f"{shop}:leave"}])
    assert await kitchen.asked(call("leave")) == ["error: leave failed"]


@pytest.mark.parametrize(
    ("function", "said", "hint"),
    [
        ("os:system", "functions of os may not be called: the module is not listed", "spec.tools.modules: [os]"),
        ("shop_missing:count", "module shop_missing cannot be imported: ModuleNotFoundError", "PYTHONPATH"),
        ("shop_functions:nothing", "has no function 'nothing'", "the name behind the colon"),
    ],
)
async def test_a_function_that_cannot_be_called_makes_the_agent_unusable_and_says_where(
    kitchen: Kitchen, shop: str, function: str, said: str, hint: str
) -> None:
    with pytest.raises(AgentUnusable) as mistake:
        kitchen.agent(node={"modules": [shop, "shop_missing"]}, tools=[{"type": "internal", "name": "t", "function": function}])
    assert said in mistake.value.message
    assert mistake.value.message.startswith("desk.yaml:")
    assert hint in mistake.value.hint


async def test_a_webhook_is_called_with_the_models_arguments_and_the_documents_secret(kitchen: Kitchen, web: WebDouble) -> None:
    ticket = {
        "type": "webhook", "name": "create_ticket", "description": "Opens a ticket.", "endpoint": f"{web.url}/tickets",
        "headers": {"X-Key": "${TICKET_KEY}"}, "parameters": {"title": {"type": "string"}, "urgent": {"type": "boolean", "default": False}},
    }  # fmt: skip
    built = kitchen.agent(node={"http": {"allow": [web.place]}}, tools=[ticket])
    said = await kitchen.asked(call("create_ticket", title="broken"))
    assert orjson.loads(said[0])["body"] == '{"title":"broken"}'
    assert [asked.headers["X-Key"] for asked in web.asked] == ["hunter2"]
    assert kitchen.offered()["create_ticket"]["parameters"]["required"] == ["title"]
    assert "hunter2" not in repr(built)
    (said,) = await kitchen.asked(call("create_ticket", name="broken"))
    assert said.startswith("error: not called, the arguments do not fit: ")
    assert '"title" is a required property' in said
    assert "'name' was unexpected" in said
    assert len(web.asked) == 1


async def test_what_the_node_does_not_list_is_not_called_by_any_tool(kitchen: Kitchen, web: WebDouble) -> None:
    kitchen.agent(tools=[{"type": "webhook", "name": "hook", "url": web.url}, {"type": "builtin", "name": "http_request"}])
    said = await kitchen.asked(f"{call('hook')}\n{call('http_request', method='GET', url=web.url)}")
    assert all(one.startswith("error: not called, 127.0.0.1 is not a public address") for one in said)
    assert (len(said), web.asked) == (2, [])


async def test_calls_go_out_together_and_their_results_stand_in_the_order_of_the_calls(kitchen: Kitchen, web: WebDouble) -> None:
    kitchen.agent(
        node={"http": {"allow": [web.place]}},
        tools=[
            {"type": "builtin", "name": "http_request"},
            {"type": "builtin", "name": "json_transform"},
            {"type": "builtin", "name": "datetime_now"},
        ],
    )
    calls = [
        call("json_transform", data={"a": [1]}, expression="a[0]"),
        call("http_request", method="GET", url=f"{web.url}/x"),
        call("datetime_now"),
    ]
    first, second, third = await kitchen.asked("\n".join(calls))
    assert first == "1"
    assert second.startswith("HTTP 200")
    assert third.endswith("+00:00")


@pytest.mark.parametrize("where", ["tool", "agent"])
async def test_a_long_result_is_cut_where_the_document_says(kitchen: Kitchen, web: WebDouble, where: str) -> None:
    tool = {"type": "webhook", "name": "big", "url": f"{web.url}/big/1000", "method": "GET"}
    kitchen.agent(
        node={"http": {"allow": [web.place]}},
        tools=[tool | ({"max_result_tokens": 10} if where == "tool" else {})],
        orchestration={"pattern": "react", **({"max_tool_result_tokens": 10} if where == "agent" else {})},
    )
    assert await kitchen.asked(call("big")) == ["x" * 40 + "\n[cut: the first 40 of 1000 characters; ask for less at once]"]


async def test_a_rate_holds_over_all_runs_of_the_agent(kitchen: Kitchen, web: WebDouble) -> None:
    limit = {"max_calls": 2, "window_seconds": "1h"}
    kitchen.agent(node={"http": {"allow": [web.place]}}, tools=[{"type": "webhook", "name": "hook", "url": web.url, "rate_limit": limit}])
    assert len(await kitchen.asked(f"{call('hook')}\n{call('hook')}")) == 2
    (said,) = await kitchen.asked(call("hook"))
    assert said.startswith("error: not called, at most 2 calls of hook in 3600 s; again in ")
    assert len(web.asked) == 2


async def test_a_rate_outlives_a_document_that_is_read_again(kitchen: Kitchen, web: WebDouble) -> None:
    tool = {"type": "webhook", "name": "hook", "url": web.url, "rate_limit": {"max_calls": 1}}
    node = {"http": {"allow": [web.place]}}
    kitchen.agent(node=node, tools=[tool])
    await kitchen.asked(call("hook"))
    kitchen.agent(node=node, tools=[tool | {"description": "Changed."}])
    assert (await kitchen.asked(call("hook")))[0].startswith("error: not called, at most 1 calls of hook")
    kitchen.agent(node=node, tools=[tool | {"rate_limit": {"max_calls": 2}}])
    assert not (await kitchen.asked(call("hook")))[0].startswith("error")


async def test_in_a_dry_run_the_model_is_told_and_nothing_is_called(kitchen: Kitchen, web: WebDouble) -> None:
    kitchen.agent(
        node={"http": {"allow": [web.place]}},
        tools=[{"type": "webhook", "name": "hook", "url": web.url}, {"type": "agent", "agent": "billing"}],
        permissions={"execution": {"dry_run": True}},
    )
    said = await kitchen.asked(f"{call('hook')}\n{call('billing', task='pay')}")
    assert [one.partition(" was not called")[0] for one in said] == ["dry run: hook", "dry run: billing"]
    assert web.asked == []


@pytest.mark.parametrize(
    ("permissions", "offered"),
    [
        ({"denied_actions": ["http_*"]}, ["hook", "clock"]),
        ({"allowed_actions": ["clock", "http_request"]}, ["http_request", "clock"]),
        ({"denied_actions": ["tickets.*"]}, ["http_request", "clock"]),
        ({"network": {"allowed": False}}, ["clock"]),
        ({}, ["http_request", "hook", "clock"]),
    ],
)
async def test_only_what_the_agent_may_do_is_offered(
    kitchen: Kitchen, web: WebDouble, permissions: dict[str, Any], offered: list[str]
) -> None:
    built = kitchen.agent(
        node={"http": {"allow": [web.place]}},
        tools=[
            {"type": "builtin", "name": "http_request"},
            {"type": "webhook", "name": "hook", "url": web.url, "permissions": ["tickets.write"]},
            {"type": "agent", "name": "clock", "agent": "clock"},
        ],
        permissions=permissions,
    )
    await kitchen.asked("Hello")
    assert list(kitchen.offered()) == offered
    for name in {"http_request", "hook", "clock"} - {*offered}:
        kitchen.stub.say("stub", Say(calls=((name, {}),)))
        assert (await kitchen.asked("Hello"))[0].startswith(f"error: not called, this agent is not permitted to use {name}")
    assert [schema.name for schema in built.part.tools] == offered
    assert web.asked == []


async def test_an_agent_calls_only_the_hosts_that_it_may_name(kitchen: Kitchen, web: WebDouble) -> None:
    kitchen.agent(
        node={"http": {"allow": [web.place]}},
        tools=[{"type": "builtin", "name": "http_request"}],
        permissions={"network": {"allowed": ["*.example.org"]}},
    )
    assert await kitchen.asked(call("http_request", method="GET", url=web.url)) == [
        "error: not called, this agent is not permitted to call 127.0.0.1"
    ]
    assert web.asked == []


async def test_another_agent_answers_as_a_tool_and_sees_its_task_alone(kitchen: Kitchen) -> None:
    billing = Scripted(["It was paid on Monday."])
    kitchen.rooms.hosts(an_agent("billing", provider=billing, system="You know invoices."))
    kitchen.agent(tools=[{"type": "agent", "name": "ask_billing", "agent": "billing", "description": "Knows invoices."}])
    events = await all_events(kitchen.rooms.start(call("ask_billing", task="Was invoice 7 paid?")))
    assert kitchen.offered()["ask_billing"]["description"] == "Knows invoices."
    [asked] = billing.asked
    assert [message.content for message in asked.transcript] == ["You know invoices.", "Was invoice 7 paid?"]
    sent = kitchen.stub.asked("stub")[-1].body["messages"][-1]
    assert (sent["role"], sent["content"]) == ("tool", "It was paid on Monday.")
    shown = "".join(event.data["content"] for event in events if event.kind == "token")
    assert shown == events[-1].data["answer"] == "The tools said: It was paid on Monday."


async def test_an_agent_that_is_nowhere_is_told_to_the_model_and_the_run_goes_on(kitchen: Kitchen) -> None:
    kitchen.agent(tools=[{"type": "agent", "agent": "billing"}])
    (said,) = await kitchen.asked(call("billing", task="pay"))
    assert said.startswith("error: billing: no node of this mesh has an agent named 'billing'")


async def test_an_agent_that_is_its_own_tool_is_refused_and_the_run_goes_on(kitchen: Kitchen) -> None:
    kitchen.agent(tools=[{"type": "agent", "name": "self", "agent": "desk"}])
    (said,) = await kitchen.asked(call("self", task="Hello"))
    assert said.startswith("error: self: ")

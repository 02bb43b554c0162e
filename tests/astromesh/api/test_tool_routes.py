"""Tools on the API: listed, and called by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
from tests.rig.doors import Doors, open_doors
from tests.rig.rooms import Rooms, an_agent

from astromesh.dialogue import ToolSchema
from astromesh.runtime.toolmaking import Toolmaker
from astromesh.specs.honoured import BUILTIN_TOOLS
from astromesh.specs.runtime import NodeTools
from astromesh.tools.backends.datetime_now import DatetimeNow
from astromesh.tools.port import ToolFailed
from astromesh.tools.terms import CallRate, Terms
from astromesh.tools.toolbox import Toolbox


class Till:
    schema = ToolSchema(
        "pay",
        "Pays a sum.",
        {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"], "additionalProperties": False},
    )

    def __init__(self, name: str = "pay") -> None:
        self.schema = replace(self.schema, name=name)
        self.paid: list[int] = []

    async def call(self, arguments: Mapping[str, Any]) -> str:
        if arguments["sum"] < 0:
            raise ToolFailed("a sum is above zero")
        self.paid.append(arguments["sum"])
        return f"paid {arguments['sum']}"


def box(*tools: Any, **terms: Terms) -> Toolbox:
    return Toolbox(tools, terms=terms)


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
async def doors(rooms: Rooms) -> AsyncIterator[Doors]:
    async with open_doors(rooms) as opened:
        opened.house.tools = Toolmaker(NodeTools()).builtin()
        yield opened


def hosts(rooms: Rooms, name: str, toolbox: Toolbox) -> None:
    rooms.hosts(replace(an_agent(name), toolbox=toolbox))


async def execute(doors: Doors, **body: Any) -> tuple[int, Any]:
    async with doors.http.post("/v1/tools/execute", json=body) as response:
        return response.status, orjson.loads(await response.read())


async def test_builtin_tools_are_listed_with_what_they_take(doors: Doors) -> None:
    status, listed = await doors.get("/v1/tools/builtin")
    assert (status, listed["count"]) == (200, len(BUILTIN_TOOLS))
    assert [tool["name"] for tool in listed["tools"]] == sorted(BUILTIN_TOOLS)
    for tool in listed["tools"]:
        assert (tool["type"], tool["agents"]) == ("builtin", [])
        assert tool["description"]
        assert tool["parameters"]["type"] == "object"


async def test_tools_of_agents_are_listed_with_whose_they_are_and_refused_ones_are_not(doors: Doors, rooms: Rooms) -> None:
    hosts(
        rooms, "desk", box(Till(), DatetimeNow(), Till("secret"), pay=Terms(kind="webhook"), secret=Terms(kind="webhook", refused="denied"))
    )
    hosts(rooms, "bar", box(Till(), pay=Terms(kind="internal")))
    _, listed = await doors.get("/v1/tools")
    assert [(tool["name"], tool["type"], tool["agents"]) for tool in listed["tools"]] == [
        ("datetime_now", "builtin", ["desk"]),
        ("http_request", "builtin", []),
        ("json_transform", "builtin", []),
        ("pay", "internal", ["bar"]),
        ("pay", "webhook", ["desk"]),
    ]
    assert listed["count"] == 5


async def test_a_builtin_tool_is_called_without_an_agent(doors: Doors) -> None:
    status, body = await execute(doors, tool_name="json_transform", arguments={"data": {"a": 3}, "expression": "a"})
    assert (status, body) == (200, {"tool": "json_transform", "result": "3", "status": "ok"})


async def test_an_agents_tool_is_called_on_its_terms(doors: Doors, rooms: Rooms) -> None:
    till = Till()
    hosts(rooms, "desk", box(till, pay=Terms(kind="internal", rate=CallRate(1, 3600.0))))
    assert await execute(doors, tool_name="pay", arguments={"sum": 5}) == (200, {"tool": "pay", "result": "paid 5", "status": "ok"})
    status, body = await execute(doors, tool_name="pay", arguments={"sum": 6}, agent="desk")
    assert (status, body["status"]) == (200, "error")
    assert "at most 1 calls" in body["result"]
    hosts(rooms, "desk", box(till, pay=Terms(kind="internal", dry_run=True)))
    assert (await execute(doors, tool_name="pay", arguments={"sum": 7}))[1]["status"] == "dry_run"
    hosts(rooms, "desk", box(till, pay=Terms(kind="internal", refused="denied")))
    assert (await execute(doors, tool_name="pay", arguments={"sum": 8}))[1]["status"] == "error"
    assert till.paid == [5]


async def test_a_tool_that_fails_says_why(doors: Doors, rooms: Rooms) -> None:
    hosts(rooms, "desk", box(Till()))
    assert await execute(doors, tool_name="pay", arguments={"sum": -1}) == (
        200,
        {"tool": "pay", "result": "a sum is above zero", "status": "error"},
    )


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        ({"tool_name": "fly"}, 404, "tool_not_found", "no agent of here has a tool 'fly'"),
        ({"tool_name": "datetime_now", "agent": "desk"}, 404, "tool_not_found", "agent desk has no tool 'datetime_now'"),
        ({"tool_name": "pay", "agent": "nobody"}, 404, "agent_not_found", "agent nobody is not on here"),
        ({"tool_name": "pay", "arguments": {"sum": 1}}, 422, "invalid_request", "several agents have a tool 'pay': bar, desk"),
        ({"tool_name": "pay", "agent": "desk", "arguments": {"sum": "x"}}, 422, "invalid_request", 'sum: "x" is not of type "integer"'),
        ({"tool_name": "pay", "agent": "desk"}, 422, "invalid_request", '"sum" is a required property'),
        ({"arguments": {}}, 422, "invalid_request", "tool_name is missing"),
        ({"tool_name": "pay", "arguments": []}, 422, "invalid_request", "arguments"),
        ({"tool_name": "pay", "argument": {}}, 422, "invalid_request", "argument is no key of this route"),
    ],
)
async def test_what_cannot_be_called_is_a_problem_with_a_code_and_a_hint(
    doors: Doors, rooms: Rooms, body: dict[str, Any], status: int, code: str, said: str
) -> None:
    hosts(rooms, "desk", box(Till()))
    hosts(rooms, "bar", box(Till()))
    answered, problem = await execute(doors, **body)
    assert (answered, problem["code"]) == (status, code)
    assert said in problem["detail"]
    assert problem["hint"]

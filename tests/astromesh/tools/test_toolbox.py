"""A toolbox answers every call, in order, whatever the tools do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from astromesh.dialogue import ToolCall, ToolSchema
from astromesh.tools import toolbox as toolbox_module
from astromesh.tools.port import ToolFailed
from astromesh.tools.toolbox import CALLS_AT_ONCE_MAX, RESULT_CHARACTERS_MAX, Toolbox


class Echo:
    """Says what it was given. Its calls wait for each other, so that calls in a row would never end."""

    schema = ToolSchema("echo", "Says it again.", {"type": "object"})

    def __init__(self, *, together: int = 1) -> None:
        self._all_here = asyncio.Barrier(together)

    async def call(self, arguments: Mapping[str, Any]) -> str:
        async with self._all_here:
            return str(arguments.get("say", ""))


class Moody:
    schema = ToolSchema("moody", "Fails as it is told.", {"type": "object"})

    async def call(self, arguments: Mapping[str, Any]) -> str:
        match arguments.get("mood"):
            case "declared":
                raise ToolFailed("no such city; try Rome")
            case "undeclared":
                raise KeyError("/home/secret")
            case "deaf":
                await asyncio.Event().wait()
            case "long":
                return "x" * (RESULT_CHARACTERS_MAX + 1)
        return "fine"


def echo(number: int) -> ToolCall:
    return ToolCall(f"c{number}", "echo", f'{{"say": "{number}"}}')


async def answers(box: Toolbox, *calls: ToolCall) -> list[str]:
    return [message.content for message in await box.call(calls)]


async def test_calls_go_out_side_by_side_and_answers_come_in_the_order_of_the_calls() -> None:
    box = Toolbox([Echo(together=3)])
    async with asyncio.timeout(10):
        messages = await box.call((echo(1), echo(2), echo(3)))
    assert [(message.role, message.tool_call_id, message.content) for message in messages] == [
        ("tool", "c1", "1"),
        ("tool", "c2", "2"),
        ("tool", "c3", "3"),
    ]


async def test_more_calls_than_can_go_out_at_once_are_answered_with_an_error_that_says_so() -> None:
    messages = await Toolbox([Echo()]).call(tuple(echo(number) for number in range(CALLS_AT_ONCE_MAX + 2)))
    assert [message.content for message in messages[:CALLS_AT_ONCE_MAX]] == [str(number) for number in range(CALLS_AT_ONCE_MAX)]
    assert {message.content for message in messages[CALLS_AT_ONCE_MAX:]} == {
        f"error: not called, at most {CALLS_AT_ONCE_MAX} tools can be called at once"
    }


async def test_a_tool_that_does_not_exist_is_answered_with_those_that_do() -> None:
    box = Toolbox([Moody(), Echo()])
    assert await answers(box, ToolCall("c1", "fly", "{}")) == ["error: there is no tool 'fly'; there are: echo, moody"]
    assert await answers(Toolbox([]), ToolCall("c1", "fly", "{}")) == ["error: there is no tool 'fly'; there are: none"]


@pytest.mark.parametrize("arguments", ["{", "[" * 100_000, "NaN(", '{"a": 1} trailing'])
async def test_arguments_that_are_not_json_are_answered_with_an_error(arguments: str) -> None:
    (said,) = await answers(Toolbox([Echo()]), ToolCall("c1", "echo", arguments))
    assert said.startswith("error: the arguments are not JSON")


@pytest.mark.parametrize("arguments", ["[]", "1", "null", '"say"'])
async def test_arguments_must_be_an_object(arguments: str) -> None:
    assert await answers(Toolbox([Echo()]), ToolCall("c1", "echo", arguments)) == ["error: the arguments must be one JSON object"]


async def test_no_arguments_at_all_are_an_empty_object() -> None:
    assert await answers(Toolbox([Moody()]), ToolCall("c1", "moody", "")) == ["fine"]


async def test_a_failure_that_a_tool_declares_goes_to_the_model_and_another_only_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    said = await answers(
        Toolbox([Moody()]), ToolCall("c1", "moody", '{"mood": "declared"}'), ToolCall("c2", "moody", '{"mood": "undeclared"}')
    )
    assert said == ["error: no such city; try Rome", "error: moody failed"]
    assert "/home/secret" in caplog.text


async def test_a_tool_that_does_not_answer_in_its_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolbox_module, "CALL_TIMEOUT_S", 0.01)
    (said,) = await answers(Toolbox([Moody()]), ToolCall("c1", "moody", '{"mood": "deaf"}'))
    assert said.startswith("error: moody did not answer within")


async def test_a_result_is_cut_where_it_would_flood_the_prompt() -> None:
    (said,) = await answers(Toolbox([Moody()]), ToolCall("c1", "moody", '{"mood": "long"}'))
    assert said == "x" * RESULT_CHARACTERS_MAX + "\n[cut]"


async def test_a_run_that_is_cancelled_takes_its_tools_along() -> None:
    box = Toolbox([Moody()])
    task = asyncio.create_task(box.call((ToolCall("c1", "moody", '{"mood": "deaf"}'),)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

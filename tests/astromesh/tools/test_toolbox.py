"""A toolbox answers every call, in order, whatever the tools do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from astromesh.dialogue import ToolCall, ToolSchema
from astromesh.errors import PeerLost
from astromesh.tools import toolbox as toolbox_module
from astromesh.tools.port import BadArguments, ToolFailed
from astromesh.tools.terms import CallRate, Terms
from astromesh.tools.toolbox import ARGUMENTS_CHARACTERS_MAX, CALLS_AT_ONCE_MAX, GIVEN_UP_MAX, Toolbox


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
                return "x" * 41
            case "leaving":
                raise SystemExit(3)
            case "cancelling":
                raise asyncio.CancelledError
            case "lost":
                raise PeerLost("the node of agent till went away")
            case "surrogate":
                return "a\ud800b"
        return "fine"


class Stubborn:
    """Goes on whatever is said to it, until the test is over."""

    schema = ToolSchema("stubborn", "Does not let itself be cancelled.", {"type": "object"})

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.called = 0

    async def call(self, arguments: Mapping[str, Any]) -> str:
        self.called += 1
        while not self.over.is_set():
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                continue
        return "at last"


class Counted:
    """Takes a city, and counts who asks."""

    schema = ToolSchema(
        "weather",
        "The weather.",
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
    )

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def call(self, arguments: Mapping[str, Any]) -> str:
        self.asked.append(arguments["city"])
        return "sunny"


def weather(arguments: str = '{"city": "Rome"}') -> ToolCall:
    return ToolCall("w", "weather", arguments)


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


async def test_arguments_beyond_the_limit_are_not_even_parsed() -> None:
    (said,) = await answers(Toolbox([Echo()]), ToolCall("c1", "echo", "[" * (ARGUMENTS_CHARACTERS_MAX + 1)))
    assert (
        said
        == f"error: not called, the arguments have {ARGUMENTS_CHARACTERS_MAX + 1} characters, and {ARGUMENTS_CHARACTERS_MAX} are possible"
    )


async def test_no_arguments_at_all_are_an_empty_object() -> None:
    assert await answers(Toolbox([Moody()]), ToolCall("c1", "moody", "")) == ["fine"]


async def test_a_failure_that_a_tool_declares_goes_to_the_model_and_of_another_the_place_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = await answers(
        Toolbox([Moody()]), ToolCall("c1", "moody", '{"mood": "declared"}'), ToolCall("c2", "moody", '{"mood": "undeclared"}')
    )
    assert said == ["error: no such city; try Rome", "error: moody failed"]
    assert "KeyError at" in caplog.text
    assert f"{__file__}:" in caplog.text
    assert "/home/secret" not in caplog.text


@pytest.mark.parametrize("mood", ["leaving", "cancelling"])
async def test_a_tool_that_would_end_the_program_or_the_run_ends_itself_alone(mood: str) -> None:
    said = await answers(Toolbox([Moody(), Echo()]), ToolCall("c1", "moody", f'{{"mood": "{mood}"}}'), echo(2))
    assert said == ["error: moody failed", "2"]


async def test_a_failure_of_the_mesh_is_told_with_its_reason() -> None:
    said = await answers(Toolbox([Moody()]), ToolCall("c1", "moody", '{"mood": "lost"}'))
    assert said == ["error: moody: the node of agent till went away"]


async def test_a_tool_that_does_not_answer_in_its_time_is_given_up() -> None:
    box = Toolbox([Moody()], terms={"moody": Terms(timeout_s=0.01)})
    assert await answers(box, ToolCall("c1", "moody", '{"mood": "deaf"}')) == ["error: moody did not answer within 0.01 s"]


async def test_a_tool_that_swallows_its_cancellation_is_left_behind_and_not_called_without_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(toolbox_module, "LAST_WORD_S", 0.01)
    stubborn = Stubborn()
    box = Toolbox([stubborn, Moody()], terms={"stubborn": Terms(timeout_s=0.01)})
    try:
        for _ in range(GIVEN_UP_MAX):
            assert await answers(box, ToolCall("c1", "stubborn", "{}")) == ["error: stubborn did not answer within 0.01 s"]
        (said,) = await answers(box, ToolCall("c1", "stubborn", "{}"))
        assert said.startswith("error: not called, earlier calls of tools do not end")
        assert stubborn.called == GIVEN_UP_MAX
        assert "stubborn goes on although it was given up" in caplog.text
    finally:
        stubborn.over.set()
    async with asyncio.timeout(10):
        while await answers(box, ToolCall("c1", "moody", "{}")) != ["fine"]:
            await asyncio.sleep(0)


async def test_a_result_is_cut_where_it_would_flood_the_prompt() -> None:
    box = Toolbox([Moody()], terms={"moody": Terms(result_tokens_max=10)})
    (said,) = await answers(box, ToolCall("c1", "moody", '{"mood": "long"}'))
    assert said == "x" * 40 + "\n[cut: the first 40 of 41 characters; ask for less at once]"


async def test_what_utf8_cannot_say_is_replaced_before_it_reaches_a_model() -> None:
    assert await answers(Toolbox([Moody()]), ToolCall("c1", "moody", '{"mood": "surrogate"}')) == ["a?b"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{}", '"city" is a required property'),
        ('{"city": 7}', 'city: 7 is not of type "string"'),
        ('{"city": "Rome", "town": 1}', "Additional properties are not allowed ('town' was unexpected)"),
    ],
)
async def test_arguments_that_do_not_fit_reach_no_tool_and_are_answered_with_what_was_expected(arguments: str, said: str) -> None:
    tool = Counted()
    assert await answers(Toolbox([tool]), weather(arguments)) == [f"error: not called, the arguments do not fit: {said}"]
    assert tool.asked == []


async def test_a_call_by_hand_tells_bad_arguments_from_a_failure() -> None:
    box = Toolbox([Counted(), Moody()])
    assert await box.execute("weather", {"city": "Rome"}) == "sunny"
    with pytest.raises(BadArguments):
        await box.execute("weather", {"city": 7})
    with pytest.raises(ToolFailed) as failed:
        await box.execute("moody", {"mood": "declared"})
    assert not isinstance(failed.value, BadArguments)


async def test_a_tool_that_is_refused_is_neither_offered_nor_called() -> None:
    tool = Counted()
    box = Toolbox([tool, Echo()], terms={"weather": Terms(refused="spec.permissions.denied_actions has weather")})
    assert [schema.name for schema in box.schemas] == ["echo"]
    said = await answers(box, weather(), ToolCall("c1", "fly", "{}"))
    assert said[0].startswith("error: not called, this agent is not permitted to use weather")
    assert said[1] == "error: there is no tool 'fly'; there are: echo"
    assert tool.asked == []


async def test_in_a_dry_run_arguments_are_checked_and_nothing_is_called() -> None:
    tool = Counted()
    box = Toolbox([tool], terms={"weather": Terms(dry_run=True)})
    said = await answers(box, weather(), weather('{"city": 7}'))
    assert said[0].startswith("dry run: weather was not called, and nothing happened")
    assert "7 is not of type" in said[1]
    assert [schema.name for schema in box.schemas] == ["weather"]
    assert tool.asked == []


async def test_calls_beyond_the_rate_are_refused_with_the_time_to_wait_and_misfits_do_not_count() -> None:
    tool = Counted()
    box = Toolbox([tool], terms={"weather": Terms(rate=CallRate(2, 3600.0))})
    said = await answers(box, weather("{}"), weather(), weather(), weather())
    assert said[1:3] == ["sunny", "sunny"]
    assert said[3].startswith("error: not called, at most 2 calls of weather in 3600 s; again in 3")
    assert tool.asked == ["Rome", "Rome"]


@pytest.mark.parametrize(
    ("calls", "waits"),
    [
        ([0.0, 1.0, 2.0], [0.0, 0.0, 8.0]),
        ([0.0, 1.0, 10.0, 10.5, 11.0], [0.0, 0.0, 0.0, 0.5, 0.0]),
        ([0.0, 9.0, 10.0, 19.0, 20.0], [0.0, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_a_rate_looks_at_any_window_and_a_refused_call_does_not_count(calls: list[float], waits: list[float]) -> None:
    rate = CallRate(2, 10.0)
    assert [rate.take(now) for now in calls] == waits


async def test_a_box_that_holds_others_keeps_its_terms() -> None:
    class Other(Counted):
        async def call(self, arguments: Mapping[str, Any]) -> str:
            return "rain"

    box = Toolbox([Counted()], terms={"weather": Terms(rate=CallRate(2, 3600.0))})
    other = box.holding([Other()])
    assert await answers(other, weather()) == ["rain"]
    assert await answers(box, weather()) == ["sunny"]
    (said,) = await answers(other, weather())
    assert "at most 2 calls" in said


async def test_a_run_that_is_cancelled_takes_its_tools_along() -> None:
    box = Toolbox([Moody()])
    task = asyncio.create_task(box.call((ToolCall("c1", "moody", '{"mood": "deaf"}'),)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

"""Expressions over JSON, within bounds that hold whatever the expression is."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from astromesh.tools.backends import json_transform
from astromesh.tools.backends.json_transform import DATA_BYTES_MAX, JsonTransform
from astromesh.tools.port import ToolFailed

PEOPLE = {"people": [{"name": "Ada", "age": 36}, {"name": "Åke", "age": 20}]}


async def transformed(data: Any, expression: str) -> Any:
    return orjson.loads(await JsonTransform().call({"data": data, "expression": expression}))


@pytest.mark.parametrize(
    ("data", "expression", "result"),
    [
        (PEOPLE, "people[?age > `30`].name", ["Ada"]),
        (PEOPLE, "people[].{who: name}", [{"who": "Ada"}, {"who": "Åke"}]),
        (PEOPLE, "sum(people[].age)", 56),
        (PEOPLE, "nothing.at.all", None),
        ('{"a": [1, 2]}', "a[1]", 2),
        ("just text", "length(@)", 9),
        (3, "@", 3),
    ],
)
async def test_an_expression_selects_and_reshapes(data: Any, expression: str, result: Any) -> None:
    assert await transformed(data, expression) == result


@pytest.mark.parametrize("expression", ["people[", "nofunction(@)", "sum(people)", "people[?]"])
async def test_a_mistake_in_the_expression_is_told(expression: str) -> None:
    with pytest.raises(ToolFailed, match=r"the expression cannot be used: ."):
        await transformed(PEOPLE, expression)


@pytest.mark.parametrize("step", ["[@,@][]", "[@,@]", "join('',[to_string(@),to_string(@)])"])
async def test_an_expression_that_doubles_its_result_again_and_again_is_ended(step: str) -> None:
    with pytest.raises(ToolFailed, match="select less"):
        await transformed([1, 2, 3], "|".join([step] * 60))


async def test_data_beyond_the_limit_is_not_taken() -> None:
    with pytest.raises(ToolFailed, match="give it a part"):
        await transformed("x" * DATA_BYTES_MAX, "@")


async def test_a_result_beyond_the_limit_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_transform, "RESULT_BYTES_MAX", 100)
    with pytest.raises(ToolFailed, match="more than 100 bytes"):
        await transformed(list(range(200)), "@")


async def test_a_call_that_is_cancelled_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[asyncio.subprocess.Process] = []
    begun = asyncio.Event()
    create = asyncio.create_subprocess_exec

    async def remembered(*arguments: Any, **how: Any) -> asyncio.subprocess.Process:
        started.append(await create(*arguments, **how))
        begun.set()
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remembered)
    task = asyncio.create_task(transformed([1, 2, 3], "|".join(["[@,@]"] * 60)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert started[0].returncode is not None

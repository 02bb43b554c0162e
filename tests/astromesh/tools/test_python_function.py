"""Python functions as tools: their schema, their arguments, where they may come from, and what they may not do to a node."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Optional

import orjson
import pytest
from tests.rig.eventually import eventually

from astromesh.dialogue import ToolCall
from astromesh.tools.backends import threads as threads_module
from astromesh.tools.backends.python_function import FunctionUnusable, PythonFunction, find
from astromesh.tools.backends.threads import Threads
from astromesh.tools.port import BadArguments, ToolFailed
from astromesh.tools.terms import Terms
from astromesh.tools.toolbox import Toolbox


class Unit(StrEnum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


@dataclass
class Place:
    lat: float
    lon: float = 0.0


def made(function: Callable[..., Any], *, threads: Threads | None = None, description: str | None = None) -> PythonFunction:
    return PythonFunction(function, name=function.__name__, threads=threads or Threads(), description=description)


def forecast(
    city: str,
    days: int = 3,
    fine: bool = False,
    unit: Literal["c", "f"] = "c",
    tags: Optional[list[str]] = None,  # noqa: UP045  as people write it
    limits: dict[str, float] | None = None,
) -> dict[str, Any]:
    """The weather of a city.

    Args:
        city: its name in English
        days: how many
    """
    return {"city": city, "days": days, "fine": fine, "unit": unit, "tags": tags, "limits": limits}


def test_a_schema_is_read_from_the_signature_and_the_docstring() -> None:
    schema = made(forecast).schema
    assert (schema.name, schema.description) == ("forecast", "The weather of a city.")
    texts = {"anyOf": [{"items": {"type": "string"}, "type": "array"}, {"type": "null"}], "default": None}
    numbers = {"anyOf": [{"additionalProperties": {"type": "number"}, "type": "object"}, {"type": "null"}], "default": None}
    assert schema.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "its name in English"},
            "days": {"type": "integer", "default": 3, "description": "how many"},
            "fine": {"type": "boolean", "default": False},
            "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
            "tags": texts,
            "limits": numbers,
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    assert made(forecast, description="Rain or shine.").schema.description == "Rain or shine."


async def test_arguments_arrive_as_what_the_annotations_say_and_defaults_are_the_functions_own() -> None:
    def seen(unit: Unit, place: Place, model_config: str = "own", schema: Any = None) -> str:
        return f"{type(unit).__name__} {place.lat + place.lon} {model_config} {schema}"

    assert await made(seen).call({"unit": "celsius", "place": {"lat": 1.5}, "schema": [1]}) == "Unit 1.5 own [1]"


async def test_an_argument_that_cannot_be_converted_is_told_with_its_place() -> None:
    def seen(place: Place) -> str:
        return ""

    with pytest.raises(BadArguments, match=r"not called, place\.lat: "):
        await made(seen).call({"place": {"lat": "north"}})


async def test_an_async_function_is_awaited_in_the_nodes_own_thread_and_another_in_one_of_its_own() -> None:
    async def near() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    def far() -> str:
        return threading.current_thread().name

    assert await made(near).call({}) == threading.current_thread().name
    assert await made(far).call({}) == "tool far"


def takes_anything(*values: int) -> None: ...
def takes_more(**values: int) -> None: ...
def takes_in_order(value: int, /) -> None: ...
def takes_a_lock(lock: threading.Lock) -> None: ...
def takes_the_unknown(value: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037


@pytest.mark.parametrize("function", [takes_anything, takes_more, takes_in_order, takes_a_lock, takes_the_unknown])
def test_a_signature_that_no_model_could_fill_is_refused_with_a_reason(function: Callable[..., Any]) -> None:
    with pytest.raises(FunctionUnusable) as refused:
        made(function)
    assert function.__name__ in refused.value.message
    assert refused.value.hint


# Where functions come from.


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("shop"):
            del sys.modules[name]


def test_a_function_comes_from_a_module_that_the_node_lists(modules: Path) -> None:
    (modules / "shop_stock.py").write_text("def count(item: str) -> int:\n    return len(item)\n")
    assert find("shop_stock:count", "count", modules=("shop_stock",))("tea") == 3


@pytest.mark.parametrize("listed", [(), ("shop",), ("shop_stock.inner",)])
def test_a_module_that_is_not_listed_is_not_even_imported(modules: Path, listed: tuple[str, ...]) -> None:
    (modules / "shop_stock.py").write_text("raise SystemExit('imported')\n")
    with pytest.raises(FunctionUnusable) as refused:
        find("shop_stock:count", "count", modules=listed)
    assert refused.value.message == "functions of shop_stock may not be called: the module is not listed"
    assert "spec.tools.modules: [shop_stock]" in refused.value.hint
    assert "shop_stock" not in sys.modules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def f(:\n", "SyntaxError"),
        ("import sys; sys.exit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(modules: Path, text: str, said: str) -> None:
    (modules / "shop_broken.py").write_text(text)
    with pytest.raises(FunctionUnusable) as refused:
        find("shop_broken:count", "count", modules=("shop_broken",))
    assert refused.value.message.startswith(f"module shop_broken cannot be imported: {said}")


@pytest.mark.parametrize("name", ["missing", "VALUE", "Kind"])
def test_what_is_no_function_is_named(modules: Path, name: str) -> None:
    (modules / "shop_things.py").write_text("VALUE = 3\nclass Kind: ...\n")
    with pytest.raises(FunctionUnusable, match=f"no function '{name}'"):
        find(f"shop_things:{name}", name, modules=("shop_things",))


def test_an_installed_package_offers_its_functions_without_being_listed(modules: Path) -> None:
    (modules / "shop_package.py").write_text("def count(item: str) -> int:\n    return len(item)\n")
    info = modules / "shop_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-package\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[astromesh.tools]\nstock_count = shop_package:count\n")
    assert find(None, "stock_count", modules=())("tea") == 3
    assert find("shop_package:count", "count", modules=())("tea") == 3
    with pytest.raises(FunctionUnusable, match="no installed package offers a tool 'count'"):
        find(None, "count", modules=())


# What functions may not do to a node.


async def test_a_function_that_ends_the_program_ends_its_call_alone() -> None:
    def leave() -> None:
        sys.exit(3)

    async def leave_too() -> None:
        sys.exit(3)

    box = Toolbox([made(leave), made(leave_too)])
    said = await box.call((ToolCall("1", "leave", ""), ToolCall("2", "leave_too", "")))
    assert [message.content for message in said] == ["error: leave failed", "error: leave_too failed"]


async def test_what_a_function_raises_to_say_so_goes_to_the_model() -> None:
    def refuse() -> None:
        raise ToolFailed("no such city; try Rome")

    with pytest.raises(ToolFailed, match="try Rome"):
        await made(refuse).call({})


async def test_functions_that_never_return_take_their_threads_along_and_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads_module, "TURN_TIMEOUT_S", 0.01)
    over = threading.Event()

    def block() -> str:
        over.wait()
        return "at last"

    threads = Threads(2)
    box = Toolbox([made(block, threads=threads)], terms={"block": Terms(timeout_s=0.05)})
    call = ToolCall("1", "block", "")
    try:
        said = [message.content for message in await box.call((call, call, call))]
        assert sorted(said) == [
            "error: block did not answer within 0.05 s",
            "error: block did not answer within 0.05 s",
            "error: not called, all 2 threads for Python functions are taken by calls that do not end; try again later",
        ]
        assert "function block goes on in its thread" in caplog.text
        assert sum(thread.name == "tool block" and thread.daemon for thread in threading.enumerate()) == 2
    finally:
        over.set()

    async def called() -> bool:
        return [message.content for message in await box.call((call,))] == ["at last"]

    await eventually(called, 1.0, what="a thread is free again")


async def test_blocking_functions_run_side_by_side_and_their_answers_keep_the_order_of_the_calls() -> None:
    together = threading.Barrier(3)

    def wait(number: int) -> int:
        together.wait(timeout=30)
        return number

    box = Toolbox([made(wait)])
    said = await box.call(tuple(ToolCall(str(number), "wait", orjson.dumps({"number": number}).decode()) for number in (3, 1, 2)))
    assert [message.content for message in said] == ["3", "1", "2"]

"""What the doors take in: JSON, of bounded size, of a bounded number of values, from whom they should."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest
from tests.rig.doors import Doors, open_doors
from tests.rig.rooms import Rooms, an_agent

from astromesh.api import bodies
from astromesh.api.bodies import BODY_BYTES_MAX, VALUES_MAX
from astromesh.providers.backends.scripted import Scripted

JSON = {"Content-Type": "application/json"}
RUN = "/v1/agents/desk/run"


@pytest.fixture
def rooms() -> Rooms:
    rooms = Rooms()
    rooms.hosts(an_agent(provider=Scripted(["Yes."] * 9)))
    rooms.has(Scripted(["Yes."] * 9))
    return rooms


@pytest.fixture
async def doors(rooms: Rooms) -> AsyncIterator[Doors]:
    async with open_doors(rooms) as opened:
        yield opened


async def post(doors: Doors, raw: bytes, *, path: str = RUN, headers: dict[str, str] | None = None) -> tuple[int, str]:
    async with doors.http.post(path, data=raw, headers=JSON | (headers or {})) as response:
        body = orjson.loads(await response.read())
        return response.status, body.get("code", "")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"query": "half', b"nonsense", b"[]", b"7", b"null", b'"query"', b'{"query": "\xff"}', b"[" * 5000]
)
async def test_what_is_not_one_json_object_is_400(doors: Doors, raw: bytes) -> None:
    assert await post(doors, raw) == (400, "malformed_body")


@pytest.mark.parametrize("declared", ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"])
async def test_what_is_not_declared_as_json_is_415(doors: Doors, declared: str) -> None:
    assert await post(doors, b'{"query": "Hello"}', headers={"Content-Type": declared}) == (415, "unsupported_media_type")


@pytest.mark.parametrize("path", [RUN, "/v1/mesh/join"])
@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}])
async def test_pages_of_others_are_403(doors: Doors, path: str, headers: dict[str, str]) -> None:
    assert await post(doors, b'{"query": "Hello"}', path=path, headers=headers) == (403, "foreign_origin")


async def test_pages_of_others_may_not_read_either(doors: Doors) -> None:
    assert (await doors.get("/v1/health", headers={"Host": "evil.example"}))[0] == 403
    async with doors.http.options(RUN, headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}) as response:
        assert response.status == 403
        assert not [name for name in response.headers if name.lower().startswith("access-control")]


async def test_a_host_that_is_none_is_403_and_not_a_mistake_of_ours(doors: Doors) -> None:
    assert (await doors.get("/v1/health", headers={"Host": "[::1"}))[0] == 403


async def test_the_nodes_own_name_is_let_in_however_it_is_written(doors: Doors) -> None:
    assert (await doors.get("/v1/health", headers={"Host": "LAB:8000"}))[0] == 200


async def test_a_body_of_more_than_ten_mebibytes_is_413(doors: Doors) -> None:
    assert BODY_BYTES_MAX == 10 * 2**20
    assert await post(doors, orjson.dumps({"query": "x" * BODY_BYTES_MAX})) == (413, "body_too_large")


async def test_a_body_just_below_is_taken_without_being_counted(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_COUNTER", None)
    assert (await post(doors, orjson.dumps({"query": "x" * (BODY_BYTES_MAX - 100)})))[0] == 200


def large(context: object) -> bytes:
    """A body of more than one MiB."""
    return orjson.dumps({"query": "x" * 2**20, "context": {"it": context}})


@pytest.mark.parametrize(
    "context",
    [
        pytest.param([{"a": [number]} for number in range(VALUES_MAX // 2)], id="nested"),
        pytest.param(list(range(VALUES_MAX)), id="flat"),
        pytest.param([[]] * VALUES_MAX, id="empty"),
        pytest.param([', "', '\\", '] * VALUES_MAX, id="strings that look like their ends"),
    ],
)
async def test_a_large_body_of_more_than_20_000_values_is_413(doors: Doors, context: object) -> None:
    assert VALUES_MAX == 20_000
    assert await post(doors, large(context)) == (413, "too_many_values")


async def test_a_smaller_body_of_as_many_values_is_413_too(doors: Doors) -> None:
    raw = b'{"query": "Hello", "context": {"it": [' + b"[]," * VALUES_MAX + b"1]}}"
    assert len(raw) < 100_000
    assert await post(doors, raw) == (413, "too_many_values")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("one, two, " * 100_000, id="commas"),
        pytest.param('{"a": [1, 2], "b": {}}' * 50_000, id="JSON as text"),
        pytest.param(r"\"," * 300_000, id="backslashes and quotes"),
    ],
)
async def test_a_large_text_full_of_punctuation_is_taken(doors: Doors, text: str) -> None:
    assert (await post(doors, large(text)))[0] == 200


async def test_a_large_body_of_exactly_as_many_values_as_are_allowed_is_taken(doors: Doors) -> None:
    # Keys count as values do, and so does every container: 4 pairs' worth of them are around the list.
    around = 1 + 2 * 3 + 1
    assert (await post(doors, large([7] * (VALUES_MAX - around))))[0] == 200


@pytest.mark.parametrize(
    "raw", [b'{"q": "' + b'a,\\"' * 700_000, b'{"q": "' + b"," * 30_000 + b"\\" * 1_100_001, b'"' * 1_100_001 + b"," * 30_000]
)
async def test_a_large_text_without_an_end_is_counted_without_going_back_and_is_no_json(doors: Doors, raw: bytes) -> None:
    assert await post(doors, raw) == (400, "malformed_body")


async def test_a_counter_that_does_not_come_to_an_end_is_a_refusal(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "COUNTING_TIMEOUT_S", 0.0)
    assert await post(doors, large("one, two, " * 100_000)) == (413, "too_many_values")


async def test_when_several_large_bodies_are_being_counted_the_next_one_is_told_to_come_back(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(bodies.COUNTING_AT_ONCE_MAX):
        await bodies._counting.acquire()
    try:
        assert await post(doors, large("one, two, " * 100_000)) == (429, "overloaded")
    finally:
        for _ in range(bodies.COUNTING_AT_ONCE_MAX):
            bodies._counting.release()

"""The routes of the gossip's keys: fingerprints in, fingerprints out, and a refusal for what would cut members off."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.rig.doors import Doors, Membership, open_doors
from tests.rig.key_members import KeyMembers, shown
from tests.rig.mesh_view import member, mesh_view
from tests.rig.rooms import Rooms

from astromesh.service.keys import ClusterKeys
from maia.keyring import Keyring, fingerprint_of, keyring_text, text_of

OLD, NEW = b"o" * 32, b"n" * 32
OLD_NAME, NEW_NAME = fingerprint_of(OLD), fingerprint_of(NEW)
CHANGES = ("install", "use", "remove")


@pytest.fixture
def rooms() -> Rooms:
    rooms = Rooms()
    rooms.view = mesh_view(member("b-000001"))
    return rooms


@pytest.fixture
def them() -> KeyMembers:
    return KeyMembers({name: Keyring((OLD,)) for name in ("a", "b", "c")}, me="a")


@pytest.fixture
async def sealed(rooms: Rooms, them: KeyMembers, tmp_path: Path) -> AsyncIterator[Doors]:
    file = tmp_path / "keys"
    file.write_text(keyring_text(them.rings["a"]))
    file.chmod(0o600)
    keys = ClusterKeys(file, driver=lambda: them, label=str, members=str)
    async with open_doors(rooms, mesh=Membership(keys=keys)) as opened:
        yield opened
    await keys.close()


async def told(doors: Doors, operation: str, body: Any) -> tuple[int, Any, str]:
    async with doors.http.post(f"/v1/mesh/keys/{operation}", json=body) as response:
        raw = await response.read()
        return response.status, orjson.loads(raw), raw.decode()


async def test_the_list_names_each_key_and_what_each_member_said(sealed: Doors, them: KeyMembers) -> None:
    them.rings["b"], them.silent = Keyring((OLD, NEW)), ["c"]
    assert await sealed.get("/v1/mesh/keys") == (
        200,
        {
            "sealed": True,
            "keys": [
                {"fingerprint": OLD_NAME, "held_by": ["a", "b"], "lacked_by": [], "primary_of": ["a", "b"]},
                {"fingerprint": NEW_NAME, "held_by": ["b"], "lacked_by": ["a"], "primary_of": []},
            ],
            "nodes": [
                {"name": "a", "answered": True, "ok": True, "message": "", "keys": [OLD_NAME], "primary": OLD_NAME},
                {"name": "b", "answered": True, "ok": True, "message": "", "keys": [OLD_NAME, NEW_NAME], "primary": OLD_NAME},
                {"name": "c", "answered": False, "ok": False, "message": "", "keys": [], "primary": None},
            ],
            "hint": "",
        },
    )


async def test_a_rotation_goes_through_three_routes_and_no_answer_has_a_key(
    sealed: Doors, them: KeyMembers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = [await told(sealed, "install", {"generate": True})]
    new = answers[0][1]["fingerprint"]
    answers += [await told(sealed, "use", {"fingerprint": new}), await told(sealed, "remove", {"fingerprint": OLD_NAME})]
    assert [(status, body["operation"], body["complete"]) for status, body, _ in answers] == [
        (200, "install", True),
        (200, "use", True),
        (200, "remove", True),
    ]
    (left,) = {ring.keys for ring in them.rings.values()}
    assert [fingerprint_of(key) for key in left] == [new]
    _, listed = await sealed.get("/v1/mesh/keys")
    assert shown((OLD, *left), "".join((*(raw for _, _, raw in answers), str(listed), caplog.text))) == []


async def test_a_key_that_is_sent_is_installed_and_does_not_come_back(sealed: Doors, them: KeyMembers) -> None:
    status, body, raw = await told(sealed, "install", {"key": text_of(NEW)})
    assert (status, body["fingerprint"], shown((NEW,), raw)) == (200, NEW_NAME, [])
    assert them.rings["c"] == Keyring((OLD, NEW))


@pytest.mark.parametrize(("operation", "said"), [("use", "c lacks it"), ("remove", "a and b seal with it")])
async def test_what_would_cut_members_off_is_409_with_what_to_do_and_force_does_it(
    sealed: Doors, them: KeyMembers, operation: str, said: str
) -> None:
    them.rings |= {"a": Keyring((NEW, OLD)), "b": Keyring((NEW, OLD))}
    status, body, _ = await told(sealed, operation, {"fingerprint": NEW_NAME})
    assert (status, body["code"]) == (409, "keys_refused")
    assert said in body["detail"]
    assert "astromesh-node keys" in body["hint"]
    assert operation not in them.asked
    status, body, _ = await told(sealed, operation, {"fingerprint": NEW_NAME, "force": True})
    assert (status, body["complete"]) == (200, False)
    assert operation in them.asked


async def test_a_change_that_some_did_not_make_says_who(sealed: Doors, them: KeyMembers) -> None:
    them.silent, them.failing = ["b"], {"c": "disk full"}
    status, body, _ = await told(sealed, "install", {"generate": True})
    assert (status, body["complete"], body["confirmed"]) == (200, False, ["a"])
    assert (body["failed"], body["unanswered"]) == ([{"node": "c", "message": "disk full"}], ["b"])


async def test_a_key_that_nobody_has_is_404(sealed: Doors) -> None:
    status, body, _ = await told(sealed, "use", {"fingerprint": "0" * 8})
    assert (status, body["code"]) == (404, "key_not_found")


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"fingerprint": "xyz"},
        {"fingerprint": text_of(OLD)},
        {"key": text_of(OLD)[:-8]},
        {"key": text_of(OLD) * 2},
        {"key": "no base64: " + text_of(OLD)[:20]},
        {"key": text_of(OLD), "fingerprint": OLD_NAME},
        {"key": [text_of(OLD)]},
        {"keys": text_of(OLD)},
    ],
)
async def test_what_cannot_be_meant_is_422_and_repeats_no_key(
    sealed: Doors, them: KeyMembers, operation: str, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    status, answer, raw = await told(sealed, operation, body)
    assert (status, answer["code"]) == (422, "invalid_request")
    assert text_of(OLD)[:12] not in raw + caplog.text
    assert them.asked == []


async def test_generate_and_a_key_together_are_422(sealed: Doors) -> None:
    assert (await told(sealed, "install", {"generate": True, "fingerprint": OLD_NAME}))[0] == 422


async def test_a_mesh_in_the_clear_lists_no_keys_and_says_how_it_gets_some(rooms: Rooms) -> None:
    async with open_doors(rooms, mesh=Membership()) as doors:
        status, body = await doors.get("/v1/mesh/keys")
        assert (status, body["sealed"], body["keys"]) == (200, False, [])
        assert "in the clear" in body["hint"]
        assert "--keyring-file" in body["hint"]
        for operation in CHANGES:
            status, body, _ = await told(doors, operation, {"fingerprint": OLD_NAME})
            assert (status, body["code"]) == (409, "keys_refused")
            assert "--keyring-file" in body["hint"]


async def test_without_a_mesh_there_are_no_keys(rooms: Rooms) -> None:
    async with open_doors(rooms) as doors:
        assert (await doors.get("/v1/mesh/keys"))[0] == 503
        for operation in CHANGES:
            assert (await told(doors, operation, {"fingerprint": OLD_NAME}))[0] == 503


async def test_what_the_mesh_warns_of_stands_among_the_warnings_of_the_node(rooms: Rooms) -> None:
    mesh = Membership()
    async with open_doors(rooms, mesh=mesh) as doors:
        doors.house.warnings = ("a file has a mistake",)
        mesh.warned = ("a key is missing",)
        _, body = await doors.get("/v1/system/status")
        assert body["warnings"] == ["a file has a mistake", "a key is missing"]


async def test_the_description_keeps_keys_out_of_sight(sealed: Doors) -> None:
    _, document = await sealed.get("/openapi.json")
    for name in ("InstallBody", "ForceBody"):
        (key, _) = document["components"]["schemas"][name]["properties"]["key"]["anyOf"]
        assert (key["format"], key["writeOnly"]) == ("password", True)

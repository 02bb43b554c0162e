"""What a node measured of its models outlives it: routing and requirements have it at once, and a broken file harms nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.astromesh.api.test_model_routes import CONTENT, House, post, pulled
from tests.rig.eventually import eventually

from astromesh.fleet.offers import OfferedModel
from astromesh.runtime.assembly import Providers
from astromesh.service.speeds import KEPT_MAX, SpeedFile
from astromesh.specs.runtime import Runtime

MODEL = "ab" * 32


async def written(path: Path, content: object) -> None:
    async def there() -> bool:
        return path.exists() and json.loads(path.read_text()) == content

    await eventually(there, 1.0)


async def test_what_was_measured_is_known_in_the_next_life_by_model_and_engine(tmp_path: Path) -> None:
    speeds = SpeedFile(tmp_path / "data")
    assert speeds.of(MODEL, engine="one") is None
    speeds.note(MODEL, 51.234, engine="one")
    speeds.note(MODEL, 9.0, engine="other")
    speeds.note(MODEL, 52.0, engine="one")
    await written(tmp_path / "data" / "speeds.json", {f"{MODEL} other": 9.0, f"{MODEL} one": 52.0})
    again = SpeedFile(tmp_path / "data")
    assert (again.of(MODEL, engine="one"), again.of(MODEL, engine="other"), again.of("cd" * 32, engine="one")) == (52.0, 9.0, None)

    async def nothing_else() -> bool:
        return [path.name for path in (tmp_path / "data").iterdir()] == ["speeds.json"]

    await eventually(nothing_else, 1.0)


async def test_only_the_models_that_were_measured_last_are_kept(tmp_path: Path) -> None:
    speeds = SpeedFile(tmp_path)
    for number in range(KEPT_MAX + 1):
        speeds.note(f"{number:064x}", 1.0 + number, engine="one")
    assert speeds.of(f"{0:064x}", engine="one") is None

    async def all_there() -> bool:
        found = SpeedFile(tmp_path)
        return [found.of(f"{number:064x}", engine="one") for number in (0, 1, KEPT_MAX)] == [None, 2.0, 1.0 + KEPT_MAX]

    await eventually(all_there, 1.0)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"x": "fast", "y": -1, "z": NaN, "w": true, "v": 1e300}', "\x00\xff"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "speeds.json").write_text(content)
    speeds = SpeedFile(tmp_path)
    assert [speeds.of(name, engine="") for name in ("x", "y", "z", "w", "v")] == [None] * 5


async def test_a_folder_that_cannot_be_written_costs_the_memory_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    speeds = SpeedFile(tmp_path / "data")
    speeds.note(MODEL, 50.0, engine="one")

    async def told() -> bool:
        return "measures speeds again" in caplog.text

    await eventually(told, 1.0)
    assert speeds.of(MODEL, engine="one") == 50.0


async def test_a_node_that_comes_back_offers_and_plans_with_what_it_measured_before(tmp_path: Path) -> None:
    (tmp_path / "Tiny.gguf").write_bytes(CONTENT)
    house = House(tmp_path)
    async with house.doors() as doors:
        await pulled(doors, tmp_path / "Tiny.gguf")
        assert house.local.offered()[0].tok_s is None
        await post(doors, "/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]})
        identity = house.local.offered()[0].identity

    async def kept() -> bool:
        return (tmp_path / "speeds.json").exists()

    await eventually(kept, 1.0)
    again = House(tmp_path)
    again.installed.open(Runtime.unwritten(), providers=Providers({}), health=again.rooms.health)
    async with again.doors() as doors:
        assert again.local.offered() == (OfferedModel("tiny", "on_disk", identity, again.local.offered()[0].capabilities, tok_s=50.0),)
        measured = again.rooms.models.local["tiny"].tok_s
        assert measured is not None
        assert measured() == 50.0
        _, row = await doors.get("/v1/models/tiny")
        assert (row["nodes"][0]["tok_s"], row["here"]["plan"]["tok_s"]) == (50.0, 50.0)
        await post(doors, "/v1/models/tiny/load")

        async def loaded() -> bool:
            return again.local.offered()[0].state == "loaded"

        await eventually(loaded, 1.0)
        assert again.local.offered()[0].tok_s == 50.0

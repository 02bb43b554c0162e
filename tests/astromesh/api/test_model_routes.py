"""The models of the node that is asked, over HTTP: pulled, shown, planned, loaded, unloaded, removed."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.astromesh.inference.gguf_files import a_gguf
from tests.rig.doors import Doors, SentEvent, open_doors, sent_events
from tests.rig.eventually import eventually
from tests.rig.hub_double import HubDouble, running
from tests.rig.rooms import Rooms
from tests.rig.sleepy_engine import SleepyEngine

from astromesh.api.house import PullProgress
from astromesh.cli.program import program
from astromesh.dialogue import Message, ModelRequest
from astromesh.inference import registry
from astromesh.inference.devices import Inventory
from astromesh.inference.registry import Packaged, RegisteredFile, RegisteredModel
from astromesh.runtime import own_model
from astromesh.runtime.assembly import Providers
from astromesh.runtime.local_models import LocalModels
from astromesh.runtime.own_model import FoundModel
from astromesh.service.models import InstalledModels
from astromesh.service.settings import NodeSettings, settle
from astromesh.service.shelf import Shelf
from astromesh.specs.runtime import Runtime, RuntimeSpec

CONTENT = a_gguf(context=2048)
HI = [{"role": "user", "content": "Hi"}]


class Installed(InstalledModels):
    """Its engines answer at once, or when they are told to."""

    answers = True
    loads = True

    def __init__(self, root: Path, *, local: LocalModels, rooms: Rooms) -> None:
        plenty = Inventory(memory_total_bytes=10**12, memory_free_bytes=10**12)
        super().__init__(_settings(root), local=local, models=rooms.models, survey=lambda: plenty)
        self.engines: list[SleepyEngine] = []

    def _engine(self, found: FoundModel) -> SleepyEngine:
        self.engines.append(SleepyEngine(found.specification, on_change=self.local.changed, answers=self.answers, loads=self.loads))
        return self.engines[-1]


class House:
    """A node's shelf behind its doors."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rooms = Rooms()
        self.local = LocalModels(lambda: None, free_bytes=lambda: 10**12)
        self.installed = Installed(root, local=self.local, rooms=self.rooms)
        self.shelf = Shelf(self.installed)

    @asynccontextmanager
    async def doors(self) -> AsyncIterator[Doors]:
        async with open_doors(self.rooms, shelf=self.shelf) as doors:
            doors.house.model_rows = self.local.rows
            yield doors
        await self.shelf.close()
        await self.local.close()


def _settings(root: Path) -> NodeSettings:
    return settle(
        flags={"models_dir": str(root / "models"), "memory_budget_mb": "4000"},
        environment={},
        runtime=Runtime.unwritten(),
        folder=root,
        data_default=root,
        hostname="here",
    ).values


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "Tiny.gguf"
    path.write_bytes(CONTENT)
    return path


async def pulled(doors: Doors, source: object, **more: object) -> list[SentEvent]:
    async with doors.http.post("/v1/models/pull", json={"source": str(source), **more}) as response:
        assert response.status == 200, await response.text()
        return [event async for event in sent_events(response)]


async def post(doors: Doors, path: str, body: object = None) -> tuple[int, Any]:
    async with doors.http.post(path, json=body) as response:
        return response.status, await response.json(content_type=None)


async def test_a_pulled_model_is_there_at_once_and_loaded_when_asked_for(house: House, file: Path) -> None:
    async with house.doors() as doors:
        events = await pulled(doors, file)
        assert (events[-1].event, events[-1].data["node"], events[-1].data["model"]["name"]) == ("done", "here", "tiny")
        _, row = await doors.get("/v1/models/tiny")
        assert (row["nodes"][0]["state"], row["here"]["sha256"]) == ("on_disk", hashlib.sha256(CONTENT).hexdigest())
        assert row["here"]["plan"]["fits"] is True
        status, answer = await post(doors, "/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]})
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "Yes")
        _, row = await doors.get("/v1/models/tiny")
        assert (row["nodes"][0]["state"], row["nodes"][0]["tok_s"]) == ("loaded", 50.0)


@pytest.mark.parametrize("stream", [False, True])
async def test_who_asks_for_a_model_that_is_loading_is_told_when_to_come_back(
    house: House, file: Path, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    monkeypatch.setattr(own_model, "LOADING_PATIENCE_S", 0.01)
    house.installed.loads = False
    async with house.doors() as doors:
        await pulled(doors, file)
        asked = {"model": "tiny", "messages": HI, "stream": stream}
        async with doors.http.post("/v1/chat/completions", json=asked) as response:
            body = await response.json(content_type=None)
            assert (response.status, body["error"]["code"]) == (503, "model_unavailable"), body
            assert int(response.headers["Retry-After"]) >= 1
        assert (await doors.get("/v1/ready?model=tiny"))[0] == 503
        house.installed.engines[0].let()

        async def answered() -> bool:
            return (await post(doors, "/v1/chat/completions", {"model": "tiny", "messages": HI}))[0] == 200

        await eventually(answered, 1.0)


async def test_what_a_model_has_read_of_conversations_shows_as_warm(house: House, file: Path) -> None:
    async with house.doors() as doors:
        await pulled(doors, file)
        await post(doors, "/v1/chat/completions", {"model": "tiny", "messages": HI})
        (row,) = (await doors.get("/v1/models"))[1]["data"]
        assert row["nodes"][0]["warm"] is False
        house.installed.engines[0].warmth = b"salt and digests"
        (row,) = (await doors.get("/v1/models"))[1]["data"]
        assert row["nodes"][0]["warm"] is True
        listed = await asyncio.to_thread(CliRunner().invoke, program, ["models", "list", "--url", doors.url])
        assert listed.exit_code == 0, listed.stderr
        assert [column.strip() for column in listed.stdout.splitlines()[1].split("  ") if column.strip()][:3] == [
            "tiny",
            "loaded, warm",
            "here",
        ]


async def test_a_dry_run_says_what_it_takes_and_loads_nothing(house: House, file: Path) -> None:
    async with house.doors() as doors:
        await pulled(doors, file)
        status, plan = await post(doors, "/v1/models/tiny/load", {"dry_run": True, "context": 1000})
        assert (status, plan["node"], plan["fits"], plan["state"], plan["context"]) == (200, "here", True, "on_disk", 1000)
        # Three layers of two heads of sixteen values, key and value, two bytes each, for two contexts of 1,000 tokens.
        assert plan["placement"]["cache_bytes"] == 3 * 2 * 16 * 2 * 2 * 2 * 1000
        assert plan["budget_bytes"] == 4_000_000_000
        assert house.installed.engines == []
        status, refused = await post(doors, "/v1/models/tiny/load", {"context": 1000})
        assert (status, refused["param"]) == (422, "context")


async def test_loaded_then_unloaded_and_removed(house: House, file: Path) -> None:
    async with house.doors() as doors:
        await pulled(doors, file)
        status, answer = await post(doors, "/v1/models/tiny/load")
        assert (status, answer["model"]["state"]) == (202, "loading")

        async def loaded() -> bool:
            return (await doors.get("/v1/models/tiny"))[1]["nodes"][0]["state"] == "loaded"

        await eventually(loaded, 1.0)
        async with doors.http.delete("/v1/models/tiny") as response:
            body = await response.json(content_type=None)
            assert (response.status, body["code"], "--force" in body["hint"]) == (409, "model_busy", True)
        status, answer = await post(doors, "/v1/models/tiny/unload")
        assert (status, answer["model"]["state"]) == (200, "on_disk")
        async with doors.http.delete("/v1/models/tiny") as response:
            assert response.status == 200
        assert (await doors.get("/v1/models/tiny"))[0] == 404
        assert file.exists()


async def test_what_is_loaded_is_removed_by_force(house: House, file: Path) -> None:
    async with house.doors() as doors:
        await pulled(doors, file)
        await post(doors, "/v1/models/tiny/load")
        async with doors.http.delete("/v1/models/tiny?force=true") as response:
            assert response.status == 200
        assert house.local.rows() == []
        assert house.rooms.models.local == {}


async def test_nothing_is_unloaded_under_a_reader_unless_by_force(house: House, file: Path) -> None:
    house.installed.answers = False
    async with house.doors() as doors:
        await pulled(doors, file)
        stream = house.local.own("tiny").complete(ModelRequest("tiny", (Message("user", "Hi"),)), timeout_s=30)
        async with aclosing(stream):
            await anext(stream)
            status, body = await post(doors, "/v1/models/tiny/unload")
            assert (status, body["code"]) == (409, "model_busy")
            assert (await post(doors, "/v1/models/tiny/unload", {"force": True}))[0] == 200


async def test_a_model_that_is_elsewhere_is_not_this_nodes_to_load(house: House) -> None:
    async with house.doors() as doors:
        for path in ("/v1/models/far/load", "/v1/models/far/unload"):
            status, body = await post(doors, path)
            assert (status, body["code"]) == (404, "model_not_found")
        async with doors.http.delete("/v1/models/far") as response:
            assert response.status == 404
        status, body = await post(doors, "/v1/models/pull", {"source": "gpt-17"})
        assert (status, body["code"]) == (422, "model_store")


@pytest.fixture
def hub() -> HubDouble:
    return HubDouble(a_gguf() + bytes(200_000), arrived=10**9)


async def test_a_pull_that_fails_on_its_way_says_why_in_its_stream(house: House, hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.hang_after, hub.linked = 60_000, "0" * 64
    with running(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.base)
        async with house.doors() as doors, doors.http.post("/v1/models/pull", json={"source": "hf:acme/tiny:tiny.gguf"}) as response:
            events = sent_events(response)
            assert (await anext(events)).event == "progress"
            hub.hang_after = None
            hub.go_on.set()
            last = [event async for event in events][-1]
            assert (last.event, last.data["code"]) == ("error", "model_store")
            assert hub.digest in last.data["message"]


async def test_two_who_pull_the_same_are_one_pull_and_it_ends_with_the_last_of_them(
    house: House, hub: HubDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.hang_after = 60_000
    with running(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.base)
        async with house.doors() as doors:
            first = asyncio.create_task(pulled(doors, "hf:acme/tiny:tiny.gguf"))
            second = asyncio.create_task(pulled(doors, "hf:acme/tiny:tiny.gguf"))
            assert await asyncio.to_thread(hub.sends.wait, 10)
            first.cancel()
            await asyncio.wait([first])
            hub.hang_after = None
            hub.go_on.set()
            events = await second
            assert events[-1].data["model"]["size_bytes"] == len(hub.content)
            assert (
                sum(asked.path.endswith("tiny.gguf") and asked.path.startswith("/acme") for asked in hub.asked) == 2
            )  # begun, gone on with
            assert hub.sent == len(hub.content)


async def test_a_pull_that_nobody_waits_for_ends_and_is_gone_on_with(house: House, hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.hang_after = 60_000
    with running(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.base)
        async with house.doors() as doors:
            lonely = asyncio.create_task(pulled(doors, "hf:acme/tiny:tiny.gguf"))
            part = house.installed.store.root / "incoming" / "tiny" / "model.part"

            async def came() -> bool:
                return part.exists() and part.stat().st_size > 0

            await eventually(came, 1.0)
            lonely.cancel()

            async def ended() -> bool:
                return not any(thread.name.startswith("pull") and house.shelf._pulls for thread in threading.enumerate())

            await eventually(ended, 1.0)
            hub.hang_after = None
            hub.go_on.set()
            events = await pulled(doors, "hf:acme/tiny:tiny.gguf")
            assert events[-1].event == "done"
            assert hub.asked[-1].range != ""


# By other names.

ENTRY = RegisteredModel(
    name="tiny",
    aliases=("tiny:latest",),
    kind="gguf",
    files=(RegisteredFile("model", hashlib.sha256(CONTENT).hexdigest(), (Packaged("p", "1", "p", "p", len(CONTENT), 1),)),),
    licence="",
    template="",
    about="",
)
PINNED = f"tiny@sha256:{ENTRY.sha256[:12]}"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, house: House) -> None:
    """Installed under a registered name, as a pull of it would."""
    house.installed.store.pull(write(house.root / "Tiny.gguf"))
    monkeypatch.setattr(registry, "MODELS", (ENTRY,))


def write(path: Path, content: bytes = CONTENT) -> str:
    path.write_bytes(content)
    return str(path)


def configured(house: House, **model: object) -> None:
    spec = RuntimeSpec.model_validate({"inference": {"models": [model]}})
    house.installed.open(replace(Runtime.unwritten(), spec=spec), providers=Providers({}), health=house.rooms.health)


@pytest.mark.usefixtures("registered")
async def test_an_alias_and_a_pinned_name_mean_the_model_in_every_verb(house: House) -> None:
    house.installed.open(Runtime.unwritten(), providers=Providers({}), health=house.rooms.health)
    async with house.doors() as doors:
        for name in ("tiny:latest", PINNED, "TINY"):
            assert (await doors.get(f"/v1/models/{name}"))[1]["here"]["name"] == "tiny"
            assert (await post(doors, f"/v1/models/{name}/load", {"dry_run": True}))[1]["model"] == "tiny"
            status, answer = await post(doors, f"/v1/models/{name}/load")
            assert (status, answer["model"]["name"]) == (202, "tiny")
            status, answer = await post(doors, "/v1/chat/completions", {"model": name, "messages": HI})
            assert (status, answer["choices"][0]["message"]["content"]) == (200, "Yes"), answer
            assert (await doors.get(f"/v1/ready?model={name}"))[0] == 200
            async with doors.http.delete(f"/v1/models/{name}") as response:
                assert (response.status, (await response.json(content_type=None))["code"]) == (409, "model_busy")
            assert (await post(doors, f"/v1/models/{name}/unload"))[0] == 200
        assert [row["name"] for row in house.local.rows()] == ["tiny"]
        async with doors.http.delete("/v1/models/tiny:latest") as response:
            assert response.status == 200
        assert (house.local.rows(), house.installed.store.list()) == ([], ())


@pytest.mark.usefixtures("registered")
async def test_a_name_pinned_to_another_digest_means_no_model_here(house: House) -> None:
    house.installed.open(Runtime.unwritten(), providers=Providers({}), health=house.rooms.health)
    async with house.doors() as doors:
        other = "tiny@sha256:" + "0" * 12
        for verb in ("load", "unload"):
            status, answer = await post(doors, f"/v1/models/{other}/{verb}")
            assert (status, answer["code"]) == (404, "model_not_found")
            assert ENTRY.sha256 in answer["detail"]
        status, answer = await post(doors, f"/v1/models/{other}/load", {"dry_run": True})
        assert (status, answer["code"]) == (404, "model_not_found")
        status, answer = await post(doors, "/v1/chat/completions", {"model": other, "messages": HI})
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert ENTRY.sha256[:12] in answer["error"]["message"]
        async with doors.http.delete(f"/v1/models/{other}") as response:
            assert response.status == 404
        assert [model.name for model in house.installed.store.list()] == ["tiny"]


@pytest.mark.usefixtures("registered")
async def test_a_model_that_is_configured_under_another_name_is_shown_planned_and_removed_by_it(house: House) -> None:
    configured(house, name="chat", pull="tiny", context=1000, parallel=1)
    async with house.doors() as doors:
        status, answer = await post(doors, "/v1/chat/completions", {"model": "chat", "messages": HI})
        assert status == 200, answer
        here = (await doors.get("/v1/models/chat"))[1]["here"]
        assert (here["sha256"], here["plan"]["context"], here["plan"]["state"]) == (ENTRY.sha256, 1000, "loaded")
        status, plan = await post(doors, "/v1/models/chat/load", {"dry_run": True})
        assert (status, plan["model"], plan["parallel"]) == (200, "chat", 1)
        assert (await pulled(doors, "chat"))[-1].data["model"]["sha256"] == ENTRY.sha256
        assert [row["name"] for row in house.local.rows()] == ["chat"]
        for name in ("chat", "tiny"):  # the files are those of both
            async with doors.http.delete(f"/v1/models/{name}") as response:
                assert (response.status, (await response.json(content_type=None))["code"]) == (409, "model_busy"), name
        assert (await post(doors, "/v1/models/chat/unload"))[0] == 200
        async with doors.http.delete("/v1/models/chat") as response:
            assert response.status == 200
        assert (house.local.rows(), house.installed.store.list()) == ([], ())


async def test_a_model_whose_file_was_moved_away_is_shown_with_that_and_removed(house: House, file: Path) -> None:
    async with house.doors() as doors:
        await pulled(doors, file)
        await post(doors, "/v1/models/tiny/unload")
        await house.local.forget("tiny")  # as in a node that found it so at its start
        del house.rooms.models.local["tiny"]
        file.rename(file.with_name("elsewhere.gguf"))
        status, row = await doors.get("/v1/models/tiny")
        assert (status, "cannot be read" in row["here"]["problem"]) == (200, True)
        async with doors.http.delete("/v1/models/tiny") as response:
            assert response.status == 200
        assert house.installed.store.problems() == ()
        status, answer = await post(doors, "/v1/models/tiny/load", {"dry_run": True})
        assert (status, answer["code"]) == (404, "model_not_found")


async def test_a_pull_that_begins_while_one_that_was_left_ends_waits_for_it_and_begins_anew(
    house: House, hub: HubDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wanted() -> PullProgress | dict[str, Any]:
        async with aclosing(house.shelf.pull("hf:acme/tiny:tiny.gguf", name=None, sha256="")) as steps:
            return [step async for step in steps][-1]

    hub.hang_after = 60_000
    with running(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.base)
        async with house.doors():
            lonely = asyncio.create_task(wanted())
            assert await asyncio.to_thread(hub.sends.wait, 10)
            (left,) = house.shelf._pulls.values()
            lonely.cancel()
            while not left.enough.is_set():
                await asyncio.sleep(0)
            again = asyncio.create_task(wanted())
            await asyncio.sleep(0)  # it has found the other one
            hub.hang_after = None
            hub.go_on.set()
            installed = await again
            assert isinstance(installed, dict)
            assert installed["size_bytes"] == len(hub.content)

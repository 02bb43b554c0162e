"""A node's own models: loaded when asked for, unloaded when nobody asks, and never under a reader."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from time import monotonic

import pytest
from tests.rig.eventually import eventually
from tests.rig.sleepy_engine import SleepyEngine

from astromesh.dialogue import Message, ModelReply, ModelRequest, TextDelta
from astromesh.errors import AstromeshError, MissingExtra, ModelBusy, ModelFailed, ModelUnavailable, StoreError, UnknownModel
from astromesh.fleet.offers import OfferedModel
from astromesh.inference.port import ModelSpecification, Progress
from astromesh.runtime import local_models, own_model
from astromesh.runtime.local_models import LocalModels, MemoryRules
from astromesh.runtime.own_model import FoundModel

GB = 1_000_000_000
IDENTITY = "ab" * 32


def request(model: str) -> ModelRequest:
    return ModelRequest(model, (Message("user", "Hello"),))


class House:
    """A node's own models over engines that do what the test says."""

    def __init__(self, *, budget_gb: float = 10.0, idle_s: float = 0.0, strict: bool = False, free_gb: float = 100.0) -> None:
        self.free = int(free_gb * GB)
        self.changes = 0
        self.local = LocalModels(self._changed, free_bytes=lambda: self.free)
        self.local.rules = MemoryRules(int(budget_gb * GB), idle_s, strict=strict)
        self.engines: dict[str, list[SleepyEngine]] = {}

    def _changed(self) -> None:
        self.changes += 1

    def has(
        self,
        name: str,
        *,
        gb: float = 1.0,
        named: bool = False,
        loads: bool = True,
        answers: bool = True,
        fails: AstromeshError | None = None,
        missing: AstromeshError | None = None,
        breaks: Exception | None = None,
    ) -> None:
        found = FoundModel(ModelSpecification(name, Path("/m"), IDENTITY), needed_bytes=int(gb * GB), size_bytes=int(gb * GB))

        def find(_progress: Progress) -> FoundModel:
            if missing is not None:
                raise missing
            return found

        def build(model: FoundModel) -> SleepyEngine:
            engine = SleepyEngine(model.specification, on_change=self._changed, loads=loads, answers=answers, fails=fails)
            engine.breaks = breaks
            self.engines.setdefault(name, []).append(engine)
            return engine

        self.local.add_own(name, find, engine=build, named=named, found=found)

    def state(self, name: str) -> str:
        return next(row["state"] for row in self.local.rows() if row["name"] == name)

    async def ask(self, name: str) -> ModelReply:
        async with aclosing(self.local.own(name).complete(request(name), timeout_s=30)) as stream:
            events = [event async for event in stream]
        assert isinstance(events[-1], ModelReply)
        return events[-1]


async def test_a_model_on_disk_is_loaded_by_whoever_asks_first_and_once() -> None:
    house = House()
    house.has("m")
    assert house.state("m") == "on_disk"
    assert house.local.offered() == (OfferedModel("m", "on_disk", IDENTITY),)
    replies = await asyncio.gather(house.ask("m"), house.ask("m"))
    assert [reply.text for reply in replies] == ["Yes", "Yes"]
    assert [engine.starts for engine in house.engines["m"]] == [1]
    assert house.state("m") == "loaded"
    assert house.local.offered()[0].kernel == "0123456789abcdef"
    await house.local.close()


async def test_who_waits_longer_than_patience_is_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_model, "LOADING_PATIENCE_S", 0.01)
    house = House()
    house.has("m", gb=2.0, loads=False)
    with pytest.raises(ModelUnavailable, match="still loading on this node") as told:
        await house.ask("m")
    assert 10 < told.value.retry_after_s <= 21  # 2 GB at 100 MB/s
    row = house.local.rows()[0]
    assert (row["state"], row["progress"]) == ("loading", 0.0)
    assert 10 < row["eta_s"] <= 21
    house.engines["m"][0].let()
    monkeypatch.undo()
    assert (await house.ask("m")).text == "Yes"
    assert len(house.engines["m"]) == 1
    await house.local.close()


async def test_who_has_less_time_than_patience_is_told_before_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_model, "LOADING_SHARE", 0.001)
    house = House()
    house.has("m", loads=False)
    own = house.local.own("m")
    with pytest.raises(ModelUnavailable, match="still loading on this node"):
        async with asyncio.timeout(5), aclosing(own.complete(request("m"), timeout_s=20)) as stream:
            await anext(stream)
    await house.local.close()


async def test_the_least_recently_used_makes_room() -> None:
    house = House(budget_gb=2.0)
    for name in ("a", "b", "c"):
        house.has(name)
    await house.ask("a")
    await house.ask("b")
    await house.ask("a")
    await house.ask("c")
    assert {name: house.state(name) for name in ("a", "b", "c")} == {"a": "loaded", "b": "on_disk", "c": "loaded"}
    await house.local.close()


async def test_a_model_that_somebody_reads_from_never_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_models, "ROOM_PATIENCE_S", 0.0)
    house = House(budget_gb=1.5, idle_s=1.0)
    house.has("a", answers=False)
    house.has("b")
    stream = house.local.own("a").complete(request("a"), timeout_s=30)
    assert await anext(stream) == TextDelta("Yes")
    with pytest.raises(ModelUnavailable, match="finds no room in memory: busy are a"):
        await house.ask("b")
    assert "busy are a" in house.local.rows()[1]["refused"]
    await house.local.tidy(now=monotonic() + 1000)
    with pytest.raises(ModelBusy, match="answering 1 requests"):
        await house.local.own("a").unload()
    assert (house.state("a"), house.state("b")) == ("loaded", "on_disk")
    house.engines["a"][0].answer()
    assert [type(event) async for event in stream] == [ModelReply]
    assert (await house.ask("b")).text == "Yes"
    assert house.state("a") == "on_disk"
    await house.local.close()


async def test_who_finds_no_room_waits_for_the_first_who_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_models, "ROOM_LOOK_S", 0.001)
    house = House(budget_gb=1.5)
    house.has("a", answers=False)
    house.has("b")
    first = asyncio.create_task(house.ask("a"))
    await loaded(house, "a")
    second = asyncio.create_task(house.ask("b"))
    while house.state("b") != "loading":
        await asyncio.sleep(0)
    assert "b" not in house.engines
    house.engines["a"][0].answer()
    assert [(await one).text for one in (first, second)] == ["Yes", "Yes"]
    assert (house.state("a"), house.state("b")) == ("on_disk", "loaded")
    await house.local.close()


async def test_what_nobody_asked_for_displaces_nobody() -> None:
    house = House(budget_gb=1.5)
    for name in ("a", "b"):
        house.has(name)
        house.local.at_start.append(name)
    house.local.open()
    await loaded(house, "a")
    await settled(house, "b")
    assert (house.state("a"), house.state("b")) == ("loaded", "on_disk")
    assert "refused" not in house.local.rows()[1]
    assert (await house.ask("b")).text == "Yes"  # now somebody does
    assert house.state("a") == "on_disk"
    await house.local.close()


async def test_a_model_larger_than_the_budget_says_so_with_the_knob() -> None:
    house = House(budget_gb=1.0)
    house.has("m", gb=5.0)
    with pytest.raises(ModelFailed, match=r"needs 5,000 MB of memory, and models may take 1,000 MB") as told:
        await house.ask("m")
    assert (told.value.definite, "memory_budget_mb" in told.value.hint) == (True, True)
    assert house.state("m") == "on_disk"  # it is not broken: with more room it would load


@pytest.mark.parametrize(("strict", "state"), [(False, "loaded"), (True, "on_disk")])
async def test_what_the_configuration_names_is_bound_only_by_a_budget_that_was_written_down(strict: bool, state: str) -> None:
    house = House(budget_gb=1.0, strict=strict)
    house.has("m", gb=5.0, named=True)
    house.local.at_start.append("m")
    house.local.open()
    await settled(house, "m")
    assert house.state("m") == state
    await house.local.close()


async def test_memory_that_others_took_is_told_and_not_taken() -> None:
    house = House(free_gb=0.5)
    house.has("m")
    with pytest.raises(ModelUnavailable, match="500 MB are free on this machine"):
        await house.ask("m")
    house.free = 2 * GB
    assert (await house.ask("m")).text == "Yes"
    await house.local.close()


async def test_what_nobody_asks_for_is_unloaded_and_loaded_again() -> None:
    house = House(idle_s=60.0)
    house.has("m")
    await house.ask("m")
    now = monotonic()
    await house.local.tidy(now=now + 59)
    assert house.state("m") == "loaded"
    await house.local.tidy(now=now + 61)
    assert house.state("m") == "on_disk"
    await house.ask("m")
    assert len(house.engines["m"]) == 2
    await house.local.close()


async def test_who_is_asked_or_forgotten_while_another_idle_model_goes_is_let_be() -> None:
    house = House(idle_s=60.0)
    for name in ("a", "b", "c", "d"):
        house.has(name, answers=name != "b")
        house.local.own(name).load()
        await loaded(house, name)
    house.engines["a"][0].keep_open()
    tidying = asyncio.create_task(house.local.tidy(now=monotonic() + 61))
    await house.engines["a"][0].closing.wait()
    reader = asyncio.create_task(house.ask("b"))
    await house.engines["b"][0].asked.wait()
    await house.local.forget("c")
    house.engines["a"][0].let_go()
    await tidying
    assert {row["name"]: row["state"] for row in house.local.rows()} == {"a": "on_disk", "b": "loaded", "d": "on_disk"}
    house.engines["b"][0].answer()
    assert (await reader).text == "Yes"
    await house.local.close()


async def test_a_mistake_while_tidying_is_logged_and_tidying_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local_models, "TIDY_S", 0.001)
    house = House(idle_s=1e-9)
    house.has("m", breaks=RuntimeError("the pipe is gone"))
    house.local.open()
    await house.ask("m")
    await seen(lambda: "the pipe is gone" in caplog.text)
    house.has("n")
    await house.ask("n")
    await seen(lambda: house.state("n") == "on_disk")
    house.engines["m"][0].breaks = None
    await house.local.close()


async def test_who_wanted_to_make_room_looks_again_when_the_next_to_go_is_asked_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_models, "ROOM_LOOK_S", 0.001)
    house = House(budget_gb=2.0)
    house.has("a")
    house.has("b", answers=False)
    house.has("c", gb=2.0)
    for name in ("a", "b"):
        house.local.own(name).load()
        await loaded(house, name)
    house.engines["a"][0].keep_open()
    large = asyncio.create_task(house.ask("c"))
    await house.engines["a"][0].closing.wait()
    reader = asyncio.create_task(house.ask("b"))
    await house.engines["b"][0].asked.wait()
    house.engines["a"][0].let_go()
    await seen(lambda: house.state("a") == "on_disk")
    assert not large.done()
    house.engines["b"][0].answer()
    assert [(await one).text for one in (reader, large)] == ["Yes", "Yes"]
    await house.local.close()


async def test_a_model_given_up_after_it_was_loaded_takes_no_room_any_more() -> None:
    house = House(budget_gb=1.5)
    for name in ("a", "b"):
        house.has(name)
    await house.ask("a")
    house.engines["a"][0].give_up("its worker died five times")
    assert (house.state("a"), house.local.residents()) == ("on_disk", ())
    assert house.local.leaving_for("b", GB) == ()
    await house.local.close()


async def test_a_model_that_cannot_be_loaded_is_not_tried_again_by_requests_but_by_a_person() -> None:
    house = House()
    house.has("m", fails=ModelFailed("no room for its cells", code="model_provider_unavailable", definite=True))
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="no room for its cells") as told:
            await house.ask("m")
    assert "models load m" in told.value.hint
    assert len(house.engines["m"]) == 1
    assert house.local.offered() == ()
    assert house.local.rows()[0]["error"] == "no room for its cells"
    house.local.own("m").load()
    await settled(house, "m")
    assert len(house.engines["m"]) == 2


async def test_a_model_that_lacks_nothing_but_an_engine_is_offered_so_that_whoever_asks_is_told_the_command() -> None:
    house = House()
    house.has("m", fails=MissingExtra("this node has no engine", hint="pip install one"))
    with pytest.raises(ModelUnavailable, match="this node has no engine: pip install one"):
        await house.ask("m")
    assert house.local.offered() == (OfferedModel("m", "on_disk", IDENTITY),)
    assert house.local.rows()[0]["error"] == "this node has no engine: pip install one"


async def test_a_file_that_changed_on_disk_is_not_loaded() -> None:
    house = House()
    house.has("m", missing=StoreError("model m cannot be used: /m has changed since it was registered"))
    with pytest.raises(ModelUnavailable, match="has changed since it was registered"):
        await house.ask("m")
    assert house.engines == {}


async def test_a_model_can_be_unloaded_while_it_loads() -> None:
    house = House()
    house.has("m", loads=False)
    house.local.own("m").load()
    while not house.engines:
        await asyncio.sleep(0)
    await house.local.own("m").unload()
    assert house.state("m") == "on_disk"
    assert house.local.residents() == ()


async def test_a_download_that_was_not_wanted_any_more_ends_at_its_next_word() -> None:
    at_it, ended = threading.Event(), threading.Event()

    def find(progress: Progress) -> FoundModel:
        at_it.set()
        try:
            while True:
                progress(1, 4, "downloading")
        except AstromeshError:
            ended.set()
            raise

    local = LocalModels(lambda: None)
    local.add_own("m", find, engine=lambda _: pytest.fail("it was never found"))
    local.own("m").load()
    assert await asyncio.to_thread(at_it.wait, 10)
    row = local.rows()[0]
    assert (row["state"], row["doing"], row["progress"]) == ("loading", "downloading", 0.25)
    await local.close()
    assert await asyncio.to_thread(ended.wait, 10)


async def test_the_speed_of_answers_is_offered_in_round_figures() -> None:
    house = House()
    house.has("m")
    await house.ask("m")
    assert house.local.offered()[0].tok_s == 50.0
    changes = house.changes
    house.engines["m"][0].tok_s = 55.0
    await house.ask("m")
    assert (house.local.offered()[0].tok_s, house.local.rows()[0]["tok_s"], house.changes) == (50.0, 51.0, changes)
    house.engines["m"][0].tok_s = 200.0
    await house.ask("m")
    assert house.local.offered()[0].tok_s == 81.0
    await house.local.close()


async def test_what_is_warm_is_offered() -> None:
    house = House()
    house.has("m")
    await house.ask("m")
    house.engines["m"][0].warmth = b"salt and digests"
    assert house.local.offered()[0].warmth == b"salt and digests"
    assert house.local.rows()[0]["warm"] is True
    await house.local.own("m").unload()
    assert house.local.offered()[0].warmth == b""


async def test_a_model_of_somebody_else_is_not_this_nodes_to_load() -> None:
    with pytest.raises(UnknownModel, match="no model 'm' of its own"):
        House().local.own("m")


async def settled(house: House, name: str) -> None:
    async with asyncio.timeout(10):
        while house.state(name) == "loading":
            await asyncio.sleep(0)


async def loaded(house: House, name: str) -> None:
    async with asyncio.timeout(10):
        while house.state(name) != "loaded":
            await asyncio.sleep(0)


async def seen(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds, 1.0)

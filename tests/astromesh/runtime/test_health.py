"""Whether model servers answer: asked now and then, asked at once when doubted, judged by one answer at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tests.rig.eventually import eventually
from tests.rig.stub_openai import StubOpenAI

from astromesh.fleet.offers import Health, OfferedProvider
from astromesh.providers.backends.openai_compat import OpenAICompat
from astromesh.runtime import health as health_of_servers
from astromesh.runtime.endpoints import Endpoint
from astromesh.runtime.health import INTERVAL_S, RECHECK_S, Answer, ProviderHealth, Watched, judged
from astromesh.specs.provider import Provider, ProviderSpec


def provider(name: str = "p", **spec: object) -> Provider:
    return Provider(name, ProviderSpec.model_validate({"type": "openai_compat", "models": ["stub"], **spec}), "providers.yaml", 3)


@pytest.mark.parametrize(
    ("before", "answer", "health"),
    [
        ("unknown", 200, "healthy"),
        ("down", 200, "healthy"),
        ("healthy", 401, "healthy"),
        ("healthy", 404, "healthy"),
        ("healthy", 429, "degraded"),
        ("down", 503, "degraded"),
        ("healthy", "nobody", "down"),
        ("unknown", "nobody", "down"),
        ("healthy", "late", "degraded"),
        ("degraded", "late", "down"),
        ("down", "late", "down"),
    ],
)
def test_an_answer_is_judged(before: Health, answer: Answer, health: Health) -> None:
    assert judged(before, answer) == health


@pytest.mark.parametrize(
    ("spec", "interval_s"),
    [
        ({}, INTERVAL_S),
        ({"health_check_interval": "7s"}, 7.0),
        ({"health_check_interval": 7, "health_check": {"interval": 3}}, 3.0),
        ({"share": "none"}, None),
        ({"api_key_env": "A_KEY"}, None),
        ({"api_key_env": "A_KEY", "health_check_interval": 60}, 60.0),
    ],
)
def test_how_often_a_server_is_asked_is_as_written_and_of_its_own_accord_only_where_others_use_it(
    spec: dict[str, object], interval_s: float | None
) -> None:
    assert Watched(provider(**spec)).interval_s == interval_s


class Told:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@asynccontextmanager
async def watching(server: Provider, endpoint: str) -> AsyncIterator[tuple[ProviderHealth, Told]]:
    told = Told()
    health = ProviderHealth([server], changed=told)
    client = OpenAICompat(server.name, f"{endpoint}/v1")
    try:
        health.watch(lambda _: client)
        yield health, told
    finally:
        await health.close()
        await client.close()


def sees(health: ProviderHealth, expected: Health) -> Callable[[], object]:
    async def predicate() -> bool:
        assert health.of("p").health == expected, health.of("p").health
        return True

    return predicate


async def test_a_server_that_goes_down_and_comes_back_is_noticed_by_being_asked() -> None:
    stub = StubOpenAI()
    async with stub:
        endpoint, port = stub.url.removesuffix("/v1"), int(stub.url.removesuffix("/v1").rpartition(":")[2])
        async with watching(provider(health_check_interval=1), endpoint) as (health, told):
            await eventually(sees(health, "healthy"), 0.5, what="the first answer")
            assert health.of("p").latency_ms is not None
            assert told.times == 1
            await stub.__aexit__(None, None, None)
            await eventually(sees(health, "down"), 1.5, what="the silence")
            assert told.times == 2
            async with StubOpenAI(port=port):
                await eventually(sees(health, "healthy"), 1.5, what="the return")
            assert told.times >= 3
            assert health.offered() == (OfferedProvider("p", "openai_compat", ("stub",), health.of("p").health, True),)


async def test_a_server_in_doubt_is_asked_at_once_and_not_when_its_turn_comes() -> None:
    stub = StubOpenAI()
    async with stub, watching(provider(health_check_interval=3600), stub.url.removesuffix("/v1")) as (health, _):
        await eventually(sees(health, "healthy"), 0.5, what="the first answer")
        await stub.__aexit__(None, None, None)
        health.of("p").doubt()
        await eventually(sees(health, "down"), 2 * RECHECK_S, what="the silence")


class Recorder:
    """A server that answers, and remembers that it was asked."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def check(self, *, path: str | None, timeout_s: float) -> int:
        self.asked.set()
        return 200


def test_an_agent_may_want_its_server_asked_more_often_and_not_less() -> None:
    private, often = Watched(provider(share="none")), Watched(provider(health_check_interval=10))
    for watched in (private, often):
        watched.endpoint = Endpoint("p", "http://p")
        watched.endpoint.checked_every_s = 20.0
    assert (private.interval_s, often.interval_s) == (20.0, 10.0)


async def test_a_server_that_an_agent_comes_to_want_is_asked_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_of_servers, "WANTED_LOOK_S", 0.01)
    server, asked = Endpoint("p", "http://p"), Recorder()
    health = ProviderHealth([provider(share="none")], changed=Told())
    health.meet(lambda _: server)
    health.watch(lambda _: asked)
    await asyncio.sleep(0)
    assert not asked.asked.is_set()
    server.checked_every_s = 3600.0
    async with asyncio.timeout(5):
        await asked.asked.wait()
    await health.close()


async def test_what_calls_show_and_what_questions_show_know_of_each_other() -> None:
    told = Told()
    server = Endpoint("p", "http://p")
    health = ProviderHealth([provider()], changed=told)
    health.meet(lambda _: server)
    watched = health.of("p")
    assert (watched.offered().breaker, server.down()) == ("closed", False)
    for _ in range(3):
        server.enter().ended("failure")
    assert (watched.offered().breaker, told.times, watched.doubted.is_set()) == ("open", 1, True)
    watched.health = "down"
    assert server.down()


async def test_who_is_not_to_be_asked_is_left_alone() -> None:
    private, shared = Recorder(), Recorder()
    health = ProviderHealth([provider("private", share="none"), provider("shared")], changed=Told())
    health.watch(lambda one: private if one.name == "private" else shared)
    async with asyncio.timeout(5):
        await shared.asked.wait()
    await health.close()
    assert not private.asked.is_set()
    assert health.of("private").health == "unknown"

"""One model after the other, over real servers: what the caller gets, who was asked how often, and what the breaker makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from time import monotonic
from typing import Any

import orjson
import pytest
from aiohttp import web
from tests.rig.answering import Answers, a_server_that, pouring, saying
from tests.rig.held_model import HeldModel
from tests.rig.mesh_view import member
from tests.rig.ports import free_port
from tests.rig.rooms import MODEL, Rooms, drained

from astromesh.dialogue import Message, ModelEvent, ModelReply, ModelRequest, Sampling, TextDelta, ToolSchema
from astromesh.errors import AstromeshError, ModelFailed, ModelRefused, ModelUnavailable, Overloaded
from astromesh.inference.port import Counting
from astromesh.providers.backends import openai_compat
from astromesh.providers.backends.openai_compat import OpenAICompat
from astromesh.providers.backends.scripted import Scripted
from astromesh.routing.breaker import Breaker, BreakerRules
from astromesh.routing.strategy import Merits
from astromesh.runtime.endpoints import Endpoint
from astromesh.runtime.models import LocalModel, Routed
from astromesh.runtime.targets import Choice, Target

AMPLE_S = 10.0
HELLO = (Message("user", "Hello"),)
GOOD = orjson.dumps({"choices": [{"message": {"content": "Good day."}, "finish_reason": "stop"}]})
WORD = b'data: {"choices": [{"delta": {"content": "Half "}}]}\n\n'
WORDS = WORD + b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
TOOL = ToolSchema("weather", "The weather.", {"type": "object"})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A model server that counts who asks, and answers as it is told to at that moment."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self.asked_at: list[float] = []
        self.answers: Answers = saying(GOOD)
        self.endpoint = Endpoint(url.rpartition(":")[2].partition("/")[0], url, clock=clock)
        self.client = OpenAICompat("p", url)

    @property
    def asked(self) -> int:
        return len(self.asked_at)

    def target(self, model: str = MODEL, **more: Any) -> Target:
        return Target(model, "p", provider=self.client, endpoint=self.endpoint, **{"merits": Merits(), **more})


class Servers:
    def __init__(self, stack: AsyncExitStack) -> None:
        self.clock = Clock()
        self.rooms = Rooms()
        self._stack = stack

    async def open(self, answers: Answers | None = None) -> Server:
        server: Server

        async def answer(request: web.Request) -> web.StreamResponse:
            server.asked_at.append(monotonic())
            return await server.answers(request)

        server = Server(await self._stack.enter_async_context(a_server_that(answer)), self.clock)
        server.answers = answers or saying(GOOD)
        self._stack.push_async_callback(server.client.close)
        return server

    def nobody(self) -> Server:
        server = Server(f"http://127.0.0.1:{free_port()}/v1", self.clock)
        self._stack.push_async_callback(server.client.close)
        return server

    async def ask(
        self, *targets: Target, stream: bool = False, timeout_s: float = AMPLE_S, tools: tuple[ToolSchema, ...] = (), **how: Any
    ) -> tuple[list[Routed | ModelEvent], AstromeshError | None]:
        request = ModelRequest("", HELLO, tools, stream=stream)
        return await drained(self.rooms.models.complete(request, timeout_s=timeout_s, choice=Choice(targets, **how)))


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        yield Servers(stack)


async def silence(request: web.Request) -> web.StreamResponse:
    """Until the one who asks has left."""
    await request.read()
    assert request.transport is not None
    while not request.transport.is_closing():
        await asyncio.sleep(0.01)
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    """A piece of an answer, as it was asked for, and a broken connection."""
    streamed = orjson.loads(await request.read())["stream"]
    piece = WORD if streamed else GOOD[: len(GOOD) // 2]
    headers = {"Content-Type": "text/event-stream"} if streamed else {"Content-Length": str(len(GOOD))}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(piece)
    assert request.transport is not None
    request.transport.close()
    return response


# How a primary fails → how often it is asked, how many failures its breaker counts.
FAILS: Mapping[str, tuple[Answers, int, int]] = {
    "500": (saying(b"{}", status=500), 1, 1),
    "503": (saying(b"{}", status=503), 3, 1),
    "429, come back at once": (saying(b"{}", status=429, headers={"Retry-After": "0"}), 3, 0),
    "429, come back in half a minute": (saying(b"{}", status=429, headers={"Retry-After": "30"}), 1, 0),
    "401": (saying(b"{}", status=401), 1, 0),
    "404": (saying(b"{}", status=404), 1, 0),
    "silence": (silence, 1, 1),
    "garbage": (saying(b"<html>Good day.</html>"), 1, 1),
    "half a body": (half, 1, 1),
    "a body without end": (pouring(b" " * 65536), 1, 1),
}


@pytest.mark.parametrize("how", FAILS)
async def test_a_primary_that_fails_before_its_first_word_is_followed_by_the_fallback(
    how: str, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_compat, "REPLY_BYTES_MAX", 2**20)
    answers, asked, failures = FAILS[how]
    primary, fallback = await servers.open(answers), await servers.open()
    seen, failure = await servers.ask(primary.target(timeout_s=0.2), fallback.target("other"))
    assert failure is None
    assert seen[0] == Routed("here", "local", 2)
    assert isinstance(seen[0], Routed)
    assert seen[0].target.model == "other"
    assert isinstance(seen[-1], ModelReply)
    assert seen[-1].text == "Good day."
    assert (primary.asked, fallback.asked) == (asked, 1)
    assert primary.endpoint.breaker.failures == failures
    assert primary.endpoint.retries == asked - 1


@pytest.mark.parametrize("url", ["nobody", "http://no-such-host.invalid/v1"])
async def test_a_primary_that_is_not_there_is_looked_for_twice_more_and_followed_by_the_fallback(servers: Servers, url: str) -> None:
    primary, fallback = servers.nobody(), await servers.open()
    if url != "nobody":
        primary.client = OpenAICompat("p", url)
    seen, failure = await servers.ask(primary.target(), fallback.target())
    await primary.client.close()
    assert failure is None
    assert seen[0] == Routed("here", "local", 2)
    assert (primary.endpoint.retries, primary.endpoint.breaker.failures, fallback.asked) == (2, 1, 1)


async def test_a_request_that_is_wrong_goes_back_to_the_caller_and_nowhere_else(servers: Servers) -> None:
    primary, fallback = await servers.open(saying(b'{"error": {"message": "8 tokens"}}', status=400)), await servers.open()
    for _ in range(4):
        seen, failure = await servers.ask(primary.target(), fallback.target())
        assert isinstance(failure, ModelRefused)
        assert seen == []
    assert (primary.asked, fallback.asked, primary.endpoint.state) == (4, 0, "closed")


async def test_after_the_first_word_a_failure_is_the_end_and_counts(servers: Servers) -> None:
    primary, fallback = await servers.open(half), await servers.open()
    for failures in (1, 2, 3):
        seen, failure = await servers.ask(primary.target(), fallback.target(), stream=True)
        assert seen == [Routed("here", "local", 1), TextDelta("Half ")]
        assert isinstance(failure, ModelFailed)
        assert failure.code == "model_provider_unavailable"
        assert primary.endpoint.breaker.failures == failures
    assert "circuit_breaker" in failure.hint
    assert (primary.endpoint.state, primary.asked, fallback.asked) == ("open", 3, 0)


async def test_a_server_that_says_when_to_come_back_is_asked_then_where_nobody_else_can_be(servers: Servers) -> None:
    only = await servers.open()

    async def busy_once(request: web.Request) -> web.StreamResponse:
        return await (saying(GOOD) if only.asked > 1 else saying(b"{}", status=429, headers={"Retry-After": "1"}))(request)

    only.answers = busy_once
    seen, failure = await servers.ask(only.target())
    assert failure is None
    assert seen[0] == Routed("here", "local", 1)
    first, second = only.asked_at
    assert second - first >= 1.0


async def test_a_server_that_wants_to_be_left_alone_for_longer_than_there_is_time_is(servers: Servers) -> None:
    only = await servers.open(saying(b"{}", status=429, headers={"Retry-After": "30"}))
    _, failure = await servers.ask(only.target(), timeout_s=20)
    assert isinstance(failure, Overloaded)
    assert (failure.retry_after_s, only.asked) == (30, 1)


async def test_who_falls_silent_without_a_limit_of_its_own_leaves_the_fallback_time_enough(servers: Servers) -> None:
    primary, fallback = await servers.open(silence), await servers.open()
    seen, failure = await servers.ask(primary.target(), fallback.target(), timeout_s=2)
    assert failure is None
    assert seen[0] == Routed("here", "local", 2)
    assert (primary.asked, fallback.asked, primary.endpoint.breaker.failures) == (1, 1, 1)


async def test_where_no_other_model_can_be_asked_silence_is_waited_out_and_says_so(servers: Servers) -> None:
    only = await servers.open(silence)
    _, failure = await servers.ask(only.target(), timeout_s=0.3)
    assert isinstance(failure, ModelFailed)
    assert (failure.code, failure.definite) == ("model_timeout", False)
    assert "timeout" in failure.hint


async def test_where_fallbacks_are_off_only_the_first_is_asked(servers: Servers) -> None:
    primary, fallback = await servers.open(saying(b"{}", status=500)), await servers.open()
    _, failure = await servers.ask(primary.target(), fallback.target(), falls_back=False)
    assert isinstance(failure, ModelFailed)
    assert (failure.code, fallback.asked) == ("model_provider_unavailable", 0)


async def test_when_all_fail_every_reason_is_told_with_its_remedy(servers: Servers) -> None:
    ill, absent = await servers.open(saying(b'{"error": "out of memory"}', status=500)), servers.nobody()
    _, failure = await servers.ask(ill.target(), absent.target())
    assert isinstance(failure, ModelFailed)
    assert (failure.code, failure.definite) == ("model_all_providers_failed", True)
    assert "out of memory" in failure.message
    assert "nothing answers" in failure.message
    assert ill.url in failure.hint
    assert "correct the endpoint" in failure.hint
    silent = await servers.open(silence)
    _, failure = await servers.ask(ill.target(), silent.target(timeout_s=0.1))
    assert failure is not None
    assert not failure.definite  # the second one may have done it


# The breaker.


async def test_after_three_failures_a_server_is_left_alone_for_a_minute_and_then_tried_once(servers: Servers) -> None:
    primary, fallback = await servers.open(saying(b"{}", status=500)), await servers.open()
    for number in range(1, 6):
        seen, _ = await servers.ask(primary.target(), fallback.target())
        assert seen[0] == Routed("here", "local", 2 if number <= 3 else 1)
    assert (primary.asked, fallback.asked, primary.endpoint.state) == (3, 5, "open")
    servers.clock.now += 60
    await servers.ask(primary.target(), fallback.target())
    assert (primary.asked, primary.endpoint.state, primary.endpoint.openings) == (4, "open", 2)
    servers.clock.now += 60
    primary.answers = saying(GOOD)
    for _ in range(2):
        seen, _ = await servers.ask(primary.target(), fallback.target())
        assert seen[0] == Routed("here", "local", 1)
    assert (primary.asked, fallback.asked, primary.endpoint.state) == (6, 6, "closed")


async def test_a_server_that_is_left_alone_says_so_with_the_knob_and_for_how_long(servers: Servers) -> None:
    only = await servers.open(saying(b"{}", status=500))
    failures = [(await servers.ask(only.target()))[1] for _ in range(4)]
    servers.clock.now += 18
    _, left_alone = await servers.ask(only.target())
    assert [failure is not None and "circuit_breaker" in failure.hint for failure in failures] == [False, False, True, True]
    assert isinstance(left_alone, ModelFailed)
    assert (left_alone.code, left_alone.definite, left_alone.retry_after_s) == ("model_provider_unavailable", True, 42)
    assert "failed 3 times in a row" in left_alone.message
    assert "circuit_breaker" in left_alone.hint
    assert only.asked == 3


async def test_of_many_at_once_exactly_one_tries_a_server_again(servers: Servers) -> None:
    only = await servers.open(saying(b"{}", status=500))
    for _ in range(3):
        await servers.ask(only.target())
    servers.clock.now += 60
    go = asyncio.Event()

    async def held(request: web.Request) -> web.StreamResponse:
        await go.wait()
        return await saying(GOOD)(request)

    only.answers = held
    asking = [asyncio.create_task(servers.ask(only.target())) for _ in range(5)]
    with suppress(TimeoutError):
        async with asyncio.timeout(AMPLE_S):
            while sum(task.done() for task in asking) < 4:
                await asyncio.sleep(0.001)
    assert sum(task.done() for task in asking) == 4
    go.set()
    outcomes = [failure for _, failure in await asyncio.gather(*asking)]
    assert outcomes.count(None) == 1
    assert {failure.code for failure in outcomes if failure is not None} == {"model_provider_unavailable"}
    assert (only.asked, only.endpoint.state) == (4, "closed")


async def test_a_trial_is_one_call(servers: Servers) -> None:
    only = await servers.open(saying(b"{}", status=503))
    for _ in range(3):
        await servers.ask(only.target())
    assert only.asked == 9
    servers.clock.now += 60
    await servers.ask(only.target())
    assert (only.asked, only.endpoint.state) == (10, "open")


async def test_a_trial_that_nobody_waits_for_any_more_leaves_the_next_one_to_try(servers: Servers) -> None:
    only = await servers.open(saying(b"{}", status=500))
    for _ in range(3):
        await servers.ask(only.target())
    servers.clock.now += 60
    only.answers = silence
    trial = asyncio.create_task(servers.ask(only.target()))
    while only.asked < 4:
        await asyncio.sleep(0.001)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    only.answers = saying(GOOD)
    _, failure = await servers.ask(only.target())
    assert (failure, only.endpoint.state) == (None, "closed")


async def test_a_breaker_is_its_servers_whoever_asks_and_with_which_key(servers: Servers) -> None:
    ill = await servers.open(saying(b"{}", status=500))
    other = OpenAICompat("q", ill.url, api_key="another")
    for _ in range(3):
        await servers.ask(ill.target())
    _, failure = await servers.ask(Target("m2", "q", provider=other, endpoint=ill.endpoint))
    await other.close()
    assert failure is not None
    assert (ill.asked, "its breaker is open" in failure.message) == (3, True)


async def test_a_retry_is_not_made_where_others_have_opened_the_breaker_meanwhile(servers: Servers) -> None:
    ill = await servers.open()
    ill.endpoint.breaker = Breaker(BreakerRules(failure_threshold=1))

    async def while_another_fails(request: web.Request) -> web.StreamResponse:
        ill.endpoint.enter().ended("failure")
        return await saying(b"{}", status=503)(request)

    ill.answers = while_another_fails
    await servers.ask(ill.target())
    assert (ill.asked, ill.endpoint.retries, ill.endpoint.openings) == (1, 0, 1)


async def test_the_reply_counts_although_its_reader_leaves_with_it(servers: Servers) -> None:
    only = await servers.open()
    only.endpoint.breaker = Breaker(failures=2)
    request = ModelRequest("", HELLO, stream=False)
    async with aclosing(servers.rooms.models.complete(request, timeout_s=AMPLE_S, choice=Choice((only.target(),)))) as stream:
        async for event in stream:
            if isinstance(event, ModelReply):
                break
    assert only.endpoint.breaker.failures == 0


# Who is asked first, and who is not asked at all.


async def test_the_strategy_decides_by_what_is_known(servers: Servers) -> None:
    dear, cheap = await servers.open(), await servers.open()
    targets = (
        dear.target(merits=Merits(cost_per_1k_tokens=2.0, quality_score=0.9)),
        cheap.target(merits=Merits(cost_per_1k_tokens=0.1)),
    )
    await servers.ask(*targets, strategy="cost_optimized")
    assert (dear.asked, cheap.asked) == (0, 1)
    await servers.ask(*targets, strategy="quality_first")
    assert (dear.asked, cheap.asked) == (1, 1)
    for _ in range(6):
        await servers.ask(*targets, strategy="round_robin", name="a")
    assert (dear.asked, cheap.asked) == (4, 4)


async def test_the_fastest_is_found_by_what_was_measured_here(servers: Servers) -> None:
    slow, fast = await servers.open(saying(WORDS)), await servers.open(saying(WORDS))
    await servers.ask(fast.target(), stream=True)
    seen = fast.endpoint.latency(MODEL)
    assert seen.first_token_s is not None
    assert seen.total_s is not None
    assert 0 < seen.first_token_s <= seen.total_s
    slow.endpoint.measured(MODEL, first_token_s=5.0, total_s=5.0)
    await servers.ask(slow.target(), fast.target(), stream=True, strategy="latency_optimized")
    assert (slow.asked, fast.asked) == (0, 2)


async def test_a_server_that_is_known_to_be_down_is_tried_last(servers: Servers) -> None:
    primary, fallback = await servers.open(), await servers.open()
    primary.endpoint.down = lambda: True
    await servers.ask(primary.target(), fallback.target())
    assert (primary.asked, fallback.asked) == (0, 1)


async def test_a_request_that_does_not_fit_is_not_sent_there(servers: Servers) -> None:
    small, large = await servers.open(), await servers.open()
    targets = (small.target("small", context_window=5), large.target("large", context_window=1000, sampling=Sampling(max_tokens=100)))
    seen, failure = await servers.ask(*targets)
    assert failure is None
    assert seen[0] == Routed("here", "local", 1)
    assert (small.asked, large.asked) == (0, 1)
    _, failure = await servers.ask(small.target("small", context_window=5, place="spec.model.fallback[0]"))
    assert isinstance(failure, ModelFailed)
    assert (failure.code, failure.definite) == ("model_no_eligible_provider", True)
    assert "spec.model.fallback[0].context_window" in failure.hint
    wordy = large.target(context_window=1000, sampling=Sampling(max_tokens=1000))
    _, failure = await servers.ask(wordy)  # what it is to write has to fit as well
    assert failure is not None
    assert large.asked == 1


class Counted(Scripted):
    """A model of this node, which counts exactly."""

    async def count_tokens(self, texts: list[str], *, timeout_s: float) -> tuple[int, ...]:
        return tuple(1 for _ in texts)


async def test_a_model_that_is_loaded_here_counts_by_itself(servers: Servers) -> None:
    long = (Message("user", "word " * 1000),)
    assert isinstance(Counted([]), Counting)
    servers.rooms.has(Counted(["Yes."]))
    choice = Choice((Target(MODEL, context_window=100),))
    seen, failure = await drained(servers.rooms.models.complete(ModelRequest("", long), timeout_s=AMPLE_S, choice=choice))
    assert failure is None
    assert seen[0] == Routed("here", "local", 1)


async def test_who_is_said_to_call_no_tools_gets_no_request_with_tools_if_capabilities_decide(servers: Servers) -> None:
    words, tools = await servers.open(), await servers.open()
    targets = (words.target("words", merits=Merits(lacks=("tools",))), tools.target(merits=Merits(skills=("tools",))))
    await servers.ask(*targets, strategy="capability_match", tools=(TOOL,))
    assert (words.asked, tools.asked) == (0, 1)
    await servers.ask(*targets, strategy="capability_match")
    assert (words.asked, tools.asked) == (1, 1)
    _, failure = await servers.ask(targets[0], strategy="capability_match", tools=(TOOL,))
    assert isinstance(failure, ModelFailed)
    assert failure.code == "model_no_eligible_provider"
    assert "capabilities" in failure.hint


async def test_each_model_is_asked_by_its_name_and_with_its_own_parameters(servers: Servers) -> None:
    bodies: list[Any] = []

    async def keeping(request: web.Request) -> web.StreamResponse:
        bodies.append(orjson.loads(await request.read()))
        return await saying(GOOD if len(bodies) > 1 else b"{}", status=200 if len(bodies) > 1 else 500)(request)

    server, other = await servers.open(keeping), await servers.open(keeping)
    await servers.ask(
        server.target("one", sampling=Sampling(temperature=0.1)), other.target("two", sampling=Sampling(temperature=0.9, max_tokens=5))
    )
    assert [(body["model"], body["temperature"], body.get("max_tokens")) for body in bodies] == [("one", 0.1, None), ("two", 0.9, 5)]


# Models of the mesh among them.


async def test_a_model_of_the_mesh_is_followed_by_a_server_and_every_node_counts_as_asked(servers: Servers) -> None:
    fallback = await servers.open()
    gone = ModelUnavailable("gone")
    servers.rooms.has(Scripted([gone]))
    servers.rooms.sees(member("b-000002", models=[MODEL]))
    servers.rooms.neighbours.models = {"b-000002": Scripted([gone])}
    seen, failure = await servers.ask(Target(MODEL), fallback.target("paid"))
    assert failure is None
    assert seen[0] == Routed("here", "local", 3)
    assert fallback.asked == 1


async def test_a_server_is_followed_by_a_model_of_the_mesh_wherever_it_is(servers: Servers) -> None:
    primary = servers.nobody()
    servers.rooms.sees(member("b-000002", models=["small"]))
    servers.rooms.neighbours.models = {"b-000002": Scripted(["From b."])}
    seen, failure = await servers.ask(primary.target(), Target("small"))
    assert failure is None
    assert seen[0] == Routed("b", "peer", 2)


async def test_a_silent_model_of_the_mesh_is_given_up_after_its_own_time(servers: Servers) -> None:
    held = HeldModel("never")
    fallback = await servers.open()
    servers.rooms.has(held)
    seen, failure = await servers.ask(Target(MODEL), fallback.target(), timeout_s=1)
    assert failure is None
    assert seen[0] == Routed("here", "local", 2)
    assert held.open == 0


async def test_where_no_model_can_be_had_now_it_is_worth_another_try(servers: Servers) -> None:
    servers.rooms.sees(member("b-000002", models=["one"], status="dead"), member("c-000003", models=["two"], status="dead"))
    _, failure = await servers.ask(Target("one"), Target("two"))
    assert isinstance(failure, ModelUnavailable)
    assert "was offered by b" in failure.message
    assert "was offered by c" in failure.message


async def test_a_server_that_is_shared_with_the_mesh_has_its_breaker_there_too(servers: Servers) -> None:
    server = await servers.open(saying(b"{}", status=500))
    servers.rooms.models.local[MODEL] = LocalModel(server.client, lambda: True, endpoint=server.endpoint)
    request = ModelRequest(MODEL, HELLO, stream=False)
    for _ in range(4):
        _, failure = await drained(servers.rooms.models.complete(request, timeout_s=AMPLE_S, forwarded=True))
        assert failure is not None
    assert (server.asked, server.endpoint.state) == (3, "open")
    assert failure.definite  # so whoever forwarded it asks another node


async def test_a_server_of_this_node_that_is_left_alone_leaves_its_model_to_the_peers(servers: Servers) -> None:
    server = await servers.open(saying(b"{}", status=500))
    servers.rooms.models.local[MODEL] = LocalModel(server.client, lambda: True, endpoint=server.endpoint)
    servers.rooms.sees(member("b-000002", models=[MODEL]))
    servers.rooms.neighbours.models = {"b-000002": Scripted(["Yes."] * 5)}
    routes = [(await servers.ask(Target(MODEL)))[0][0] for _ in range(5)]
    assert routes == [Routed("b", "peer", 2)] * 3 + [Routed("b", "peer", 1)] * 2
    assert server.asked == 3

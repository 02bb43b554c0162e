"""Links over real sockets on loopback: calls, their streams, and every way in which they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import psutil
import pytest
import uvloop

from maia.config import Address
from maia.drivers.link import Handler, IncomingCall
from maia.drivers.switchboard import BoardLimits, Peer, Switchboard
from maia.errors import CallExpired, CallFailed, CallRefused, LinkLost, MisuseError, PeerUnreachable
from maia.links.greeting import Greeting
from maia.links.limits import MIB, LinkLimits

AMPLE_S = 60.0
# Silence is noticed soon; a machine that stalls for longer than `stall_s` makes it later, never wrong.
IMPATIENT = LinkLimits(ping_period_s=0.05, stall_s=0.2, silence_max_s=0.4)
Body = Mapping[str, Any]


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"], scope="module")
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """A node's own loop is uvloop's; a node inside a command has asyncio's."""
    policy: asyncio.AbstractEventLoopPolicy = request.param()
    return policy


class Desk:
    """Handlers whose progress a test can see and steer."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.released = asyncio.Event()
        self.go_on = asyncio.Event()
        self.said = 0

    async def echo(self, call: IncomingCall) -> AsyncIterator[Body]:
        yield call.body

    async def count(self, call: IncomingCall) -> AsyncIterator[Body]:
        for number in range(call.body["to"]):
            yield {"number": number}

    async def hang(self, _: IncomingCall) -> AsyncIterator[Body]:
        try:
            yield {"number": 0}
            self.begun.set()
            await self.go_on.wait()
            yield {"number": 1}
        finally:
            self.released.set()

    async def linger(self, _: IncomingCall) -> AsyncIterator[Body]:
        try:
            yield {"number": 0}
            await self.go_on.wait()
        finally:
            for _turn in range(5):  # of the loop: as long as somebody takes who has to put things away
                await asyncio.sleep(0)
            self.released.set()

    async def pour(self, _: IncomingCall) -> AsyncIterator[Body]:
        try:
            while True:
                yield {"text": "x" * 1000}
                self.said += 1
        finally:
            self.released.set()

    async def fail(self, call: IncomingCall) -> AsyncIterator[Body]:
        yield {"number": 0}
        raise CallFailed({"message": "no such model", "code": 404}, definite=call.body["definite"])

    async def stumble(self, _: IncomingCall) -> AsyncIterator[Body]:
        yield {"number": 0}
        raise ValueError("/home/secret/key.pem")

    async def ask_back(self, call: IncomingCall) -> AsyncIterator[Body]:
        yield {"peer": call.peer, "kind": call.kind, "remaining_s": call.remaining_s()}

    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            "echo": self.echo,
            "count": self.count,
            "hang": self.hang,
            "linger": self.linger,
            "pour": self.pour,
            "fail": self.fail,
            "stumble": self.stumble,
            "ask_back": self.ask_back,
        }


class Two:
    """A node that is called, and one that calls."""

    def __init__(self, here: Switchboard, there: Switchboard, desk: Desk, peer: Peer) -> None:
        self.here = here
        self.there = there
        self.desk = desk
        self.peer = peer

    async def replies(self, kind: str, body: Body, *, timeout_s: float = AMPLE_S) -> list[Body]:
        async with self.here.call(self.peer, kind, body, timeout_s=timeout_s) as replies:
            return [reply async for reply in replies]


@asynccontextmanager
async def two_nodes(limits: BoardLimits | None = None) -> AsyncIterator[Two]:
    desk = Desk()
    async with (
        Switchboard(me=Greeting("there", "id-there"), handlers=desk.handlers, limits=limits) as there,
        Switchboard(me=Greeting("here", "id-here"), handlers={}, limits=limits) as here,
    ):
        port = await there.serve("127.0.0.1", 0)
        yield Two(here, there, desk, Peer("there", Address("127.0.0.1", port)))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(AMPLE_S):
        while not condition():
            await asyncio.sleep(0)


async def test_a_call_gets_its_replies_in_order_and_then_its_end() -> None:
    async with two_nodes() as two:
        assert await two.replies("count", {"to": 1000}) == [{"number": number} for number in range(1000)]


async def test_a_handler_sees_who_calls_and_how_long_it_has() -> None:
    async with two_nodes() as two:
        (reply,) = await two.replies("ask_back", {}, timeout_s=20.0)
        assert (reply["peer"], reply["kind"]) == ("here", "ask_back")
        assert 0 < reply["remaining_s"] <= 20.001


async def test_200_calls_at_once_share_one_link_and_each_gets_its_own_replies() -> None:
    async with two_nodes() as two:
        answers = await asyncio.gather(*(two.replies("echo", {"number": number}) for number in range(200)))
        assert answers == [[{"number": number}] for number in range(200)]
        assert two.there.stats().links_in == 1
        assert list(two.here.stats().links) == ["there"]


async def test_bodies_of_a_mebibyte_travel_in_pieces_in_both_directions() -> None:
    async with two_nodes() as two:
        body = {"text": "é" * 512 * 1024, "numbers": [1, 2.5, None]}
        assert await two.replies("echo", body) == [body]


async def test_a_reader_that_stops_holds_its_own_handler_and_nobody_else() -> None:
    async with two_nodes() as two, two.here.call(two.peer, "pour", {}, timeout_s=AMPLE_S) as slow:
        await anext(slow)
        limits = LinkLimits()
        held_at = -1
        while held_at != two.desk.said:  # the other calls make the time in which it could go on
            held_at = two.desk.said
            assert len(await two.replies("count", {"to": 200})) == 200
        assert two.desk.said * 1000 < 2 * (limits.window_bytes + limits.waiting_bytes_max)
        for _ in range(held_at + 1):
            await anext(slow)
        assert two.desk.said > held_at


async def test_leaving_a_call_early_cancels_its_handler() -> None:
    async with two_nodes() as two:
        async with two.here.call(two.peer, "hang", {}, timeout_s=AMPLE_S) as replies:
            assert await anext(replies) == {"number": 0}
        await asyncio.wait_for(two.desk.released.wait(), AMPLE_S)
        assert two.there.stats().cancelled == 1
        assert await two.replies("echo", {"still": "open"}) == [{"still": "open"}]


async def test_a_handler_that_is_held_by_a_slow_reader_is_cancelled_too() -> None:
    async with two_nodes() as two:
        async with two.here.call(two.peer, "pour", {}, timeout_s=AMPLE_S) as replies:
            await anext(replies)
        await asyncio.wait_for(two.desk.released.wait(), AMPLE_S)


async def test_a_handler_that_was_held_is_closed_before_its_call_is_over() -> None:
    class Pourer:
        closed = False

        def __aiter__(self) -> Pourer:
            return self

        async def __anext__(self) -> Body:
            return {"text": "x" * 1000}

        async def aclose(self) -> None:
            self.closed = True

    pourer = Pourer()
    async with two_nodes() as two, Switchboard(me=Greeting("jug", "id"), handlers={"pour": lambda _: pourer}) as jug:
        peer = Peer("jug", Address("127.0.0.1", await jug.serve("127.0.0.1", 0)))
        async with two.here.call(peer, "pour", {}, timeout_s=AMPLE_S) as replies:
            await anext(replies)
        await until(lambda: jug.stats().in_flight_in == 0)
        assert pourer.closed


async def test_a_handler_that_makes_light_of_its_cancellation_is_stopped_at_its_next_reply() -> None:
    async def stubborn(_: IncomingCall) -> AsyncIterator[Body]:
        yield {}
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                yield {}

    async with two_nodes() as two, Switchboard(me=Greeting("mule", "id"), handlers={"pull": stubborn}) as mule:
        peer = Peer("mule", Address("127.0.0.1", await mule.serve("127.0.0.1", 0)))
        async with two.here.call(peer, "pull", {}, timeout_s=AMPLE_S) as replies:
            await anext(replies)
        await until(lambda: mule.stats().in_flight_in == 0)


async def test_a_handler_that_is_cancelled_from_within_fails_its_call_at_once() -> None:
    async def tangled(_: IncomingCall) -> AsyncIterator[Body]:
        yield {}
        inner = asyncio.get_running_loop().create_future()
        inner.cancel()
        await inner

    async with two_nodes() as two, Switchboard(me=Greeting("knot", "id"), handlers={"tie": tangled}) as knot:
        peer = Peer("knot", Address("127.0.0.1", await knot.serve("127.0.0.1", 0)))
        async with two.here.call(peer, "tie", {}, timeout_s=AMPLE_S) as replies:
            await anext(replies)
            with pytest.raises(CallFailed, match="tie failed"):
                await anext(replies)


async def test_a_cancelled_caller_cancels_its_handler() -> None:
    async with two_nodes() as two:
        caller = asyncio.create_task(two.replies("hang", {}))
        await two.desk.begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await asyncio.wait_for(two.desk.released.wait(), AMPLE_S)


async def test_a_call_past_its_deadline_expires_here_and_is_stopped_there() -> None:
    # No ping comes to the rescue: only the deadline itself can wake the two sides.
    async with two_nodes(BoardLimits(link=LinkLimits(ping_period_s=1000.0, silence_max_s=3000.0))) as two:
        with pytest.raises(CallExpired, match=r"hang.*there") as caught:
            await two.replies("hang", {}, timeout_s=0.05)
        assert not caught.value.definite
        await asyncio.wait_for(two.desk.released.wait(), AMPLE_S)


async def test_a_failure_that_a_handler_explains_reaches_the_caller_as_it_is() -> None:
    async with two_nodes() as two:
        for definite in (True, False):
            with pytest.raises(CallFailed, match="no such model") as caught:
                await two.replies("fail", {"definite": definite})
            assert caught.value.body == {"message": "no such model", "code": 404}
            assert caught.value.definite is definite


async def test_any_other_exception_of_a_handler_stays_in_the_log_of_its_node(caplog: pytest.LogCaptureFixture) -> None:
    async with two_nodes() as two:
        with caplog.at_level(logging.ERROR), pytest.raises(CallFailed) as caught:
            await two.replies("stumble", {})
        assert not caught.value.definite
        assert "secret" not in str(caught.value.body)
        assert "secret" in caplog.text


async def test_a_reply_that_is_not_fit_for_the_wire_fails_its_call_only() -> None:
    async def unfit(_: IncomingCall) -> AsyncIterator[Body]:
        yield {"what": object()}

    async with two_nodes() as two, Switchboard(me=Greeting("odd", "id-odd"), handlers={"unfit": unfit}) as odd:
        peer = Peer("odd", Address("127.0.0.1", await odd.serve("127.0.0.1", 0)))
        with pytest.raises(CallFailed, match="unfit failed"):
            async with two.here.call(peer, "unfit", {}, timeout_s=AMPLE_S) as replies:
                await anext(replies)
        assert list(two.here.stats().links) == ["odd"]


async def test_a_request_that_is_not_fit_for_the_wire_is_the_callers_mistake() -> None:
    async with two_nodes() as two:
        with pytest.raises(MisuseError, match="cannot be sent"):
            await two.replies("echo", {"what": object()})
        assert await two.replies("echo", {}) == [{}]


async def test_what_nobody_serves_is_refused_for_certain() -> None:
    async with two_nodes() as two:
        with pytest.raises(CallRefused, match="serves no 'dance'") as caught:
            await two.replies("dance", {})
        assert (caught.value.definite, caught.value.reason) == (True, "unknown_kind")


async def test_calls_beyond_the_limit_of_a_link_are_refused_for_certain() -> None:
    async with two_nodes(BoardLimits(link=LinkLimits(calls_max=2))) as two:
        async with (
            two.here.call(two.peer, "hang", {}, timeout_s=AMPLE_S),
            two.here.call(two.peer, "hang", {}, timeout_s=AMPLE_S),
        ):
            with pytest.raises(CallRefused) as caught:
                await two.replies("echo", {})
            assert (caught.value.definite, caught.value.reason) == (True, "too_many_calls")
        await until(lambda: two.there.stats().in_flight_in == 0)
        assert await two.replies("echo", {}) == [{}]


async def test_the_other_side_enforces_its_own_limit() -> None:
    desk = Desk()
    async with (
        Switchboard(me=Greeting("small", "id"), handlers=desk.handlers, limits=BoardLimits(link=LinkLimits(calls_max=1))) as small,
        Switchboard(me=Greeting("here", "id-here"), handlers={}) as here,
    ):
        peer = Peer("small", Address("127.0.0.1", await small.serve("127.0.0.1", 0)))
        async with here.call(peer, "hang", {}, timeout_s=AMPLE_S) as first, here.call(peer, "echo", {}, timeout_s=AMPLE_S) as second:
            await anext(first)
            with pytest.raises(CallRefused, match="small refused") as caught:
                await anext(second)
        assert caught.value.reason == "too_many_calls"


async def test_a_peer_that_goes_away_in_mid_stream_fails_its_calls_at_once_and_the_next_call_dials_again() -> None:
    async with two_nodes() as two:
        async with two.here.call(two.peer, "hang", {}, timeout_s=AMPLE_S) as replies:
            await anext(replies)
            await two.there.close()
            with pytest.raises(LinkLost, match=r"hang.*there") as caught:
                await anext(replies)
            assert not caught.value.definite
        assert two.here.stats().links == {}
        assert two.desk.released.is_set()
        async with Switchboard(me=Greeting("there", "id-there"), handlers=two.desk.handlers) as again:
            await again.serve("127.0.0.1", two.peer.address.port)
            assert await two.replies("echo", {"back": True}) == [{"back": True}]


async def test_a_connection_that_is_cut_without_a_word_fails_its_calls_and_cancels_its_handlers() -> None:
    async with two_nodes() as two, cuttable(two.peer.address) as (address, cut):
        async with two.here.call(Peer("there", address), "hang", {}, timeout_s=AMPLE_S) as replies:
            await anext(replies)
            cut()
            with pytest.raises(LinkLost):
                await anext(replies)
        await asyncio.wait_for(two.desk.released.wait(), AMPLE_S)
        await until(lambda: two.there.stats().links_in == 0)


async def test_a_handler_that_takes_its_time_ends_in_peace_behind_a_link_that_was_cut(caplog: pytest.LogCaptureFixture) -> None:
    async with two_nodes() as two, cuttable(two.peer.address) as (address, cut):
        async with two.here.call(Peer("there", address), "linger", {}, timeout_s=AMPLE_S) as replies:
            await anext(replies)
            cut()
            with pytest.raises(LinkLost):
                await anext(replies)
        await asyncio.wait_for(two.desk.released.wait(), AMPLE_S)
        await until(lambda: two.there.stats().in_flight_in == 0)
    assert "mistake" not in caplog.text


async def test_a_peer_that_hangs_is_hung_up_on_after_its_silence() -> None:
    limits = BoardLimits(link=IMPATIENT)
    async with two_nodes(limits) as two, cuttable(two.peer.address) as (address, cut):
        async with two.here.call(Peer("there", address), "hang", {}, timeout_s=AMPLE_S) as replies:
            await anext(replies)
            cut.swallow = True
            with pytest.raises(LinkLost, match="silent"):
                await anext(replies)
        await asyncio.wait_for(two.desk.released.wait(), AMPLE_S)


async def test_a_peer_that_takes_nothing_leaves_no_open_socket_behind() -> None:
    limits = BoardLimits(link=IMPATIENT)
    async with two_nodes(limits) as two, cuttable(two.peer.address) as (address, cut):

        def sockets() -> int:
            return sum(1 for each in psutil.Process().net_connections("tcp") if each.raddr == tuple(address) and each.fd != -1)

        async with two.here.call(Peer("there", address), "hang", {}, timeout_s=AMPLE_S) as replies:
            await anext(replies)
            assert sockets() == 1
            cut.stop()
            async with contextlib.AsyncExitStack() as calls:
                for _ in range(4):  # more than all buffers on the way hold
                    await calls.enter_async_context(
                        two.here.call(Peer("there", address), "echo", {"text": "x" * 9 * MIB}, timeout_s=AMPLE_S)
                    )
                with pytest.raises(LinkLost, match="silent"):
                    await anext(replies)
            await until(lambda: sockets() == 0)


async def test_a_link_that_carries_nothing_lives_on_its_pings() -> None:
    async with two_nodes(BoardLimits(link=IMPATIENT)) as two, two.here.call(two.peer, "hang", {}, timeout_s=AMPLE_S) as replies:
        await anext(replies)
        for _ in range(2 * round(IMPATIENT.silence_max_s / 0.1)):
            with pytest.raises(CallExpired):
                await two.replies("hang", {}, timeout_s=0.1)
        two.desk.go_on.set()
        assert await anext(replies) == {"number": 1}


async def test_an_idle_link_closes_and_the_next_call_opens_another() -> None:
    limits = BoardLimits(link=LinkLimits(ping_period_s=0.02), idle_max_s=0.05)
    async with two_nodes(limits) as two:
        assert await two.replies("echo", {}) == [{}]
        await until(lambda: not two.here.stats().links and two.there.stats().links_in == 0)
        assert await two.replies("echo", {}) == [{}]


async def test_a_node_that_is_not_who_was_called_gets_no_calls() -> None:
    async with two_nodes() as two:
        with pytest.raises(PeerUnreachable, match=r"called as elsewhere, and there answered") as caught:
            async with two.here.call(Peer("elsewhere", two.peer.address), "echo", {}, timeout_s=AMPLE_S):
                pytest.fail("the call was let through")
        assert caught.value.definite
        assert two.there.stats().calls_in == 0
        assert two.here.stats().links == {}


async def test_nobody_at_the_address_is_a_definite_failure_for_everyone_who_waited() -> None:
    async with two_nodes() as two:
        await two.there.close()
        outcomes = await asyncio.gather(*(two.replies("echo", {}) for _ in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [PeerUnreachable] * 5
        assert len({id(outcome) for outcome in outcomes}) == 5
        assert "there at 127.0.0.1" in str(outcomes[0])


async def test_a_door_that_says_nothing_is_given_up_after_the_dial_timeout() -> None:
    async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await finished.wait()
        writer.close()

    finished = asyncio.Event()
    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    peer = Peer("mute", Address("127.0.0.1", server.sockets[0].getsockname()[1]))
    async with Switchboard(me=Greeting("here", "id"), handlers={}, limits=BoardLimits(dial_timeout_s=0.05)) as here:
        with pytest.raises(PeerUnreachable, match="no answer"):
            async with here.call(peer, "echo", {}, timeout_s=AMPLE_S):
                pytest.fail("there is nobody to call")
    finished.set()
    server.close()


async def test_a_caller_who_gives_up_leaves_the_dial_to_the_others() -> None:
    async with two_nodes() as two:
        first = asyncio.create_task(two.replies("echo", {}))
        second = asyncio.create_task(two.replies("echo", {"second": True}))
        await asyncio.sleep(0)
        assert two.here.stats().links["there"].state == "dialing"
        first.cancel()
        assert await second == [{"second": True}]


async def test_hanging_up_fails_the_calls_to_that_peer_now() -> None:
    async with two_nodes() as two, two.here.call(two.peer, "hang", {}, timeout_s=AMPLE_S) as replies:
        await anext(replies)
        two.here.hang_up("there", "declared dead")
        with pytest.raises(LinkLost, match="declared dead"):
            await anext(replies)


async def test_a_draining_node_finishes_what_it_has_and_refuses_the_rest() -> None:
    async with two_nodes() as two, two.here.call(two.peer, "hang", {}, timeout_s=AMPLE_S) as replies:
        await anext(replies)
        drained = asyncio.create_task(two.there.drain(AMPLE_S))
        await asyncio.sleep(0)
        with pytest.raises(CallRefused) as caught:
            await two.replies("echo", {})
        assert (caught.value.definite, caught.value.reason) == (True, "draining")
        async with Switchboard(me=Greeting("new", "id-new"), handlers={}) as newcomer:
            with pytest.raises(CallRefused, match="on its way out"):
                async with newcomer.call(two.peer, "echo", {}, timeout_s=AMPLE_S) as refused:
                    await anext(refused)
        assert not drained.done()
        two.desk.go_on.set()
        assert [reply async for reply in replies] == [{"number": 1}]
        assert await drained


async def test_draining_gives_up_after_its_grace() -> None:
    async with two_nodes() as two, two.here.call(two.peer, "hang", {}, timeout_s=AMPLE_S) as replies:
        await anext(replies)
        assert not await two.there.drain(0.02)


async def test_the_board_counts_what_it_carries() -> None:
    async with two_nodes() as two:
        async with two.here.call(two.peer, "hang", {}, timeout_s=AMPLE_S) as replies:
            await anext(replies)
            assert two.here.stats().in_flight_out == two.here.stats().links["there"].calls == 1
            assert two.there.stats().in_flight_in == 1
        with pytest.raises(CallFailed):
            await two.replies("fail", {"definite": True})
        await until(lambda: two.there.stats().in_flight_in == 0)
        here, there = two.here.stats(), two.there.stats()
        assert (here.calls_out, here.cancelled, there.calls_in, there.cancelled, there.failed) == (2, 1, 2, 1, 1)
        link = here.links["there"]
        assert link.state == "open"
        assert link.rtt_ms is not None


async def test_a_port_in_use_is_an_oserror() -> None:
    async with two_nodes() as two, Switchboard(me=Greeting("late", "id"), handlers={}) as late:
        with pytest.raises(OSError, match="in use"):
            await late.serve("127.0.0.1", two.peer.address.port)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/link", {"Origin": "http://127.0.0.1"}, 403),
        ("/link", {"Origin": "null"}, 403),
        ("/link", {"Host": "node.example:7947"}, 403),
        ("/link", {"Host": "192.168.1.7"}, 403),
        ("/link", {"Host": ""}, 403),
        ("/", {}, 404),
        ("/link", {}, 426),
        ("/link", {"Host": "localhost:7947"}, 426),
        ("/link", {"Host": "[::1]:7947"}, 426),
        ("/link", {"Host": "127.8.0.1"}, 426),
    ],
)
async def test_the_door_opens_to_nodes_only_and_says_why_in_one_line(path: str, headers: dict[str, str], status: int) -> None:
    async with (
        two_nodes() as two,
        aiohttp.ClientSession() as session,
        session.get(f"http://{two.peer.address}{path}", headers=headers) as answer,
    ):
        assert answer.status == status
        assert (await answer.text()).count("\n") == 1


async def test_a_web_page_cannot_open_a_link_either() -> None:
    async with two_nodes() as two, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await session.ws_connect(f"http://{two.peer.address}/link", origin="http://127.0.0.1")


async def test_links_beyond_the_limit_are_turned_away() -> None:
    async with two_nodes(BoardLimits(links_in_max=1)) as two, Switchboard(me=Greeting("third", "id"), handlers={}) as third:
        assert await two.replies("echo", {}) == [{}]
        with pytest.raises(PeerUnreachable, match="503"):
            async with third.call(two.peer, "echo", {}, timeout_s=AMPLE_S):
                pytest.fail("the call was let through")


async def test_garbage_on_a_link_ends_it_and_the_door_stays_open() -> None:
    async with two_nodes() as two, aiohttp.ClientSession() as session:
        for garbage in (b"\x00\x00\x00\x01\xc1", b"\xff" * 10, b"\x00\x00\x00\x02\x91\x09"):
            async with session.ws_connect(f"http://{two.peer.address}/link") as web_socket:
                assert (await web_socket.receive()).type is aiohttp.WSMsgType.BINARY
                await web_socket.send_bytes(garbage)
                assert (await web_socket.receive()).type is aiohttp.WSMsgType.CLOSE
        async with session.ws_connect(f"http://{two.peer.address}/link") as web_socket:
            await web_socket.receive()
            await web_socket.send_str("hello?")
            assert (await web_socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert await two.replies("echo", {}) == [{}]


class Cut:
    """A wire between two nodes that can be cut, or swallow everything as a stopped process would."""

    def __init__(self) -> None:
        self.swallow = False
        self.writers: list[asyncio.StreamWriter] = []
        self.transports: list[asyncio.ReadTransport] = []

    def stop(self) -> None:
        """Take nothing any more, so that buffers fill up on the way."""
        for transport in self.transports:
            transport.pause_reading()

    def __call__(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


@asynccontextmanager
async def cuttable(target: Address) -> AsyncIterator[tuple[Address, Cut]]:
    cut = Cut()
    pumps: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut.writers.append(writer)
        while data := await reader.read(65536):
            if not cut.swallow:
                writer.write(data)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*target)
        cut.transports.append(cast(asyncio.ReadTransport, writer.transport))
        pumps.append(asyncio.create_task(pump(reader, far_writer)))
        pumps.append(asyncio.create_task(pump(far_reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1]), cut
    finally:
        server.close()
        cut()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def test_who_answers_a_call_is_heard_and_who_cannot_be_called_is_not() -> None:
    desk, heard = Desk(), list[str]()
    async with (
        Switchboard(me=Greeting("there", "id-there"), handlers=desk.handlers, load=lambda: b"busy") as there,
        Switchboard(me=Greeting("here", "id-here"), handlers={}, heard=heard.append) as here,
    ):
        two = Two(here, there, desk, Peer("there", Address("127.0.0.1", await there.serve("127.0.0.1", 0))))
        await two.replies("count", {"to": 2})
        assert heard == ["there"]
        two.peer = Peer("nobody", Address("127.0.0.1", 1))
        with pytest.raises(PeerUnreachable):
            await two.replies("count", {"to": 2})
        assert heard == ["there"]


async def test_whoever_calls_knows_how_busy_the_other_is() -> None:
    desk = Desk()
    busy = [b"busy"]
    async with (
        Switchboard(me=Greeting("there", "id-there"), handlers=desk.handlers, load=lambda: busy[0]) as there,
        Switchboard(me=Greeting("here", "id-here"), handlers={}) as here,
    ):
        two = Two(here, there, desk, Peer("there", Address("127.0.0.1", await there.serve("127.0.0.1", 0))))
        assert here.load("there") is None
        await two.replies("count", {"to": 2})
        first = here.load("there")
        assert first is not None
        assert first.value == b"busy"
        busy[0] = b""
        await two.replies("count", {"to": 2})
        assert here.load("there") == first
        assert here.stats().loads_unreadable == 0
        busy[0] = bytes(25)  # no node of ours would
        await two.replies("count", {"to": 2})
        assert here.load("there") == first
        assert here.stats().loads_unreadable == 1

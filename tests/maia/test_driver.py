"""Real drivers on loopback: threads, sockets and a real clock. Every wait is for an event, at most five times its goal."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import msgpack
import pytest
from tests.maia.keys import key_of
from tests.rig.eventually import eventually

from maia.config import Address, Limits, MeshConfig
from maia.drivers.driver import MeshDriver
from maia.errors import JoinFailed, MisuseError
from maia.view import Counters, IncarnationRaised, MemberDied, MemberLeft, MeshEvent
from maia.wire.codec import encode
from maia.wire.messages import Suspect

NOBODY = Address("127.0.0.1", 1)
ANY_PORT = Address("127.0.0.1", 0)


def config_of(title: str, *, gossip: Address = ANY_PORT, generation: int = 1, incarnation: int = 1) -> MeshConfig:
    return MeshConfig(
        name=f"{title}-abcdef", title=title, signer=key_of(title), generation=generation, incarnation=incarnation, gossip=gossip
    )


@asynccontextmanager
async def mesh_of(*titles: str) -> AsyncIterator[list[MeshDriver]]:
    """Drivers that have joined the first one."""
    drivers = [MeshDriver(config_of(title)) for title in titles]
    try:
        for driver in drivers:
            await driver.start()
        for driver in drivers[1:]:
            await driver.join([drivers[0].address], timeout_s=5.0)
        yield drivers
    finally:
        for driver in drivers:
            await driver.stop()


def sees(driver: MeshDriver, **statuses: str) -> Callable[[], Awaitable[bool]]:
    """Whether a driver sees exactly these others, by title."""

    async def predicate() -> bool:
        seen = {member.title: member.status for member in driver.view.peers}
        assert seen == statuses, f"{driver.view.me} sees {seen}"
        return True

    return predicate


def offers(driver: MeshDriver, title: str, key: str, value: bytes | None) -> Callable[[], Awaitable[bool]]:
    async def predicate() -> bool:
        member = driver.view.members.get(f"{title}-abcdef")
        assert member is not None, f"{driver.view.me} does not see {title}"
        assert member.offers.get(key) == value, f"{driver.view.me} sees {member.offers}"
        return True

    return predicate


async def test_three_drivers_find_each_other_through_one_seed() -> None:
    async with mesh_of("a", "b", "c") as drivers:
        for driver in drivers:
            others = {other.config.title: "alive" for other in drivers if other is not driver}
            await eventually(sees(driver, **others), 1.5, what=f"{driver.view.me} sees both others")


async def test_the_view_shows_whom_one_joined_when_the_join_returns() -> None:
    async with mesh_of("a") as (a,):
        b = MeshDriver(config_of("b"))
        await b.start()
        try:
            await b.join([a.address], timeout_s=5.0)
            assert [member.title for member in b.view.peers] == ["a"]
        finally:
            await b.stop()


async def test_a_hard_stop_is_noticed_by_everyone_and_nobody_else_is_given_up() -> None:
    async with mesh_of("a", "b", "c") as (a, b, c):
        await eventually(sees(b, a="alive", c="alive"), 1.5)
        died: list[MeshEvent] = []
        for driver in (a, b):
            driver.subscribe(lambda event: died.append(event) if isinstance(event, MemberDied) else None)
        await c.stop()
        await eventually(sees(a, b="alive", c="dead"), 3.0, what="a sees the death")
        await eventually(sees(b, a="alive", c="dead"), 3.0, what="b sees the death")
        await eventually(lambda: asyncio.sleep(0, len(died) == 2), 0.5, what="both subscribers heard of it")
        assert {event.name for event in died if isinstance(event, MemberDied)} == {"c-abcdef"}


async def test_offers_arrive_change_and_go() -> None:
    async with mesh_of("a", "b", "c") as (a, b, c):
        c.offer("models/0", b"smollm2")
        for driver in (a, b, c):
            await eventually(offers(driver, "c", "models/0", b"smollm2"), 0.5, what="the offer")
        c.offer("models/0", b"qwen")
        await eventually(offers(a, "c", "models/0", b"qwen"), 0.5, what="the change")
        c.withdraw("models/0")
        await eventually(offers(a, "c", "models/0", None), 0.5, what="the withdrawal")


async def test_how_busy_a_node_is_shows_on_the_others() -> None:
    async with mesh_of("a", "b") as (a, b):
        b.report_load(b"busy")
        with pytest.raises(MisuseError, match="at most 24"):
            b.report_load(bytes(25))

        async def shown() -> bool:
            return [member.load.value for member in a.view.peers if member.load is not None] == [b"busy"]

        await eventually(shown, 2.0, what="the load of b, refreshed once a second")


async def test_an_offer_too_big_for_a_packet_arrives_by_stream() -> None:
    async with mesh_of("a", "b", "c") as (_, b, c):
        await eventually(sees(c, a="alive", b="alive"), 1.5)
        c.offer("devices", bytes(8000))
        await eventually(offers(b, "c", "devices", bytes(8000)), 1.5, what="eight kilobytes")


async def test_an_offer_made_before_the_start_is_there_from_the_start() -> None:
    driver = MeshDriver(config_of("a"))
    driver.offer("models/0", b"early")
    await driver.start()
    try:
        assert driver.view.myself.offers == {"models/0": b"early"}
    finally:
        await driver.stop()


async def test_a_goodbye_is_seen_as_left_and_not_as_dead() -> None:
    async with mesh_of("a", "b", "c") as (a, b, c):
        await eventually(sees(b, a="alive", c="alive"), 1.5)
        heard: list[MeshEvent] = []
        a.subscribe(heard.append)
        await c.leave(timeout_s=2.0)
        await c.stop()
        await eventually(sees(a, b="alive", c="left"), 0.5, what="a sees the goodbye")
        await eventually(sees(b, a="alive", c="left"), 0.5, what="b sees the goodbye")
        assert MemberLeft("c-abcdef") in heard


async def test_the_first_seed_may_die_and_return_without_knowing_anybody() -> None:
    async with mesh_of("a", "b", "c") as (a, b, c):
        await eventually(sees(c, a="alive", b="alive"), 1.5)
        address = a.address
        await a.stop()
        await eventually(sees(b, a="dead", c="alive"), 3.0, what="the seed is given up")
        await eventually(sees(c, a="dead", b="alive"), 3.0, what="by both")
        again = MeshDriver(config_of("a", gossip=address, generation=2, incarnation=2))
        await again.start()
        again.offer("models/0", b"back")
        try:
            await eventually(sees(again, b="alive", c="alive"), 3.0, what="the seed, which was told no address, is found")
            await eventually(sees(b, a="alive", c="alive"), 3.0, what="b sees the seed again")
            await eventually(sees(c, a="alive", b="alive"), 3.0, what="c sees the seed again")
            await eventually(offers(c, "a", "models/0", b"back"), 1.5, what="and what it offers")
        finally:
            await again.stop()


async def test_a_restart_before_anybody_noticed_is_a_member_again_with_new_offers() -> None:
    async with mesh_of("a", "b") as (a, b):
        b.offer("models/0", b"old")
        await eventually(offers(a, "b", "models/0", b"old"), 1.5)
        address = b.address
        await b.stop()
        again = MeshDriver(config_of("b", gossip=address, generation=2))  # and it forgot its incarnation
        await again.start()
        again.offer("models/1", b"new")
        try:
            await again.join([a.address], timeout_s=5.0)
            await eventually(offers(a, "b", "models/1", b"new"), 1.5, what="the new offer")
            await eventually(offers(a, "b", "models/0", None), 1.5, what="the old one is gone")
            await eventually(lambda: asyncio.sleep(0, a.view.members["b-abcdef"].generation == 2), 1.5, what="the new generation")
            await eventually(sees(a, b="alive"), 1.5)
        finally:
            await again.stop()


async def test_random_datagrams_of_any_length_are_counted_and_nothing_else() -> None:
    noise = random.Random(7)
    async with mesh_of("a", "b") as (a, b):
        await eventually(sees(a, b="alive"), 1.5)
        version, events = a.view.version, []
        a.subscribe(events.append)
        before = sum(a.counters().rejected.values())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for length in range(200):
                # Only bytes that begin no message, so that each of them must be counted.
                sender.sendto(bytes([noise.randrange(64, 256)]) * min(1, length) + noise.randbytes(max(0, length * 7 - 1)), a.address)
        await eventually(lambda: asyncio.sleep(0, sum(a.counters().rejected.values()) == before + 200), 1.0, what="200 rejections")
        assert (a.view.version, events) == (version, [])
        await eventually(sees(b, a="alive"), 1.5)


async def test_random_streams_are_closed_and_harm_nobody() -> None:
    async with mesh_of("a", "b") as (a, b):
        await eventually(sees(a, b="alive"), 1.5)
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x06\xc1", b"\x06" + msgpack.packb({"Nodes": 2**31})):
            reader, writer = await asyncio.open_connection(a.address.host, a.address.port)
            writer.write(garbage)
            assert await reader.read() == b""
            writer.close()
        rejected = a.counters().rejected
        assert {rejected[reason] for reason in ("unknown-stream", "bad-msgpack", "bad-number")} == {1}
        await eventually(sees(b, a="alive"), 1.5)


async def test_a_port_in_use_is_an_error_with_the_address() -> None:
    async with mesh_of("a") as (a,):
        second = MeshDriver(config_of("b", gossip=a.address))
        with pytest.raises(OSError, match=re.escape(str(a.address))):
            await second.start()
        await second.stop()


async def test_a_tcp_port_in_use_is_an_error_too_and_leaves_the_udp_port_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        driver = MeshDriver(config_of("a", gossip=address))
        with pytest.raises(OSError, match=re.escape(str(address))):
            await driver.start()
    await driver.start()
    await driver.stop()


async def test_an_identity_that_cannot_travel_is_refused_at_the_start() -> None:
    driver = MeshDriver(replace(config_of("a"), zone="z" * 200))
    with pytest.raises(MisuseError, match="shorten its title"):
        await driver.start()


async def test_a_join_that_nobody_answers_fails_and_says_what_to_check() -> None:
    async with mesh_of("a") as (a,):
        with pytest.raises(JoinFailed, match=re.escape("no answer from 127.0.0.1:1 ")):
            await a.join([NOBODY], timeout_s=0.05)


async def test_a_seed_that_comes_up_later_is_found() -> None:
    async with mesh_of("a", "b") as (a, b):
        address = a.address
        await a.stop()
        lonely = MeshDriver(config_of("c"))
        await lonely.start()
        try:
            with pytest.raises(JoinFailed):
                await lonely.join([address], timeout_s=0.05)
            again = MeshDriver(config_of("a", gossip=address, generation=2))
            await again.start()
            try:
                await eventually(sees(lonely, a="alive", b="alive"), 2.0, what="the late seed and whom it knows")
            finally:
                await again.stop()
        finally:
            await lonely.stop()
        assert b.view.members["c-abcdef"].usable


async def test_a_join_waits_for_its_own_seeds_and_not_for_those_of_another() -> None:
    async with mesh_of("a") as [a], mesh_of("b") as [b]:
        vain = asyncio.create_task(b.join([NOBODY], timeout_s=5.0))
        await asyncio.sleep(0)
        await b.join([a.address], timeout_s=5.0)
        assert not vain.done()
        vain.cancel()


async def test_names_that_nobody_knows_are_looked_up_once_each_and_not_without_end() -> None:
    names_max = Limits().seeds_max
    async with mesh_of("a") as [a]:
        for number in (*range(names_max // 2), *range(2 * names_max)):
            with pytest.raises(JoinFailed):
                await a.join([Address(f"nobody-{number}.invalid", 7946)], timeout_s=0.001)

        async def looked_up() -> bool:
            assert a._loop is not None
            names = [task.get_name() for task in asyncio.all_tasks(a._loop) if task.get_name().startswith("maia-seed")]
            assert len(names) == len(set(names)) == names_max
            return True

        await eventually(looked_up, 1.0, what="as many names as there may be seeds")


async def test_joining_oneself_waits_for_nobody() -> None:
    async with mesh_of("a") as (a,):
        await a.join([a.address], timeout_s=5.0)


async def test_a_seed_may_be_a_name() -> None:
    async with mesh_of("a") as (a,):
        b = MeshDriver(config_of("b"))
        await b.start()
        try:
            await b.join([Address("localhost", a.address.port)], timeout_s=5.0)
            await eventually(sees(b, a="alive"), 1.5)
        finally:
            await b.stop()


async def test_events_come_on_the_subscriber_s_loop_after_the_view_shows_them() -> None:
    async with mesh_of("a") as (a,):
        loop, seen = asyncio.get_running_loop(), asyncio.Event()

        def callback(event: MeshEvent) -> None:
            assert asyncio.get_running_loop() is loop
            assert isinstance(event, IncarnationRaised)
            assert a.view.myself.incarnation == event.incarnation == 4
            seen.set()

        unsubscribe = a.subscribe(callback)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(encode(Suspect(3, "a-abcdef", "somebody")), a.address)
            async with asyncio.timeout(5):
                await seen.wait()
            unsubscribe()
            sender.sendto(encode(Suspect(9, "a-abcdef", "somebody")), a.address)
        await eventually(lambda: asyncio.sleep(0, a.view.myself.incarnation == 10), 0.5, what="the second refutation")


async def test_what_can_never_be_offered_is_refused_at_once() -> None:
    driver = MeshDriver(config_of("a"))
    with pytest.raises(MisuseError, match="at most 8192"):
        driver.offer("k", bytes(8193))
    for number in range(64):
        driver.offer(f"k/{number}", b"x")
    with pytest.raises(MisuseError, match="no room"):
        driver.offer("k/64", b"x")
    for number in range(7):
        driver.offer(f"k/{number}", bytes(8192))
    with pytest.raises(MisuseError, match="exceed the 65536"):
        driver.offer("k/7", bytes(8192))
    driver.withdraw("k/0")
    driver.offer("k/7", bytes(8192))


async def test_stopping_twice_or_before_the_start_does_nothing() -> None:
    driver = MeshDriver(config_of("a"))
    await driver.stop()
    await driver.start()
    await driver.stop()
    await driver.stop()
    driver.offer("models/0", b"late")  # a wish of somebody who has not noticed yet
    driver.withdraw("models/0")


async def test_how_late_the_mesh_s_thread_wakes_is_counted() -> None:
    async with mesh_of("a", "b") as (a, _):
        before = sum(a.counters().lags)
        await eventually(lambda: asyncio.sleep(0, sum(a.counters().lags) > before + 5), 1.0, what="wakes by the clock")
        assert 0 < a.counters().lag_sum_s < 60


def test_a_lag_falls_into_the_first_bucket_that_holds_it() -> None:
    counters = Counters()
    for seconds in (0.0, 0.001, 0.0011, 99.0):
        counters.lagged(seconds)
    assert (counters.lags[0], counters.lags[1], counters.lags[-1]) == (2, 1, 1)
    frozen = counters.snapshot()
    counters.lagged(0.0)
    assert sum(frozen.lags) == 4

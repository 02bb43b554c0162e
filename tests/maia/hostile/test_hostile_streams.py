"""Connections that nobody who belongs here would open: silent, slow, endless, huge; and members whose exchanges pass all the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from random import Random

import msgpack
import pytest
from tests.maia.hostile.enemy import KEY, MIB, OTHER_KEY, Town, config_of, enemy, resident_bytes, sealer, state_of, town
from tests.maia.wire.test_compress import compress
from tests.rig.eventually import eventually

from maia.config import Limits
from maia.drivers.doorway import HELD_BYTES_MAX
from maia.drivers.driver import MeshDriver
from maia.exchanges import EXCHANGE_TIMEOUT_S
from maia.wire.codec import encode
from maia.wire.frames import COMPRESSED_BYTES_MAX, EXPANDED_BYTES_MAX, STREAM_BYTES_MAX
from maia.wire.messages import Ping

# A buffer that grows is twice as large as what it holds, and copied for that; kept whole, they would be 320 MiB, and twice that.
MILLION = b"\xdd\x00\x0f\x42\x40" + b"\x90" * 1_000_000
GROWTH_BYTES_MAX = 4 * HELD_BYTES_MAX


def fields(**values: object) -> bytes:
    return bytes(msgpack.packb(values, use_bin_type=False))


def compressed(stream: bytes) -> bytes:
    return b"\x09" + fields(Algo=0, Buf=compress(stream, clears=True))


async def somebody_joins(there: Town, *, key: bytes = b"", title: str = "n", host: str = "127.0.0.1") -> None:
    """A newcomer's exchange is answered in spite of everything, and it is a member."""
    newcomer = MeshDriver(config_of(title, key=key, host=host))
    await newcomer.start()
    try:
        await newcomer.join([there.target.address], timeout_s=10.0)

        async def met() -> bool:
            return newcomer.view.me in there.target.view.members and len(newcomer.view.peers) >= len(there.drivers)

        await eventually(met, 2.0, what="the newcomer is a member")
        await newcomer.leave(timeout_s=2.0)
    finally:
        await newcomer.stop()


@pytest.mark.parametrize(
    ("what", "stream", "reason"),
    [
        ("a request of the web", b"GET / HTTP/1.1\r\n\r\n", "unknown-stream"),
        ("a label", b"\xf4\x03lab" + b"\x06\x80", "labelled"),
        ("2**31 members", b"\x06" + fields(Nodes=2**31), "bad-number"),
        ("20 MiB of Serf's state", b"\x06" + fields(Nodes=0, UserStateLen=20 * MIB), "bad-number"),
        ("a bomb", compressed(bytes(EXPANDED_BYTES_MAX + 1)), "too-long"),
        ("compression in compression", compressed(compressed(b"\x06\x80")), "unknown-stream"),
        ("a seal in the open", sealer().seal_stream(b"\x06\x80"), "sealed"),
        ("a million empty lists", b"\x06\x81\xa1x" + MILLION, "bad-msgpack"),
        ("lists in lists", b"\x06\x81\xa1x" + b"\x91" * 3000, "bad-msgpack"),
        ("offers of a million empty lists", b"\x06" + fields(Nodes=0, MaiaOffers=b"\x92\xa0" + MILLION), "bad-offers"),
        ("an ack to nothing", b"\x02" + fields(SeqNo=1), "unexpected-stream"),
        ("a ping for another", encode(Ping(1, "somebody-else")), "ping-for-another"),
    ],
)  # fmt: skip
async def test_what_nobody_would_say_ends_the_connection_without_an_answer(what: str, stream: bytes, reason: str) -> None:
    async with town("a", "b") as there, enemy() as foe:
        assert await foe.ask(stream, there.target) == b""
        await there.refuses(reason, what=what)
        assert there.target.counters().rejected_from[reason].host == foe.host
        await there.unharmed()


@pytest.mark.parametrize(
    ("what", "stream", "reason"),
    [
        ("no key", state_of(config_of("x")), "plaintext"),
        ("no key, and a ping", encode(Ping(1)), "plaintext"),
        ("another key", sealer(OTHER_KEY).seal_stream(state_of(config_of("x"))), "undecryptable"),
        ("a label", b"\xf4\x03lab" + sealer().seal_stream(b"\x06\x80"), "labelled"),
        ("four gigabytes", b"\x0a\xff\xff\xff\xff", "stream-too-long"),
        ("another length than was sealed", b"\x0a\x00\x00\x00\x30" + sealer().seal_stream(state_of(config_of("x")))[5:], "undecryptable"),
    ],
)
async def test_without_the_key_no_stream_is_answered(what: str, stream: bytes, reason: str) -> None:
    async with town("a", "b", key=KEY) as there, enemy() as foe:
        assert await foe.ask(stream, there.target) == b""
        await there.refuses(reason, what=what)
        await there.unharmed()


@pytest.mark.parametrize("host", ["127.0.9.9", "127.0.0.1"], ids=["from-elsewhere", "from-a-member-s-host"])
async def test_two_hundred_silent_connections_at_once_keep_no_member_out(host: str) -> None:
    async with town("a", "b", key=KEY) as there, enemy(host) as foe:
        for _ in range(200):
            await foe.connect(there.target)
        await there.refuses("too-many-streams", times=200 - Limits().streams_max)
        await somebody_joins(there, key=KEY)
        await there.unharmed()


async def test_whoever_says_nothing_or_one_byte_after_the_other_is_gone_after_ten_seconds() -> None:
    async with town("a", "b") as there, enemy() as foe:
        silent, _ = await foe.connect(there.target)
        slow, writer = await foe.connect(there.target)

        async def dribble() -> None:
            for byte in state_of(config_of("x")):
                writer.write(bytes((byte,)))
                await asyncio.wait([ended], timeout=1.0)

        ended = asyncio.ensure_future(slow.read())
        trickle = asyncio.create_task(dribble())
        async with asyncio.timeout(5 * EXCHANGE_TIMEOUT_S):
            for connection in (silent.read(), ended):
                with contextlib.suppress(ConnectionResetError):
                    assert await connection == b""
        trickle.cancel()
        await there.refuses("stream-too-slow", times=2)
        await there.unharmed()


async def test_what_strangers_have_us_keep_for_them_is_bounded() -> None:
    """Forty connections, each of which says that eight megabytes come, and sends all but the last byte."""
    announced = STREAM_BYTES_MAX - 64
    stream = b"\x0a" + announced.to_bytes(4, "big") + bytes(announced - 1)
    loop = asyncio.get_running_loop()
    async with town("a", "b", key=KEY) as there, enemy() as foe:
        warm = resident_bytes()

        async def feed() -> None:
            with socket.socket() as connection:
                connection.setblocking(False)
                connection.bind((foe.host, 0))
                await loop.sock_connect(connection, there.target.address)
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(connection, stream)  # which copies nothing: what grows is what the members keep
                    await loop.sock_recv(connection, 1)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(feed()) for _ in range(40)]
            await there.refuses("too-many-streams", times=40 - HELD_BYTES_MAX // STREAM_BYTES_MAX, within_s=5.0)
            grown = resident_bytes() - warm
            await somebody_joins(there, key=KEY)
            for task in tasks:
                task.cancel()
        print(f"grown by {grown / MIB:.0f} MiB")
        assert grown < GROWTH_BYTES_MAX
        await there.unharmed()


async def test_bombs_and_long_states_from_all_sides_leave_the_thread_its_time() -> None:
    """Four connections at once, each with as much work as a stream may hold."""
    slow = compressed(b"\xfe" + Random(1).randbytes(640 * 1024))  # what does not repeat is the most work
    assert MIB // 2 < len(slow) < COMPRESSED_BYTES_MAX
    async with town("a", "b") as there, enemy() as foe:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(foe.ask(slow, there.target))
            await somebody_joins(there)
            await there.unharmed()

        async def over() -> bool:
            # Unpacked and found to be nothing, or out of time before it was.
            return there.rejected("unknown-stream") + there.rejected("stream-too-slow") == 4

        await eventually(over, EXCHANGE_TIMEOUT_S, what="four streams ended")
        await there.unharmed()


async def test_who_takes_no_answer_keeps_nothing_for_long() -> None:
    """Exchanges that are asked for and never read: their answers are held, bounded, and dropped."""
    async with town("a", "b") as there, enemy() as foe:
        request = state_of(config_of("b"))
        for _ in range(150):
            _, writer = await foe.connect(there.target)
            writer.write(request)
        await somebody_joins(there)
        await there.unharmed()

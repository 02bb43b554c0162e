"""One cluster of stock `serf` agents and nodes of ours: in the clear, compressed and sealed, at rest and when somebody is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import SystemRandom

import msgpack
import pytest
from tests.interop.conftest import Agent, Agents, free_address
from tests.maia.talk import config_of
from tests.rig.eventually import eventually
from tests.rig.server_process import ROOT

from maia.config import LAN, LAN_FAST, Address, Profile
from maia.core import Mesh
from maia.drivers.driver import MeshDriver
from maia.drivers.streams import StreamServer, Turns, dial
from maia.errors import JoinFailed
from maia.keyring import Keyring
from maia.view import Counters
from maia.wire.codec import encode
from maia.wire.frames import StreamDecoder
from maia.wire.messages import Ack, Ping, PushPull
from maia.wire.seal import Sealer
from maia.wire.tags import encode_tags

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

AES_128, AES_256 = b"k" * 16, b"K" * 32
A, B = "ours-a-000001", "ours-b-000002"
Quiet = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]

MEET_GOAL_S = 2.0  # a rumour's way through four members whose gossip comes every 200 ms
# Suspicion of a stock agent lasts 4 s below ten members; before it a turn in the round, and a probe of one second.
STOCK_DEATH_GOAL_S = 7.0
# Two stock agents alone: up to two seconds until its turn, one second for the probe, four of suspicion.
OUR_DEATH_GOAL_S = 8.0


@asynccontextmanager
async def node(name: str, *, number: int, seed: Address, key: bytes = b"", profile: Profile = LAN_FAST) -> AsyncIterator[MeshDriver]:
    """A node of ours that has joined through `seed`."""
    config = replace(
        config_of(name, number=number, profile=profile),
        gossip=free_address(number),
        serf=True,
        keyring=Keyring((key,)) if key else None,
    )
    driver = MeshDriver(config)
    await driver.start()
    try:
        await driver.join([seed], timeout_s=10.0)
        yield driver
    finally:
        await driver.stop()


def sees(driver: MeshDriver, **statuses: str) -> Callable[[], Awaitable[bool]]:
    """Whether a node of ours sees exactly these others, by name with "_" for "-"."""
    wanted = {name.replace("_", "-"): status for name, status in statuses.items()}

    async def predicate() -> bool:
        seen = {member.name: member.status for member in driver.view.peers}
        assert seen == wanted, f"{driver.view.me} sees {seen}"
        return True

    return predicate


@pytest.mark.parametrize(
    ("key", "compressed", "profile"),
    [(b"", True, LAN_FAST), (b"", False, LAN), (AES_128, True, LAN), (AES_256, True, LAN_FAST)],
    ids=["compressed", "plain", "aes-128", "aes-256"],
)
async def test_stock_agents_and_our_nodes_are_one_cluster_in_which_nobody_doubts_anybody(
    agents: Agents, quiet: Quiet, key: bytes, compressed: bool, profile: Profile
) -> None:
    one = await agents.start("stock-1", key=key, compressed=compressed)
    async with node(A, number=1, seed=one.address, key=key, profile=profile) as a:
        # The second agent joins through us.
        two = await agents.start("stock-2", key=key, compressed=compressed, join=a.address)
        async with node(B, number=2, seed=two.address, key=key, profile=profile) as b:
            everybody = {"stock_1": "alive", "stock_2": "alive", "ours_a_000001": "alive", "ours_b_000002": "alive"}
            for agent in (one, two):
                await eventually(agent.sees(**everybody), MEET_GOAL_S, what=f"{agent.name} sees all four")
            for driver, own in ((a, "ours_a_000001"), (b, "ours_b_000002")):
                others = {name: status for name, status in everybody.items() if name != own}
                await eventually(sees(driver, **others), MEET_GOAL_S, what=f"{driver.view.me} sees the others")
                _, tags = (await one.members())[driver.view.me]
                assert tags == msgpack.unpackb(encode_tags(driver.config)[1:])

            async def nobody_doubts() -> None:
                for agent in (one, two):
                    assert agent.doubts() == []
                for driver in (a, b):
                    counters = driver.counters()
                    assert (counters.suspicions, counters.refutations, counters.rejected) == (0, 0, {})
                    assert {member.status for member in driver.view.members.values()} == {"alive"}

            await quiet(nobody_doubts)
            assert one.complaints() == two.complaints() == []
            assert a.counters().pings > 2
            assert a.counters().probes_failed == b.counters().probes_failed == 0


async def test_open_and_sealed_members_do_not_hear_each_other(agents: Agents) -> None:
    stock = await agents.start("stock", key=AES_128)
    for key, reason in ((b"", "sealed"), (AES_256, "undecryptable")):
        config = replace(config_of(A, number=1), gossip=free_address(1), serf=True, keyring=Keyring((key,)) if key else None)
        driver = MeshDriver(config)
        await driver.start()
        try:
            joining = asyncio.create_task(driver.join([stock.address], timeout_s=1.0))
            # It hears of our address by a plain push/pull that it refuses, so it is told by somebody that it does hear.
            decoder = StreamDecoder(Sealer(Keyring((AES_128,)), random=SystemRandom()))
            friend = Mesh(replace(config, keyring=Keyring((AES_128,))), random=SystemRandom(), now=0.0)
            friend.join([stock.address], now=0.0)
            friend.tick(now=1.0)
            (exchange,) = friend.exchanges()
            await dial(stock.address, exchange.request, timeout_s=5.0, decoder=decoder, counters=Counters(), turns=Turns())

            async def refused(driver: MeshDriver = driver, reason: str = reason) -> bool:
                return driver.counters().rejected.get(reason, 0) > 0

            await eventually(refused, 3.0, what=f"what the stock agent seals is refused as {reason}")
            assert driver.view.peers == ()
            with pytest.raises(JoinFailed):
                await joining
        finally:
            await driver.stop()


@pytest.mark.parametrize("key", [b"", AES_256], ids=["plain", "aes-256"])
async def test_a_stock_agent_answers_our_ping_by_stream(agents: Agents, key: bytes) -> None:
    stock = await agents.start("stock", key=key)
    sealer = Sealer(Keyring((key,)), random=SystemRandom()) if key else None
    request = encode(Ping(7, "stock", Address("127.0.0.1", 1), "somebody"))
    reply = await dial(
        stock.address,
        sealer.seal_stream(request) if sealer else request,
        timeout_s=5.0,
        decoder=StreamDecoder(sealer),
        counters=Counters(),
        turns=Turns(),
    )
    assert reply == Ack(7)
    assert stock.complaints() == []


async def test_a_stock_agent_that_hears_no_datagram_of_ours_finds_us_alive_by_stream(agents: Agents) -> None:
    stock = await agents.start("stock")
    config = replace(config_of(A, number=1), gossip=free_address(1), serf=True)
    mesh = Mesh(config, random=SystemRandom(), now=0.0)
    server = StreamServer(
        lambda request: mesh.answer(request, now=0.0),
        decoder=mesh.decoder,
        is_member=lambda _: True,
        counters=mesh.counters,
        turns=Turns(),
        streams_max=8,
    )
    await server.open(config.gossip)
    try:
        mesh.join([stock.address], now=0.0)
        mesh.tick(now=1.0)
        (exchange,) = mesh.exchanges()
        reply = await dial(stock.address, exchange.request, timeout_s=5.0, decoder=mesh.decoder(), counters=mesh.counters, turns=Turns())
        assert isinstance(reply, PushPull)

        async def found() -> bool:
            return f"Was able to connect to {A}" in stock.log

        await eventually(found, 4.0, what="the stock agent reaches us by TCP alone")
        assert (await stock.members())[A][0] == "alive"
        assert not [line for line in stock.complaints() if "[ERR]" in line]
    finally:
        await server.close()


async def test_a_stock_agent_that_is_killed_is_noticed_by_us(agents: Agents) -> None:
    one = await agents.start("stock-1")
    two = await agents.start("stock-2", join=one.address)
    async with node(A, number=1, seed=one.address) as a, node(B, number=2, seed=one.address) as b:
        await eventually(sees(a, stock_1="alive", stock_2="alive", ours_b_000002="alive"), MEET_GOAL_S, what="a node of ours sees all")
        await eventually(sees(b, stock_1="alive", stock_2="alive", ours_a_000001="alive"), MEET_GOAL_S, what="a member sees all")
        two.kill()
        for driver, other in ((a, "ours_b_000002"), (b, "ours_a_000001")):
            statuses = {"stock_1": "alive", "stock_2": "dead", other: "alive"}
            await eventually(sees(driver, **statuses), STOCK_DEATH_GOAL_S, what=f"{driver.view.me} gives up the killed agent")
        await eventually(
            one.sees(stock_1="alive", stock_2="failed", ours_a_000001="alive", ours_b_000002="alive"), 1.0, what="and so does the stock one"
        )


async def start_in_a_process(name: str, seed: Agent) -> asyncio.subprocess.Process:
    gossip = free_address(9)
    words = [name, gossip.host, str(gossip.port), seed.address.host, str(seed.address.port)]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.interop.one_node", *words, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"joined\n"
    return process


async def test_a_node_of_ours_that_is_killed_is_noticed_by_stock_agents(agents: Agents) -> None:
    one = await agents.start("stock-1")
    two = await agents.start("stock-2", join=one.address)
    process = await start_in_a_process(A, one)
    try:
        for agent in (one, two):
            await eventually(agent.sees(stock_1="alive", stock_2="alive", ours_a_000001="alive"), MEET_GOAL_S, what="a member sees all")
        assert one.complaints() == two.complaints() == []
        process.kill()
        await process.wait()
        for agent in (one, two):
            await eventually(
                agent.sees(stock_1="alive", stock_2="alive", ours_a_000001="failed"), OUR_DEATH_GOAL_S, what=f"{agent.name} gives us up"
            )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

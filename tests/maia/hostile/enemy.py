"""Real drivers on loopback, and somebody on another address of it who wants them harm: `Town` and `Enemy`.

The members' own patience is that of memberlist's LAN, half a second a probe, so that a busy machine is not taken for a successful attack.
How much later than it wanted to a member's thread woke is printed, and held to the timeout of `lan-fast` where goals are asserted.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import psutil
from tests.maia.keys import key_of
from tests.rig.eventually import FIGURES, eventually

from maia.config import LAN, Address, Limits, MeshConfig
from maia.drivers.driver import MeshDriver
from maia.keyring import Keyring
from maia.view import LAG_BUCKETS_S, Counters
from maia.wire.frames import encode_push_pull
from maia.wire.messages import NodeState, PushPull
from maia.wire.seal import Sealer
from maia.wire.tags import encode_tags

ENEMY_HOST = "127.0.9.9"
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
WATCHFUL = replace(LAN, probe_interval_s=0.6, push_pull_interval_s=600.0)
WINDOW = 32  # datagrams on their way at once: fewer than the smallest socket buffer holds, so that every one is heard
MIB = 1024 * 1024


def config_of(title: str, *, key: bytes = b"", host: str = "127.0.0.1", cluster_id: str = "", limits: Limits | None = None) -> MeshConfig:
    return MeshConfig(
        name=f"{title}-abcdef",
        title=title,
        signer=key_of(f"{title}-abcdef"),
        generation=1,
        gossip=Address(host, 0),
        profile=WATCHFUL,
        cluster_id=cluster_id,
        keyring=Keyring((key,)) if key else None,
        limits=limits or Limits(),
    )


class Town:
    """Members that have met. `unharmed` is the verdict on every attack."""

    def __init__(self, drivers: list[MeshDriver]) -> None:
        self.drivers = drivers
        self._before = [driver.counters() for driver in drivers]

    @property
    def target(self) -> MeshDriver:
        return self.drivers[0]

    def rejected(self, reason: str) -> int:
        """How often the target refused something for this reason since the beginning."""
        return self.target.counters().rejected.get(reason, 0) - self._before[0].rejected.get(reason, 0)

    def reasons(self) -> list[str]:
        return sorted(reason for reason in self.target.counters().rejected if self.rejected(reason))

    async def refuses(self, reason: str, *, times: int = 1, what: str = "", within_s: float = 2.0) -> None:
        async def predicate() -> bool:
            assert self.rejected(reason) >= times, (
                f"{self.rejected(reason)} of {times} refused as {reason}: {self.target.counters().rejected}"
            )
            return True

        await eventually(predicate, within_s, what=what or f"{times} refused as {reason}")

    async def heard(self, datagrams: int) -> None:
        async def predicate() -> bool:
            return self.target.counters().datagrams_in >= datagrams

        await eventually(predicate, 2.0, what=f"{datagrams} datagrams heard")

    async def unharmed(self) -> None:
        """Everybody still sees everybody, after two more rounds of probes that were answered; nobody was doubted, nobody stood still."""
        acked = [driver.counters().probes_acked for driver in self.drivers]

        async def probed() -> bool:
            return all(driver.counters().probes_acked >= before + 2 for driver, before in zip(self.drivers, acked, strict=True))

        await eventually(probed, 3.0, what="two more probes answered everywhere")
        names = sorted(driver.view.me for driver in self.drivers)
        for driver, before in zip(self.drivers, self._before, strict=True):
            after = driver.counters()
            assert {member.name for member in driver.view.members.values() if member.usable} >= set(names)
            doubts = {name: [seen.status for seen in driver.view.members[name].history if seen.status != "alive"] for name in names}
            assert (doubts, after.stalls) == ({name: [] for name in names}, before.stalls), f"what {driver.view.me} thought of others"
            late = lateness(before, after)
            print(f"{driver.view.me}: woke up to {late:g} s late")
            if FIGURES in os.environ:
                assert late <= 0.08


def lateness(before: Counters, after: Counters) -> float:
    """The bound of the last bucket into which a wake fell in between."""
    grown = [late - earlier for earlier, late in zip(before.lags, after.lags, strict=True)]
    last = max((index for index, count in enumerate(grown) if count), default=0)
    return (*LAG_BUCKETS_S, float("inf"))[last]


@asynccontextmanager
async def town(*titles: str, key: bytes = b"", cluster_id: str = "", limits: Limits | None = None) -> AsyncIterator[Town]:
    drivers = [MeshDriver(config_of(title, key=key, cluster_id=cluster_id, limits=limits)) for title in titles]
    try:
        for driver in drivers:
            await driver.start()
        for driver in drivers[1:]:
            await driver.join([drivers[0].address], timeout_s=5.0)

        async def met() -> bool:
            return all(len(driver.view.peers) == len(drivers) - 1 for driver in drivers)

        await eventually(met, 2.0, what="everybody met")
        yield Town(drivers)
    finally:
        for driver in drivers:
            await driver.stop()


class Enemy:
    """One address of its own, with as many sockets as it likes."""

    def __init__(self, host: str = ENEMY_HOST) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        self.host = host
        self.address = Address(*self.socket.getsockname())
        self.connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def say(self, datagram: bytes, target: Address) -> None:
        self.socket.sendto(datagram, target)

    def answers(self) -> list[bytes]:
        """What came back so far."""
        answers: list[bytes] = []
        while True:
            try:
                answers.append(self.socket.recv(65_536))
            except BlockingIOError:
                return answers

    async def flood(self, datagrams: Iterable[bytes], driver: MeshDriver) -> int:
        """Send all of these, as fast as they are heard. How many they were."""
        before = driver.counters().datagrams_in
        sent = 0
        for datagram in datagrams:
            self.say(datagram, driver.address)
            sent += 1
            if not sent % WINDOW:
                await _until_heard(driver, before + sent - WINDOW)
        await _until_heard(driver, before + sent)
        return sent

    async def connect(self, driver: MeshDriver) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(driver.address.host, driver.address.port, local_addr=(self.host, 0))
        self.connections.append((reader, writer))
        return reader, writer

    async def ask(self, stream: bytes, driver: MeshDriver) -> bytes:
        """Say that over TCP; what is answered until the connection ends."""
        reader, writer = await self.connect(driver)
        writer.write(stream)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        self.socket.close()
        for _, writer in self.connections:
            writer.transport.abort()


async def _until_heard(driver: MeshDriver, count: int) -> None:
    async with asyncio.timeout(20):
        while driver.counters().datagrams_in < count:
            await asyncio.sleep(0.0005)


@asynccontextmanager
async def enemy(host: str = ENEMY_HOST) -> AsyncIterator[Enemy]:
    somebody = Enemy(host)
    try:
        yield somebody
    finally:
        somebody.close()


def sealer(key: bytes = KEY) -> Sealer:
    return Sealer(Keyring((key,)), random=Random(1))


def state_of(config: MeshConfig, *others: NodeState, offers: bytes = b"") -> bytes:
    """What somebody with this configuration says when it dials, in the clear."""
    from maia.wire.messages import STATE_ALIVE, Alive

    me = NodeState(Alive(1, config.name, config.gossip, encode_tags(config)), STATE_ALIVE)
    return encode_push_pull(PushPull((me, *others), True, offers=offers))


def resident_bytes() -> int:
    return psutil.Process().memory_info().rss

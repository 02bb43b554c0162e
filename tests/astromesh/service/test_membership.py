"""A node's place in the mesh from its start to its end: what was begun is carried through, and what matters is on disk."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.rig.eventually import eventually
from tests.rig.ports import free_port

from astromesh.fleet.offers import Offer
from astromesh.service.mesh import MeshMembership
from astromesh.service.record import Record, RecordFile
from astromesh.service.settings import settle
from astromesh.specs.runtime import Runtime
from maia.config import Address
from maia.drivers.switchboard import Switchboard
from maia.wire.codec import encode
from maia.wire.messages import Suspect


@asynccontextmanager
async def member(data: Path, *, join: tuple[str, ...] = ()) -> AsyncIterator[MeshMembership]:
    """Alone on loopback, and not stopped."""
    settings = settle(
        flags={"gossip": "127.0.0.1:0", "link": "127.0.0.1:0", "api": "127.0.0.1:0", "join": join},
        environment={},
        runtime=Runtime.unwritten(),
        folder=data,
        data_default=data,
        hostname="here",
    ).values
    membership = MeshMembership(settings, RecordFile(data), offer=Offer)
    async with Switchboard(me=membership.greeting, handlers={}) as board:
        await membership.start(board)
        yield membership


def accuse(membership: MeshMembership) -> None:
    """By a datagram: it refutes, and has to remember with which incarnation."""
    view = membership.view
    assert view is not None
    gossip: Address = view.myself.gossip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(encode(Suspect(view.myself.incarnation, membership.name, "somebody")), gossip)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "maia"]


async def test_what_a_node_has_to_remember_is_on_disk_when_it_has_stopped(tmp_path: Path) -> None:
    one_worker = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(one_worker)
    disk_is_slow = threading.Event()
    async with member(tmp_path) as membership:
        raised: list[object] = []
        membership.listen(raised.append)
        before = RecordFile(tmp_path).read().incarnation
        one_worker.submit(disk_is_slow.wait)
        accuse(membership)
        await eventually(lambda: _true(raised), 1.0, what="the refutation")
        stopping = asyncio.create_task(membership.stop())
        await asyncio.sleep(0)
        disk_is_slow.set()
        await stopping
    assert RecordFile(tmp_path).read().incarnation > before


async def test_a_farewell_that_was_begun_is_carried_through_by_a_node_that_stops(tmp_path: Path) -> None:
    async with member(tmp_path) as membership:
        first_life = RecordFile(tmp_path).read()
        leaving = asyncio.create_task(membership.leave())
        await asyncio.sleep(0)
        await membership.stop()
        await leaving
    assert RecordFile(tmp_path).read() == Record(first_life.generation + 1, first_life.incarnation + 1, left=True)
    assert threads() == []


async def test_a_disk_that_does_not_take_the_record_stops_nothing_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    async with member(tmp_path / "data") as membership:
        shutil.rmtree(tmp_path / "data")
        await membership.leave()
        [warning] = membership.warnings()
        assert "node.json cannot be written" in warning
        (tmp_path / "data").mkdir()
        accuse(membership)
        await eventually(lambda: _true(not membership.warnings()), 1.0, what="the record is written again")
        await membership.stop()


async def _true(value: object) -> object:
    return value


async def test_who_comes_stands_in_the_log_as_who_goes_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="astromesh.service.mesh")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    async with member(tmp_path / "one") as one, member(tmp_path / "two") as two:
        view = one.view
        assert view is not None
        await two.join(str(view.myself.gossip))

        async def both_are_told() -> bool:
            return all(f"{node.name} is here" in caplog.messages for node in (one, two))

        await eventually(both_are_told, goal_s=1.0)
        await two.stop()
        await one.stop()


async def test_whom_a_node_asks_stands_in_the_log_before_anybody_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="astromesh.service.mesh")
    nobody = f"127.0.0.1:{free_port()}"
    async with member(tmp_path, join=(nobody,)) as one:

        async def it_is_told() -> bool:
            return f"looking for the mesh: asking {nobody}" in caplog.messages

        await eventually(it_is_told, goal_s=0.5)
        assert one.warnings() == ()
        await one.stop()

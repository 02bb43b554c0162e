"""Two drivers on real sockets: one asks about keys and waits for the answers of both."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.maia.talk import config_of
from tests.rig.eventually import eventually

from maia.config import Address
from maia.drivers.driver import MeshDriver
from maia.errors import MisuseError
from maia.keyring import Keyring
from maia.view import KeyQueryEnded, KeyringChanged, MeshEvent

OLD, NEW = b"o" * 16, b"n" * 32
ASK_GOAL_S = 1.0


def driver_of(number: int) -> MeshDriver:
    config = config_of(f"n{number}-{number:06}", number=number)
    return MeshDriver(replace(config, gossip=Address("127.0.0.1", 0), keyring=Keyring((OLD,))))


async def test_who_asks_gets_all_answers_and_both_have_the_key_then() -> None:
    one, other = driver_of(1), driver_of(2)
    told: list[MeshEvent] = []
    await one.start()
    await other.start()
    try:
        other.subscribe(told.append)
        await other.join([one.address], timeout_s=10)

        async def met() -> bool:
            return len(one.view.peers) == 1

        await eventually(met, ASK_GOAL_S, what="they meet")
        ended = await one.ask_keys("install", NEW, timeout_s=5 * ASK_GOAL_S)
        assert (ended.asked, sorted(reply.node for reply in ended.replies)) == (("n1-000001", "n2-000002"), ["n1-000001", "n2-000002"])
        assert one.keyring == other.keyring == Keyring((OLD, NEW))

        async def heard() -> bool:
            return KeyringChanged() in told

        await eventually(heard, ASK_GOAL_S, what="the other's owner learns that its keys changed")
        assert not [event for event in told if isinstance(event, KeyQueryEnded)]
        with pytest.raises(MisuseError, match="takes no key"):
            await one.ask_keys("use", None, timeout_s=5 * ASK_GOAL_S)
    finally:
        await one.stop()
        await other.stop()

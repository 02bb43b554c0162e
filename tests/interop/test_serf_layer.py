"""Serf's layer beside real `serf` agents: who left has left, what is told and asked crosses, and keys change everywhere."""

from __future__ import annotations

import base64
import socket

import pytest
from tests.interop.conftest import Agent, Agents
from tests.interop.test_serf_wire import AES_128, AES_256, MEET_GOAL_S, A, B, Quiet, node, sees
from tests.rig.eventually import eventually

from maia.config import Address
from maia.drivers.driver import MeshDriver
from maia.keyring import Keyring, text_of
from maia.view import KeyOperation
from maia.wire.codec import encode
from maia.wire.messages import Alive

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

LEAVE_GOAL_S = 3.0  # an agent waits for its intent to be sent, says goodbye and waits a second more
CROSS_GOAL_S = 2.0  # a rumour's way through four members whose gossip comes every 200 ms
KEYS_GOAL_S = 5.0
CONFLICT_GOAL_S = 5.0  # a stock agent waits for answers as long as for any query, 3.2 s


async def everybody(agents: list[Agent], drivers: list[MeshDriver]) -> None:
    """Waits until all see all."""
    names = [*(agent.name for agent in agents), *(driver.view.me for driver in drivers)]
    for agent in agents:
        await eventually(agent.sees(**_alive(names)), MEET_GOAL_S, what=f"{agent.name} sees everybody")
    for driver in drivers:
        others = [name for name in names if name != driver.view.me]
        await eventually(sees(driver, **_alive(others)), MEET_GOAL_S, what=f"{driver.view.me} sees everybody")


def _alive(names: list[str], **others: str) -> dict[str, str]:
    return {name.replace("-", "_"): "alive" for name in names} | others


@pytest.mark.parametrize("key", [b"", AES_256], ids=["plain", "aes-256"])
async def test_whoever_leaves_has_left_for_either_kind_and_nobody_ever_failed(agents: Agents, key: bytes) -> None:
    one = await agents.start("stock-1", key=key)
    async with node(A, number=1, seed=one.address, key=key) as a, node(B, number=2, seed=one.address, key=key) as b:
        two = await agents.start("stock-2", key=key, join=a.address)
        await everybody([one, two], [a, b])
        await b.leave(timeout_s=3.0)
        await b.stop()
        for agent in (one, two):
            await eventually(agent.sees(**_alive(["stock-1", "stock-2", A], ours_b_000002="left")), LEAVE_GOAL_S, what="ours has left")
        await eventually(sees(a, stock_1="alive", stock_2="alive", ours_b_000002="left"), LEAVE_GOAL_S, what="for its like as well")
        assert two.complaints() == []  # from here on it warns of its own end
        await two.command("leave")
        await eventually(sees(a, stock_1="alive", stock_2="left", ours_b_000002="left"), LEAVE_GOAL_S, what="the stock one has left")
        await eventually(
            one.sees(**_alive(["stock-1", A], stock_2="left", ours_b_000002="left")), LEAVE_GOAL_S, what="for its like as well"
        )
        for agent in (one, two):
            assert "EventMemberFailed" not in agent.log
            assert agent.doubts() == []
        assert one.complaints() == []
        assert a.counters().deaths == 0
        # And who left is welcome again.
        async with node(B, number=2, seed=one.address, key=key):
            await eventually(sees(a, stock_1="alive", stock_2="left", ours_b_000002="alive"), LEAVE_GOAL_S, what="it returns")
            await eventually(one.sees(**_alive(["stock-1", A, B], stock_2="left")), LEAVE_GOAL_S, what="for the stock agent as well")
        assert one.complaints() == []


async def test_a_dead_agent_that_is_made_to_leave_has_left_here_as_well(agents: Agents) -> None:
    one = await agents.start("stock-1")
    two = await agents.start("stock-2", join=one.address)
    async with node(A, number=1, seed=one.address) as a:
        await everybody([one, two], [a])
        two.kill()
        await eventually(sees(a, stock_1="alive", stock_2="dead"), 7.0, what="a killed agent is dead")
        await eventually(one.sees(**_alive(["stock-1", A], stock_2="failed")), 2.0, what="and failed")
        await one.command("force-leave", "stock-2")
        await eventually(sees(a, stock_1="alive", stock_2="left"), CROSS_GOAL_S, what="it has left here")


async def test_a_living_node_of_ours_that_somebody_makes_leave_stays(agents: Agents) -> None:
    one = await agents.start("stock-1")
    # With a third member, or the agent has nobody to tell.
    async with node(A, number=1, seed=one.address) as a, node(B, number=2, seed=one.address) as b:
        await everybody([one], [a, b])
        await one.command("force-leave", A)

        async def refuted() -> bool:
            return a.counters().intents > 0 and (await one.members())[A][0] == "alive"

        await eventually(refuted, CROSS_GOAL_S, what="it says that it stays")
        assert {member.status for driver in (a, b) for member in driver.view.peers} == {"alive"}
        assert one.complaints() == []


@pytest.mark.parametrize("key", [b"", AES_128], ids=["plain", "aes-128"])
async def test_what_people_tell_and_ask_crosses_nodes_of_ours_and_every_member_can_be_reached(agents: Agents, key: bytes) -> None:
    one = await agents.start("stock-1", key=key)
    async with node(A, number=1, seed=one.address, key=key) as a, node(B, number=2, seed=a.address, key=key) as b:
        two = await agents.start("stock-2", key=key, join=b.address)
        await everybody([one, two], [a, b])
        await one.command("event", "deploy", "v1.2")

        async def heard() -> bool:
            return "agent: Received event: user-event: deploy" in two.log and a.counters().user_events == b.counters().user_events == 1

        await eventually(heard, CROSS_GOAL_S, what="an event reaches everybody")
        said = await two.command("query", "-timeout=1s", "uptime")
        assert "Ack from 'stock-1'" in said
        reached = await one.command("reachability")
        assert "Successfully contacted all live nodes" in reached
        assert one.complaints() == two.complaints() == []
        assert a.counters().rejected == b.counters().rejected == {}


async def test_stock_agents_change_the_keys_of_all_members(agents: Agents, quiet: Quiet) -> None:
    one = await agents.start("stock-1", key=AES_128)
    async with node(A, number=1, seed=one.address, key=AES_128) as a, node(B, number=2, seed=one.address, key=AES_128) as b:
        two = await agents.start("stock-2", key=AES_128, join=a.address)
        await everybody([one, two], [a, b])
        old, new = (base64.b64encode(key).decode() for key in (AES_128, AES_256))
        assert f"{old}  [4/4]" in await one.command("keys", "-list")
        for step, ring in (
            (f"-install={new}", Keyring((AES_128, AES_256))),
            (f"-use={new}", Keyring((AES_256, AES_128))),
            (f"-remove={old}", Keyring((AES_256,))),
        ):
            assert "Successfully" in await one.command("keys", step)
            assert a.keyring == b.keyring == ring
        assert f"{new}  [4/4]" in await two.command("keys", "-list")

        async def nobody_doubts() -> None:
            assert one.doubts() == two.doubts() == []
            assert {member.status for driver in (a, b) for member in driver.view.peers} == {"alive"}

        await quiet(nobody_doubts)
        assert one.complaints() == two.complaints() == []


async def test_a_node_of_ours_changes_the_keys_of_all_members(agents: Agents) -> None:
    one = await agents.start("stock-1", key=AES_128)
    async with node(A, number=1, seed=one.address, key=AES_128) as a, node(B, number=2, seed=one.address, key=AES_128) as b:
        two = await agents.start("stock-2", key=AES_128, join=a.address)
        await everybody([one, two], [a, b])
        steps: list[tuple[KeyOperation, bytes | None]] = [("install", AES_256), ("use", AES_256), ("remove", AES_128), ("list", None)]
        for operation, key in steps:
            ended = await a.ask_keys(operation, key, timeout_s=5 * KEYS_GOAL_S)
            assert sorted(reply.node for reply in ended.replies) == sorted(ended.asked) == sorted(["stock-1", "stock-2", A, B])
            assert all(reply.ok for reply in ended.replies), ended
        assert {(reply.keys, reply.primary) for reply in ended.replies} == {((text_of(AES_256),), text_of(AES_256))}
        assert a.keyring == b.keyring == Keyring((AES_256,))
        assert one.complaints() == two.complaints() == []
        refused = await a.ask_keys("remove", AES_256, timeout_s=5 * KEYS_GOAL_S)
        assert {(reply.ok, reply.message) for reply in refused.replies} == {(False, "Removing the primary key is not allowed")}


async def test_a_stock_agent_whose_name_is_claimed_lives_on_among_nodes_of_ours(agents: Agents) -> None:
    one = await agents.start("stock-1")
    async with node(A, number=1, seed=one.address) as a, node(B, number=2, seed=one.address) as b:
        await everybody([one], [a, b])
        claim = encode(Alive(7, one.name, Address(one.address.host, one.address.port + 1)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as impostor:
            impostor.sendto(claim, (one.address.host, one.address.port))
        decided = "majority in name conflict resolution"

        async def resolved() -> bool:
            return decided in one.log or decided.replace("majority", "minority") in one.log

        await eventually(resolved, CONFLICT_GOAL_S, what="it has asked who has its name")
        assert f"[INFO] serf: {decided}" in one.log
        assert one.process.poll() is None

"""Cables that are pulled, filters in between, addresses that change: five real nodes on a network with faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster.five import (
    EVERYBODY,
    FAST,
    OFFERED,
    PATIENT,
    WATCHED_S,
    Five,
    everybody_lives,
    five_nodes,
    offered_everywhere,
    row,
    stays,
)
from tests.rig.documents import agent
from tests.rig.eventually import eventually
from tests.rig.nodes import node_process

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

PARTED_GOAL_S = 10.0
HEALED_GOAL_S = 5.0
# One knock in ten goes over TCP, and each side knocks about once a second.
HEALED_BY_TCP_GOAL_S = 20.0
DEATH_GOAL_S = 5.0
RETURN_GOAL_S = 5.0


async def part(five: Five, one: str, other: str) -> None:
    """Cut, and wait until each side has given up the other."""
    five.loopback.part(five.hosts(one), five.hosts(other))
    for side, lost in ((one, other), (other, one)):
        wanted = {**dict.fromkeys(side, "alive"), **dict.fromkeys(lost, "dead")}
        await five.all_see(wanted, by=side, goal_s=PARTED_GOAL_S, what=f"{side} give up {lost}")


async def test_a_mesh_cut_in_two_gives_up_the_other_side_and_is_whole_again_once_healed() -> None:
    async with five_nodes() as five:
        await part(five, "ab", "cde")
        five.loopback.heal()
        await five.all_see(EVERYBODY, goal_s=HEALED_GOAL_S, what="both sides are one mesh again")
        await eventually(lambda: offered_everywhere(five), HEALED_GOAL_S, what="what e offers is known everywhere again")


async def test_two_sides_that_lost_each_other_are_one_mesh_again_although_only_tcp_passes() -> None:
    async with five_nodes() as five:
        await part(five, "ab", "cde")
        five.loopback.heal(protocol="tcp")
        await five.all_see(EVERYBODY, goal_s=HEALED_BY_TCP_GOAL_S, what="both sides are one mesh again, by TCP")
        await stays(lambda: everybody_lives(five), WATCHED_S)


@pytest.mark.parametrize("back", [False, True], ids=["in-one-direction", "both-ways"])
async def test_a_cut_between_two_nodes_kills_neither(back: bool) -> None:
    async with five_nodes() as five:
        before = await five.doubts()
        five.loopback.cut(five["b"].host, five["d"].host)
        if back:
            five.loopback.cut(five["d"].host, five["b"].host)
        await stays(lambda: everybody_lives(five), WATCHED_S)
        since = await five.nobody_died_since(before)
        assert since["b"].late + since["d"].late > 0, "the cut was not noticed at all"


async def test_two_nodes_between_which_no_udp_passes_do_not_lose_each_other() -> None:
    async with five_nodes() as five:
        before = await five.doubts()
        five.loopback.part(five.hosts("b"), five.hosts("d"), protocol="udp")
        await stays(lambda: everybody_lives(five), WATCHED_S)
        since = await five.nobody_died_since(before)
        assert since["b"].late + since["d"].late > 0, "the filter was not noticed at all"


async def test_a_node_whose_udp_reaches_nobody_lives_by_tcp() -> None:
    async with five_nodes() as five:
        before = await five.doubts()
        five.loopback.part(five.hosts("e"), five.hosts("abcd"), protocol="udp")
        await stays(lambda: everybody_lives(five), WATCHED_S)
        since = await five.nobody_died_since(before)
        assert all(since[name].late > 0 for name in "abcd"), "the filter was not noticed by all"


async def test_a_node_whose_udp_reaches_nobody_is_back_by_tcp_after_it_hung() -> None:
    async with five_nodes() as five:
        five.loopback.part(five.hosts("e"), five.hosts("abcd"), protocol="udp")
        five["e"].pause()
        await five.all_see({**EVERYBODY, "e": "dead"}, by="abcd", goal_s=DEATH_GOAL_S, what="e is given up")
        five["e"].resume()
        await five.all_see(EVERYBODY, goal_s=RETURN_GOAL_S, what="e is back")
        await eventually(lambda: offered_everywhere(five), RETURN_GOAL_S, what="what e offers is known everywhere again")


@pytest.mark.parametrize("known_as", ["alive", "dead", "left"])
async def test_a_node_that_comes_back_at_another_address_is_the_same_one(tmp_path: Path, known_as: str) -> None:
    speed = PATIENT if known_as == "alive" else FAST
    async with five_nodes(e={"data": tmp_path, "arguments": speed}) as five:
        before, doubted = await row(five["a"], "e"), await five.doubts("abcd")
        if known_as == "left":
            await five["e"].stop()
        else:
            await five["e"].kill()
        if known_as != "alive":
            await five.all_see({**EVERYBODY, "e": known_as}, by="abcd", goal_s=DEATH_GOAL_S, what=f"e is {known_as}")
        moved = node_process(
            "e",
            host=five.loopback.host(),
            data=tmp_path,
            join=[five["a"].gossip],
            config=agent(OFFERED, model="lamp", provider_name=None),
            arguments=speed,
        )
        async with moved as five.nodes["e"]:
            await five.all_see(EVERYBODY, goal_s=RETURN_GOAL_S, what="e is back")

            async def known_at_its_new_address() -> bool:
                for name in EVERYBODY:
                    found = await row(five[name], "e")
                    assert (found["gossip"], found["url"]) == (five["e"].gossip, five["e"].api), f"{name} knows e at {found['gossip']}"
                    assert found["node_id"] == before["node_id"]
                return True

            await eventually(known_at_its_new_address, RETURN_GOAL_S, what="e is known at its new address")
            if known_as != "dead":
                await five.nobody_died_since(doubted)
            await eventually(lambda: offered_everywhere(five), RETURN_GOAL_S, what="what e offers is known everywhere again")

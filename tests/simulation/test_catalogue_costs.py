"""What changes of offers cost, and how fast they are known: in bytes on the wire, headers included."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from maia.catalogue.pacing import SAVED_S, budget_bytes_per_s
from maia.sim.acquaintance import boot_acquainted
from maia.sim.weather import Weather
from maia.sim.world import World

HEADER_BYTES = 28  # of IPv4 and UDP
VALUE_BYTES = 150
RUMOUR_BYTES = 2 * 1200  # two packets full of them


def bytes_out(world: World, *kinds: str) -> int:
    """What all nodes have sent so far in packets that begin with a message of these kinds, or of any."""
    sent = 0
    for node in world.nodes:
        assert node.mesh is not None
        counters = node.mesh.counters
        for kind in kinds or counters.bytes_out:
            sent += counters.bytes_out.get(kind, 0) + HEADER_BYTES * counters.datagrams_out.get(kind, 0)
    return sent


class Ledger:
    """Changes of offers, and when everyone knew them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.unknown: dict[bytes, tuple[str, float]] = {}
        self.took_s: list[float] = []

    def change(self, index: int) -> None:
        """A usual one: the value of an entry of 255 bytes."""
        owner = self.world.nodes[index]
        value = b"%06d" % (len(self.unknown) + len(self.took_s)) + bytes(VALUE_BYTES - 6)
        self.world.offer(owner, "models/1", value)
        self.unknown[value] = (owner.name, self.world.now)

    def look(self) -> None:
        views = [self.world.view(node) for node in self.world.nodes]
        for value, (owner, since_s) in list(self.unknown.items()):
            if all(view.members[owner].offers.get("models/1", b"") >= value for view in views):
                self.took_s.append(self.world.now - since_s)
                del self.unknown[value]


@pytest.mark.parametrize(("nodes", "changes_per_s", "cap_bits", "seconds"), [(10, 5, 24_000, 60), (100, 20, 64_000, 6)])
def test_the_promised_changes_reach_everyone_at_once_and_stay_below_the_cap(
    nodes: int, changes_per_s: int, cap_bits: int, seconds: int
) -> None:
    world = World(7, nodes=nodes)
    boot_acquainted(world)
    world.run(1.0)
    ledger, random, before = Ledger(world), Random(7), bytes_out(world)
    for number in range(changes_per_s * seconds):
        world.at(1.0 + number / changes_per_s, partial(ledger.change, random.randrange(nodes)))
    while world.now < 1.0 + seconds + 0.5:
        world.run(world.now + 0.05)
        ledger.look()
    assert not ledger.unknown
    assert max(ledger.took_s) <= 0.5
    assert 8 * (bytes_out(world) - before) / nodes / seconds <= cap_bits


def test_a_node_that_flaps_costs_no_more_than_its_share_and_its_last_word_is_known_soon() -> None:
    world = World(3, nodes=10)
    boot_acquainted(world)
    world.run(1.0)
    ledger, before = Ledger(world), bytes_out(world, "offers")
    for number in range(30 * 20):
        world.at(1.0 + number / 20, partial(ledger.change, 4))
    world.run(31.0)
    assert bytes_out(world, "offers") - before <= 1.1 * (30 + SAVED_S) * budget_bytes_per_s(10)
    world.run(36.0)
    ledger.look()
    assert not ledger.unknown


@pytest.mark.parametrize("nodes", [64, 120])
def test_a_big_mesh_mends_a_loss_in_few_bytes(nodes: int) -> None:
    world = World(5, nodes=nodes)
    boot_acquainted(world)
    world.run(2.0)
    cut_off = world.nodes[9]
    world.partition([[9], [index for index in range(nodes) if index != 9]])
    for index in (20, 21, 22):
        world.offer(world.nodes[index], "models/1", bytes(VALUE_BYTES))
    world.run(2.2)
    world.heal()
    before, pulls = bytes_out(world, "offers"), sum(node.mesh.counters.pulls for node in world.nodes if node.mesh)
    world.run(6.0)
    assert [dict(world.view(cut_off).members[node.name].offers) for node in world.nodes] == [node.offers for node in world.nodes]
    pulled = sum(node.mesh.counters.pulls for node in world.nodes if node.mesh) - pulls
    assert pulled >= 1
    # A pull is the hashes of 64 buckets; one of them finds which differ, then rows of a few nodes, what is listed, wanted and sent. By rows
    # alone each pull would be a packet of up to 1200 bytes. Such packets are filled up with what rumours the cut has caused.
    assert bytes_out(world, "offers") - before <= pulled * 600 + 3 * (300 + 160) + RUMOUR_BYTES
    assert cut_off.mesh is not None
    assert cut_off.mesh.counters.entries_accepted == 3


def test_a_loss_is_mended_while_everyone_else_changes() -> None:
    world = World(6, nodes=60, weather=Weather(loss=0.05))
    boot_acquainted(world)
    world.run(1.0)
    ledger, random = Ledger(world), Random(6)
    for number in range(100):
        world.at(1.0 + number / 20, partial(ledger.change, random.randrange(60)))
    world.run(12.0)
    ledger.look()
    assert not ledger.unknown

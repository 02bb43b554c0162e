"""What a node may push, and how what is urgent gets ahead of what is not."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
from tests.maia.catalogue.test_courier import Network

from maia.catalogue.courier import PUSH_PAUSE_S
from maia.catalogue.pacing import CHANGE_BYTES, FIGURES_INTERVAL_S, PACKET_OVERHEAD_BYTES, SAVED_S, Pace, budget_bytes_per_s
from maia.config import Address
from maia.wire.codec import decode
from maia.wire.messages import User
from maia.wire.offers import Entries, decode_offers


@pytest.mark.parametrize(
    ("members", "changes_per_s", "left_bits"), [(10, 5, 24_000 - 12_000), (100, 20, 64_000 - 16_000), (1000, 40, 128_000 - 32_000)]
)
def test_the_promised_changes_fit_into_what_the_cap_leaves_beside_an_idle_mesh(members: int, changes_per_s: int, left_bits: int) -> None:
    assert budget_bytes_per_s(members) * 8 == left_bits
    assert changes_per_s / members * (members - 1) * 300 * 8 <= left_bits


def test_the_budget_grows_with_the_mesh_and_has_a_bottom_and_a_top() -> None:
    budgets = [budget_bytes_per_s(members) for members in (1, 2, 10, 30, 99, 100, 101, 500, 1000, 5000)]
    assert budgets == sorted(budgets)
    assert (budgets[0], budgets[-1]) == (1500.0, 12_000.0)


@pytest.mark.parametrize("members", [2, 10, 100, 1000])
def test_one_change_to_everybody_is_always_free_and_figures_leave_room_for_one_more(members: int) -> None:
    pace = Pace()
    everybody = members * CHANGE_BYTES
    assert pace.room_bytes("figures", members=members, now=0.0) >= everybody
    pace.spend(int(pace.room_bytes("figures", members=members, now=0.0)))
    assert pace.room_bytes("figures", members=members, now=0.0) < 1
    assert pace.room_bytes("at once", members=members, now=0.0) >= everybody


def test_what_is_spent_comes_back_at_the_rate_of_the_budget_and_no_more_than_is_saved() -> None:
    pace = Pace()
    rate = budget_bytes_per_s(10)
    pace.spend(int(pace.room_bytes("at once", members=10, now=0.0)))
    assert pace.room_bytes("at once", members=10, now=2.0) == pytest.approx(2 * rate)
    assert pace.room_s(int(5 * rate), "at once", members=10, now=2.0) == pytest.approx(5.0)
    assert pace.room_bytes("at once", members=10, now=1e6) == pytest.approx(SAVED_S * rate)


def pushed(network: Network, until_s: float) -> list[tuple[float, int, bytes]]:
    """When the first node pushed how much to how many, and what: its packets go nowhere."""
    node, rounds = network.nodes[0], []
    while (due_s := node.courier.due_s()) <= until_s:
        node.courier.tick(due_s)
        for payload, _ in node.outbox.drain(None):
            (message,) = decode(payload).messages
            assert isinstance(message, User)
            offers = decode_offers(message.body)
            assert isinstance(offers, Entries)
            rounds.append((due_s, len(message.body) + PACKET_OVERHEAD_BYTES, offers.entries[-1].value))
    return rounds


def crowded(peers: int) -> Network:
    network = Network(1)
    network.nodes[0].peers = [Address("10.0.1.1", number) for number in range(1, peers + 1)]
    return network


def test_a_node_that_changes_without_end_pushes_no_more_than_its_budget() -> None:
    network = crowded(9)
    packets = []
    for step in range(600):
        network.nodes[0].offer("models/0", b"state %03d" % step + bytes(140), now=step * 0.1)
        packets += pushed(network, step * 0.1)
    assert sum(size for _, size, _ in packets) <= (60 + SAVED_S) * budget_bytes_per_s(10)
    assert sum(size for _, size, _ in packets) >= 60 * budget_bytes_per_s(10)
    packets += pushed(network, 90.0)
    last = [at_s for at_s, _, value in packets if value.startswith(b"state 599")]
    assert len(last) == 9
    assert max(last) < 66.0


def test_an_urgent_change_goes_to_everybody_at_once_while_figures_change_without_end() -> None:
    network = crowded(9)
    node = network.nodes[0]
    for step in range(300):
        node.offer("figures", b"%03d" % step + bytes(800), now=step * 0.1, urgency="figures")
        pushed(network, step * 0.1 + 0.09)
    node.offer("models/0", b"gone", now=30.0)
    gone = [at_s for at_s, _, value in pushed(network, 31.0) if value == b"gone"]
    assert gone == [30.0] * 9


def test_a_long_round_of_figures_makes_way_and_nothing_of_it_is_lost() -> None:
    network = crowded(90)
    node = network.nodes[0]
    for number in range(40):
        node.offer(f"figures/{number}", bytes(890), urgency="figures")
    before = Counter(value for _, _, value in pushed(network, 1.0))
    assert 0 < sum(before.values()) < 40 * 90
    node.offer("models/0", b"gone", now=1.0)
    seen: dict[Address, dict[str, None]] = {}
    at_s = 1.0
    while (due_s := node.courier.due_s()) < math.inf:
        at_s = max(at_s, due_s)
        node.courier.tick(at_s)
        for payload, target in node.outbox.drain(None):
            for message in decode(payload).messages:
                assert isinstance(message, User)
                offers = decode_offers(message.body)
                assert isinstance(offers, Entries)
                seen.setdefault(target, {}).update(dict.fromkeys(entry.key for entry in offers.entries))
    assert sorted({len(keys) for keys in seen.values()}) == [1, 41]
    assert sum(len(keys) - 1 for keys in seen.values()) + sum(before.values()) == 40 * 90


def test_waiting_for_room_is_no_busy_loop() -> None:
    network = crowded(99)
    node = network.nodes[0]
    for number in range(20):
        node.offer(f"models/{number}", bytes(800))
    wakes = []
    while (due_s := node.courier.due_s()) < 60.0:
        wakes.append(due_s)
        node.courier.tick(due_s)
        node.outbox.drain(None)
    assert all(later - earlier >= PUSH_PAUSE_S * 0.99 for earlier, later in pairwise(wakes))
    assert len(wakes) < 60 * 5


def test_figures_are_offered_once_a_second_and_the_first_at_once() -> None:
    network = Network(2)
    owner, reader = network.nodes
    seen = {}
    for step in range(1, 251):
        now = step * 0.01
        owner.offer("figures", b"%03d" % step, now=now, urgency="figures")
        network.pass_time(now)
        seen[reader.catalogue.offers("n0").get("figures")] = now
    assert list(seen) == [b"001", b"101", b"201"]
    network.pass_time(2.5 + FIGURES_INTERVAL_S)
    assert reader.catalogue.offers("n0") == {"figures": b"250"} == owner.catalogue.offers("n0")


def test_figures_that_come_back_to_what_they_were_are_no_change() -> None:
    network = Network(2)
    owner = network.nodes[0]
    for number, value in enumerate((b"3", b"4", b"3")):
        owner.offer("figures", value, now=number * 0.1, urgency="figures")
        network.pass_time(number * 0.1)
    network.pass_time(5.0)
    (entry,) = owner.catalogue.own_entries()
    assert entry.version == 1

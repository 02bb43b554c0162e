"""How a change reaches everyone, and how a loss is found and mended. Two or three couriers, and a network of lists."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
from tests.maia.keys import entry_of, id_of, key_of

from maia.catalogue.catalogue import Catalogue
from maia.catalogue.courier import ANSWER_BODIES_MAX, BUCKETS_FROM, PUSH_SLICE, Courier
from maia.catalogue.pacing import Urgency
from maia.config import Address
from maia.view import Counters
from maia.wire.codec import decode
from maia.wire.messages import User
from maia.wire.offers import ROW_BYTES, Buckets, Differing, Digest, Entries, Listing, OfferMessage, Want, decode_exchange, decode_offers
from maia.wire.outbox import Outbox


class Node:
    def __init__(self, number: int) -> None:
        self.name = f"n{number}"
        self.address = Address("10.0.0.1", number + 1)
        self.catalogue = Catalogue(self.name, 1, signer=key_of(self.name), cluster_id="")
        self.counters = Counters()
        self.outbox = Outbox(self.counters)
        self.peers: list[Address] = []
        self.courier = Courier(
            self.catalogue,
            peers=lambda: list(self.peers),
            outbox=self.outbox,
            counters=self.counters,
            random=Random(number),
            gossip_interval_s=0.05,
        )

    def offer(self, key: str, value: bytes, *, now: float = 0.0, urgency: Urgency = "at once") -> None:
        self.courier.offer(key, value, now, urgency=urgency)


class Network:
    def __init__(self, size: int) -> None:
        self.nodes = [Node(number) for number in range(size)]
        self.now = 0.0
        self.carried: list[OfferMessage] = []
        for node in self.nodes:
            node.peers = [other.address for other in self.nodes if other is not node]
            for other in self.nodes:
                node.catalogue.revive(other.name, 1, id_of(other.name))

    def deliver(self, lost: Callable[[OfferMessage], bool] = lambda message: False) -> None:
        """Carry everything until nothing is under way, but for what is lost."""
        by_address = {node.address: node for node in self.nodes}
        busy = True
        while busy:
            busy = False
            for node in self.nodes:
                for payload, target in node.outbox.drain(None):
                    busy = True
                    for message in decode(payload).messages:
                        assert isinstance(message, User)
                        offers = decode_offers(message.body)
                        self.carried.append(offers)
                        if not lost(offers):
                            by_address[target].courier.hear(offers, node.address, self.now)

    def pass_time(self, until_s: float) -> None:
        while (due_s := min(node.courier.due_s() for node in self.nodes)) <= until_s:
            self.now = max(self.now, due_s)
            for node in self.nodes:
                node.courier.tick(self.now)
            self.deliver()
        self.now = until_s

    def agree(self) -> bool:
        return len({node.catalogue.root for node in self.nodes}) == 1


def everything(message: OfferMessage) -> bool:
    return True


def test_a_change_goes_straight_to_everyone_in_one_packet_each() -> None:
    network = Network(10)
    network.nodes[0].offer("models/0", b"a model")
    network.pass_time(0.1)
    assert network.agree()
    assert [node.catalogue.offers("n0") for node in network.nodes] == [{"models/0": b"a model"}] * 10
    assert len(network.carried) == 9


def test_changes_of_one_moment_travel_together() -> None:
    network = Network(2)
    for number in range(4):
        network.nodes[0].offer(f"models/{number}", b"a model")
    network.pass_time(0.1)
    assert network.agree()
    assert len(network.carried) == 1


def test_a_push_to_many_is_handed_out_in_slices() -> None:
    network = Network(2)
    crowd = [Address("10.0.1.1", number) for number in range(1, 101)]
    node = network.nodes[0]
    node.peers = crowd
    node.offer("models/0", b"a model")
    sizes = []
    while node.courier.due_s() < 1.0:
        node.courier.tick(node.courier.due_s())
        sizes.append(len(node.outbox.drain(None)))
    assert sizes == [PUSH_SLICE, PUSH_SLICE, PUSH_SLICE, 4]


def test_a_change_during_a_push_is_not_forgotten() -> None:
    network = Network(40)
    network.nodes[0].offer("models/0", b"old")
    network.nodes[0].courier.tick(0.0)
    network.nodes[0].offer("models/0", b"new")
    network.pass_time(0.2)
    assert {bytes(node.catalogue.offers("n0")["models/0"]) for node in network.nodes} == {b"new"}


def lossy_pair() -> Network:
    """Two nodes, where the second missed what the first had to say."""
    network = Network(2)
    for number in range(5):
        network.nodes[0].offer(f"models/{number}", b"a model")
    network.nodes[0].courier.tick(0.0)
    network.deliver(lost=everything)
    network.carried.clear()
    assert not network.agree()
    return network


def compare(network: Network, asker: int, other: int) -> None:
    """An ack of `other` arrives at `asker`."""
    peer = network.nodes[other]
    network.nodes[asker].courier.compare(peer.catalogue.root, peer.address, network.now)


def test_a_loss_shows_in_the_root_and_is_mended_by_four_messages() -> None:
    network = lossy_pair()
    compare(network, 1, 0)
    network.pass_time(1.0)
    assert network.agree()
    assert [type(message) for message in network.carried] == [Digest, Listing, Want, Entries]


def test_whoever_is_behind_asks_and_whoever_is_ahead_need_not() -> None:
    network = lossy_pair()
    compare(network, 0, 1)  # a root that the first had itself, five changes ago
    network.pass_time(1.0)
    assert network.carried == []
    compare(network, 1, 0)
    network.pass_time(2.0)
    assert network.agree()


def test_whoever_is_asked_by_somebody_with_more_asks_back() -> None:
    network = lossy_pair()
    network.nodes[0].courier.compare(b"another!", network.nodes[1].address, network.now)
    network.pass_time(1.0)
    assert network.agree()


def test_who_has_much_to_compare_pulls_seldom_though_every_pull_is_worth_it() -> None:
    network = Network(2)
    crowd = [f"m{number}" for number in range(1000)]
    for name in crowd:
        network.nodes[1].catalogue.revive(name, 1, id_of(name))
    for step in range(200):
        network.nodes[0].offer("models/0", b"%d" % step, now=network.now)
        network.nodes[0].courier.tick(network.now)
        network.deliver(lost=everything)
        compare(network, 1, 0)
        network.pass_time(network.now + 0.05)
    network.pass_time(network.now + 2.0)
    compare(network, 1, 0)
    network.pass_time(network.now + 2.0)
    assert network.agree()
    assert network.nodes[1].counters.pulls <= 12  # ten seconds, a second each; the first and the last


def test_equal_roots_cost_nothing() -> None:
    network = Network(2)
    compare(network, 1, 0)
    network.pass_time(1.0)
    assert network.carried == []


def test_a_push_that_was_only_on_its_way_starts_no_repair() -> None:
    network = Network(2)
    network.nodes[0].offer("models/0", b"a model")
    compare(network, 1, 0)  # the ack overtakes the push
    network.pass_time(1.0)
    assert [type(message) for message in network.carried] == [Entries]


@pytest.mark.parametrize("lost", [Digest, Listing, Want, Entries])
def test_a_repair_that_is_lost_on_the_way_is_repeated(lost: type) -> None:
    network = lossy_pair()
    compare(network, 1, 0)
    network.now = 0.2
    network.nodes[1].courier.tick(0.2)
    network.deliver(lost=lambda message: isinstance(message, lost))
    assert not network.agree()
    compare(network, 1, 0)
    network.pass_time(2.0)
    assert network.agree()


def test_a_repair_of_a_repaired_third_party_needs_no_owner() -> None:
    network = Network(3)
    network.nodes[0].offer("models/0", b"a model")
    network.nodes[0].courier.tick(0.0)
    made = network.nodes[0].catalogue.own_entries()
    network.nodes[0].outbox.drain(None)
    network.nodes[1].courier.accept(made, 0.0)
    compare(network, 2, 1)
    network.pass_time(1.0)
    assert network.nodes[2].catalogue.offers("n0") == {"models/0": b"a model"}


def test_a_push_that_overtook_an_ack_of_somebody_else_starts_no_repair_either() -> None:
    network = Network(3)
    before = network.nodes[1].catalogue.root
    network.nodes[0].offer("models/0", b"a model")
    network.pass_time(0.1)
    network.carried.clear()
    for asker in (0, 2):
        network.nodes[asker].courier.compare(before, network.nodes[1].address, network.now)
    network.pass_time(1.0)
    assert network.carried == []


def test_pulls_that_bring_nothing_become_rare() -> None:
    network = Network(2)
    for step in range(1000):
        network.nodes[1].courier.compare(b"another!", network.nodes[0].address, step * 0.1)
        network.pass_time(step * 0.1)
    assert network.nodes[1].counters.pulls < 30


def test_an_answer_is_bounded_and_the_next_ones_bring_the_rest() -> None:
    network = Network(2)
    for number in range(64):
        network.nodes[0].offer(f"k/{number}", bytes(890))
    network.nodes[0].courier.tick(0.0)
    network.deliver(lost=everything)
    network.carried.clear()
    compare(network, 1, 0)
    network.pass_time(1.0)
    assert sum(isinstance(message, Entries) for message in network.carried) <= ANSWER_BODIES_MAX
    for _ in range(40):
        compare(network, 1, 0)
        network.pass_time(network.now + 6.0)
    assert network.agree()


def test_a_big_entry_is_announced_and_fetched_by_stream() -> None:
    network = Network(2)
    owner, reader = network.nodes
    owner.offer("devices", bytes(5000))
    network.pass_time(0.1)
    assert [type(message) for message in network.carried] == [Listing]
    assert reader.courier.streams == [owner.address]
    rows, _ = decode_exchange(reader.courier.opening())
    _, entries = decode_exchange(owner.courier.answer(rows))
    reader.courier.accept(entries, 0.0)
    assert network.agree()


def test_an_exchange_carries_what_either_side_lacks() -> None:
    network = Network(2)
    one, other = network.nodes
    one.offer("models/0", b"one's")
    other.offer("models/0", b"other's")
    rows, entries = decode_exchange(one.courier.opening())
    other.courier.accept(entries, 0.0)
    _, entries = decode_exchange(other.courier.answer(rows))
    one.courier.accept(entries, 0.0)
    assert network.agree()
    assert one.catalogue.offers("n1") == {"models/0": b"other's"}


def test_a_large_answer_is_taken_in_slices_and_nothing_of_it_is_asked_for_twice() -> None:
    network = Network(5)
    reader, others = network.nodes[0], network.nodes[1:]
    entries = []
    for node in others:
        made = [node.catalogue.offer(f"k/{number}", b"x") for number in range(60)]
        entries += [entry for entry in made if entry is not None]
    taken = [len(reader.courier.accept_answer(entries, 0.0))]
    now = 0.0
    while (due_s := reader.courier.due_s()) < math.inf:
        reader.courier.compare(b"another!", others[0].address, now)
        assert due_s > now
        now = due_s
        taken.append(len(reader.courier.tick(now)))
    assert taken == [32] * 7 + [16]
    assert reader.counters.entries_accepted == 240
    assert reader.outbox.drain(None) == []


def test_what_the_accepting_side_lacks_of_third_parties_is_listed_to_it() -> None:
    network = Network(3)
    dialler, accepter, owner = network.nodes
    made = owner.catalogue.offer("models/0", b"a model")
    assert made is not None
    dialler.courier.accept([made], 0.0)
    rows, _ = decode_exchange(accepter.courier.answer(decode_exchange(dialler.courier.opening())[0]))
    dialler.courier.settle(rows, accepter.address)
    network.deliver()
    assert accepter.catalogue.offers("n2") == {"models/0": b"a model"}


def test_entries_of_a_later_life_of_ours_are_noticed() -> None:
    node = Network(1).nodes[0]
    node.offer("models/0", b"now")
    later = Catalogue("n0", 9, signer=key_of("n0"), cluster_id="")
    made = later.offer("models/0", b"then")
    assert made is not None
    node.courier.accept([made], 0.0)
    assert node.courier.later_generation == 9


def test_our_own_entries_coming_back_are_no_later_life() -> None:
    node = Network(1).nodes[0]
    node.offer("models/0", b"now")
    node.courier.accept(node.catalogue.own_entries(), 0.0)
    assert node.courier.later_generation == -1


def crowd(size: int) -> Network:
    """Two nodes that know many, all of which offer something; the second missed all of one of them."""
    network = Network(2)
    for number in range(2, size):
        name = f"n{number}"
        for node in network.nodes:
            node.catalogue.revive(name, 1, id_of(name))
            if node is network.nodes[0] or number != 2:
                node.catalogue.accept(entry_of(name, 1, "models/0", 1, 0, b"a model"))
    return network


@pytest.mark.parametrize("asker", [0, 1])
def test_between_those_who_know_many_a_repair_begins_with_the_buckets(asker: int) -> None:
    network = crowd(200)
    compare(network, asker, 1 - asker)
    network.pass_time(2.0)
    assert network.agree()
    repair = [Buckets, Differing, Digest, Listing, Want, Entries]
    # Whoever has more learns it from the rows, and asks back in the same way.
    assert [type(message) for message in network.carried] == (repair if asker == 1 else [Buckets, Differing, Digest, *repair])
    digest = next(message for message in network.carried if isinstance(message, Digest))
    assert len(digest.rows) <= ROW_BYTES * 12  # of 200


def test_up_to_forty_nodes_the_rows_are_compared_at_once() -> None:
    network = crowd(BUCKETS_FROM + 2)
    compare(network, 1, 0)
    network.pass_time(1.0)
    assert network.agree()
    assert [type(message) for message in network.carried] == [Digest, Listing, Want, Entries]


@pytest.mark.parametrize("lost", [Buckets, Differing, Digest, Listing, Want, Entries])
def test_a_repair_by_buckets_that_is_lost_on_the_way_is_repeated(lost: type) -> None:
    network = crowd(100)
    compare(network, 1, 0)
    network.now = 0.2
    network.nodes[1].courier.tick(0.2)
    network.deliver(lost=lambda message: isinstance(message, lost))
    assert not network.agree()
    compare(network, 1, 0)
    network.pass_time(2.0)
    assert network.agree()


def test_who_knows_next_to_nobody_is_shown_all_buckets_a_packet_at_a_time() -> None:
    network = Network(2)
    knowing, ignorant = network.nodes
    for number in range(2, 400):
        name = f"n{number}"
        for node in network.nodes:
            node.catalogue.revive(name, 1, id_of(name))
        knowing.catalogue.accept(entry_of(name, 1, "models/0", 1, 0, b"a model"))
    for _ in range(60):
        compare(network, 0, 1)
        compare(network, 1, 0)
        network.pass_time(network.now + 6.0)
        if network.agree():
            break
    assert network.agree()
    assert len(ignorant.catalogue.offers("n2")) == 1

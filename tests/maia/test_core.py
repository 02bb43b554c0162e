"""The mesh as its holder sees it: what a call changes, what it never does, and what the view says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.maia.keys import entry_of, key_of
from tests.maia.talk import ME, Talk, read_stream

from maia.config import LAN_FAST, Address, Limits, MeshConfig
from maia.errors import DatagramRejected, MisuseError
from maia.view import GenerationRaised, IncarnationRaised, MemberForgotten, MemberJoined, OffersChanged
from maia.wire.codec import COMPOUND, HAS_CRC, PACKET_BYTES_MAX, encode, pack
from maia.wire.messages import (
    PRIVATE_FROM,
    STATE_ALIVE,
    STATE_DEAD,
    STATE_LEFT,
    STATE_SUSPECT,
    VSN,
    Ack,
    Alive,
    Dead,
    NodeState,
    Ping,
    PushPull,
    Suspect,
    User,
)
from maia.wire.offers import (
    Entries,
    Listed,
    Want,
    decode_exchange,
    decode_offers,
    encode_entries,
    encode_exchange,
    encode_listing,
)

ONE, TWO, THREE = (f"p{number}-{number:06}" for number in (1, 2, 3))
STRANGER = Address("10.9.9.9", 9)


def offer_of(name: str, *, value: bytes = b"a model", generation: int = 1, version: int = 1) -> User:
    (body,) = encode_entries([entry_of(name, generation, "models/0", version, 0, value)])
    return User(body)


# --- datagrams ---


@given(st.binary(max_size=2000))
@settings(max_examples=300, deadline=None)
def test_a_datagram_of_any_bytes_is_counted_and_changes_nothing_that_others_see(payload: bytes) -> None:
    talk = Talk(peers=2)
    talk.mesh.datagrams()
    before = talk.mesh.view(now=0.0)
    talk.mesh.receive(payload, sender=STRANGER, now=0.0)
    assert talk.mesh.view(now=0.0) is before
    assert talk.mesh.counters.datagrams_in == 3
    assert sum(talk.mesh.counters.bytes_in_by_kind.values()) == talk.mesh.counters.bytes_in > len(payload)


def test_what_cannot_be_read_is_counted_by_its_reason() -> None:
    talk = Talk()
    for payload in (b"", b"\xff", b"\xff\xff", b"\x00\xc1"):
        talk.mesh.receive(payload, sender=STRANGER, now=0.0)
    assert talk.mesh.counters.rejected == {"empty": 1, "unknown-type": 2, "bad-msgpack": 1}
    assert talk.mesh.datagrams() == []


def test_a_ping_is_answered_with_the_root_to_a_maia_node_and_without_to_a_stock_agent() -> None:
    talk = Talk(peers=1, serf=True)
    talk.hear(Alive(1, "stock", STRANGER), sender=STRANGER)
    talk.forget()
    talk.hear(Ping(1, ME, talk.address(ONE), ONE), sender=talk.address(ONE))
    talk.hear(Ping(2, ME, STRANGER, "stock"), sender=STRANGER)
    acks = [message for message in talk.said(Ack) if isinstance(message, Ack)]
    assert [(ack.sequence, len(ack.root)) for ack in acks] == [(1, 8), (2, 0)]


def test_who_pings_us_while_we_think_it_dead_is_told_so() -> None:
    talk = Talk(peers=2)
    talk.lose(ONE, incarnation=3)
    talk.forget()
    talk.hear(Ping(1, ME, talk.address(ONE), ONE), sender=talk.address(ONE))
    assert Dead(3, ONE, ME) in talk.said(Dead, to=ONE)


def test_an_alive_is_heard_before_the_accusation_that_it_refutes() -> None:
    talk = Talk(peers=3)
    talk.hear(Suspect(1, ONE, TWO), talk.alive(ONE, 2), sender=talk.address(TWO))
    assert talk.status(ONE) == "alive"
    assert talk.mesh.counters.suspicions == 0


def test_offers_beside_the_introduction_of_their_owner_are_kept() -> None:
    talk = Talk(peers=1)
    newcomer = Talk(peers=2)
    talk.hear(offer_of(TWO), newcomer.alive(TWO), sender=newcomer.address(TWO))
    assert talk.events == [MemberJoined(TWO), OffersChanged(TWO)]
    assert talk.member(TWO).offers == {"models/0": b"a model"}


def test_offers_from_strangers_and_stock_agents_are_refused() -> None:
    talk = Talk(peers=1, serf=True)
    talk.hear(Alive(1, "stock", STRANGER), sender=STRANGER)
    talk.hear(offer_of(ONE), sender=STRANGER)
    talk.hear(offer_of(ONE), sender=Address("10.9.9.8", 1))
    assert talk.member(ONE).offers == {}
    assert talk.mesh.counters.rejected == {"stranger": 2}


def test_no_packet_is_over_the_budget_however_much_there_is_to_tell() -> None:
    talk = Talk()
    crowd = Talk(peers=200)
    for name in crowd.peers:
        talk.mesh.receive(encode(crowd.alive(name)), sender=crowd.address(name), now=0.0)
    talk.mesh.tick(now=0.3)
    packets = talk.mesh.datagrams()
    assert packets
    assert 900 < max(len(packet.payload) for packet in packets) <= PACKET_BYTES_MAX


# --- time ---


def test_a_node_without_seeds_starts_alone_and_has_little_to_do() -> None:
    talk = Talk()
    ticks = 0
    while (due_s := talk.mesh.deadline()) < 60.0:
        assert due_s >= talk.now
        talk.now = due_s
        talk.mesh.tick(now=due_s)
        ticks += 1
    assert ticks < 60 / LAN_FAST.probe_interval_s + 100
    assert talk.mesh.datagrams() == []
    assert list(talk.mesh.view(now=60.0).members) == [ME]


def test_the_deadline_lies_ahead_after_every_tick() -> None:
    talk = Talk(peers=5)
    talk.silent[ONE] = None
    for _ in range(2000):
        talk.now = max(talk.now, talk.mesh.deadline())
        talk.mesh.tick(now=talk.now)
        talk.mesh.datagrams()
        assert talk.mesh.deadline() > talk.now


# --- exchanges ---


def state_of(*nodes: tuple[Alive, int], offers: bytes = b"") -> PushPull:
    return PushPull(tuple(NodeState(alive, state) for alive, state in nodes), join=True, offers=offers)


def test_an_exchange_brings_members_and_offers_both_ways() -> None:
    talk, other = Talk(), Talk(peers=2)
    talk.mesh.offer("models/0", b"ours", now=0.0)
    request = state_of((other.alive(ONE), STATE_ALIVE), offers=encode_exchange(b"", [entry_of(ONE, 1, "models/0", 1, 0, b"theirs")]))
    reply = read_stream(talk.mesh.answer(request, now=0.0))
    assert {node.alive.node: node.state for node in reply.nodes} == {ME: STATE_ALIVE, ONE: STATE_ALIVE}
    _, entries = decode_exchange(reply.offers)
    assert (ME, "models/0", b"ours") in [(entry.node, entry.key, entry.value) for entry in entries]
    assert talk.member(ONE).offers == {"models/0": b"theirs"}


def test_what_an_exchange_says_of_us_is_already_refuted_in_the_answer() -> None:
    talk = Talk(peers=1)
    mine = Alive(6, ME, talk.config.gossip)
    reply = read_stream(talk.mesh.answer(state_of((mine, STATE_DEAD)), now=0.0))
    (myself,) = [node for node in reply.nodes if node.alive.node == ME]
    assert (myself.alive.incarnation, myself.state) == (7, STATE_ALIVE)


@pytest.mark.parametrize("state", [STATE_SUSPECT, STATE_DEAD])
def test_a_death_learned_by_an_exchange_is_hearsay_that_only_the_accused_is_told(state: int) -> None:
    talk = Talk(peers=3)
    talk.forget()
    talk.mesh.answer(state_of((talk.alive(ONE), state)), now=0.0)
    talk.pass_time(0.0)
    assert talk.status(ONE) == "alive"
    assert talk.said(Suspect, to=ONE) == [Suspect(1, ONE, ME)]
    assert len(talk.said(Suspect)) == 1
    talk.pass_time(10.0)
    assert talk.status(ONE) == "alive"


def test_a_goodbye_learned_by_an_exchange_is_believed() -> None:
    talk = Talk(peers=1)
    talk.mesh.answer(state_of((talk.alive(ONE), STATE_LEFT)), now=0.0)
    assert talk.status(ONE) == "left"


def test_the_dead_of_others_whom_we_never_knew_are_not_taken_over() -> None:
    talk, other = Talk(), Talk(peers=2)
    talk.mesh.answer(state_of((other.alive(ONE), STATE_DEAD), (other.alive(TWO), STATE_LEFT)), now=0.0)
    assert list(talk.mesh.view(now=0.0).members) == [ME]


def test_an_exchange_with_another_cluster_merges_nothing_and_reveals_nothing() -> None:
    talk, other = Talk(peers=1, cluster_id=""), Talk(peers=3)
    foreign = other.alive(THREE, cluster_id="theirs")
    with pytest.raises(DatagramRejected, match="other-cluster"):
        talk.mesh.answer(state_of((other.alive(TWO), STATE_ALIVE), (foreign, STATE_ALIVE)), now=0.0)
    assert list(talk.mesh.view(now=0.0).members) == [ME, ONE]


def test_offers_are_brought_straight_to_whom_an_exchange_made_us_meet() -> None:
    talk, other = Talk(), Talk(peers=3)
    talk.mesh.offer("models/0", b"ours", now=0.0)
    talk.mesh.join([other.address(ONE)], now=0.0)
    talk.pass_time(0.1)
    (exchange,) = talk.exchanges
    talk.mesh.reply(exchange.number, state_of(*((other.alive(name), STATE_ALIVE) for name in other.peers)), now=talk.now)
    talk.peers = other.peers
    talk.pass_time(0.11)
    for name in other.peers:
        (message,) = [message for message in talk.said(User, to=name) if isinstance(message, User) and message.body[0] >= PRIVATE_FROM]
        assert decode_offers(message.body) == Entries((entry_of(ME, 1, "models/0", 1, 0, b"ours"),))


def test_offers_of_an_answer_that_wait_to_be_checked_are_seen_with_an_event_each_time() -> None:
    talk = Talk(peers=1)
    talk.mesh.join([talk.address(ONE)], now=0.0)
    talk.pass_time(0.0)
    (exchange,) = talk.exchanges
    talk.forget()
    entries = [entry_of(ONE, 1, f"k/{number}", number, 0, b"x") for number in range(40)]
    talk.mesh.reply(exchange.number, state_of((talk.alive(ONE), STATE_ALIVE), offers=encode_exchange(b"", entries)), now=0.0)
    assert len(talk.member(ONE).offers) == 32
    talk.pass_time(0.1)
    assert len(talk.member(ONE).offers) == 40
    assert talk.events.count(OffersChanged(ONE)) == 2


def test_an_exchange_with_broken_offers_merges_nothing() -> None:
    talk, other = Talk(), Talk(peers=1)
    with pytest.raises(DatagramRejected, match="bad-offers"):
        talk.mesh.answer(state_of((other.alive(ONE), STATE_ALIVE), offers=b"\x90"), now=0.0)
    assert list(talk.mesh.view(now=0.0).members) == [ME]


def test_a_reply_to_an_exchange_that_is_over_is_ignored() -> None:
    talk = Talk(peers=1)
    talk.mesh.reply(99, state_of((talk.alive(ONE), STATE_LEFT)), now=0.0)
    talk.mesh.exchange_failed(99)
    assert talk.status(ONE) == "alive"
    assert talk.mesh.counters.exchanges_failed == 0


# --- identity ---


def test_a_later_life_of_ours_that_others_remember_is_outlived() -> None:
    """This node's clock went back: its generation is lower than that of its former life."""
    talk = Talk(peers=1)
    talk.mesh.offer("models/0", b"ours", now=0.0)
    former = Talk(peers=1, generation=9)
    former.peers[ME] = former.config
    talk.hear(former.alive(ME, 5), sender=talk.address(ONE))
    assert [event for event in talk.events if isinstance(event, GenerationRaised)] == [GenerationRaised(10)]
    assert talk.member(ME).generation == 10
    assert talk.member(ME).incarnation > 5
    talk.pass_time(0.1)
    (message, *_) = [message for message in talk.said(User, to=ONE) if isinstance(message, User)]
    assert [entry.generation for entry in decode_offers(message.body).entries] == [10]  # type: ignore[union-attr]


def test_a_later_life_of_ours_that_somebody_lists_is_believed_once_it_shows_our_signature() -> None:
    talk = Talk(peers=1)
    talk.mesh.offer("models/0", b"ours", now=0.0)
    for body in encode_listing([Listed(ME, 4, "models/0", 1, False)]):
        talk.hear(User(body), sender=talk.address(ONE))
    assert talk.events == [OffersChanged(ME)]
    asked = [message for message in talk.said(User, to=ONE) if isinstance(message, User)]
    assert Want(((ME, "models/0"),)) in [decode_offers(message.body) for message in asked]
    talk.hear(offer_of(ME, generation=4), sender=talk.address(ONE))
    assert GenerationRaised(5) in talk.events


def test_a_node_that_was_told_to_leave_is_drawn_in_by_nobody_until_it_is_told_to_join() -> None:
    talk, other = Talk(alone=True), Talk(peers=1)
    talk.hear(other.alive(ONE), Ping(1, ME, other.address(ONE), ONE), sender=other.address(ONE))
    talk.pass_time(5.0)
    assert (list(talk.mesh.view(now=5.0).members), talk.exchanges) == ([ME], [])
    assert talk.mesh.counters.rejected == {"alone": 1}
    talk.mesh.join([other.address(ONE)], now=talk.now)
    talk.hear(other.alive(ONE), sender=other.address(ONE))
    assert talk.status(ONE) == "alive"


def test_entries_of_a_later_life_of_ours_are_outlived_too() -> None:
    talk = Talk(peers=1)
    talk.hear(offer_of(ME, generation=4), sender=talk.address(ONE))
    assert GenerationRaised(5) in talk.events
    assert talk.member(ME).offers == {}


def test_every_raise_of_our_incarnation_is_an_event_so_that_it_is_persisted() -> None:
    talk = Talk(peers=1)
    talk.hear(Suspect(3, ME, ONE), sender=talk.address(ONE))
    assert IncarnationRaised(4) in talk.events


def test_a_restart_with_the_persisted_incarnation_is_alive_at_once_where_it_was_dead() -> None:
    talk = Talk(peers=2)
    talk.lose(ONE, incarnation=4)
    talk.hear(talk.alive(ONE, 5, generation=2), sender=talk.address(ONE))
    assert talk.status(ONE) == "alive"


@pytest.mark.parametrize(
    "changes", [{"name": "white space"}, {"name": "n" * 64}, {"incarnation": 0}, {"incarnation": 2**31}, {"generation": -1}]
)
def test_an_identity_that_cannot_travel_is_refused_at_once(changes: dict[str, object]) -> None:
    fields: dict[str, object] = {"name": "a", "title": "a", "signer": key_of("a"), "generation": 1, "gossip": STRANGER}
    with pytest.raises(MisuseError):
        MeshConfig(**(fields | changes))  # type: ignore[arg-type]


# --- the view ---


def test_the_view_is_the_same_object_until_something_changed() -> None:
    talk = Talk(peers=3)
    view = talk.mesh.view(now=0.0)
    assert talk.mesh.view(now=0.0) is view
    talk.hear(Suspect(1, ONE, TWO), sender=talk.address(TWO))
    later = talk.mesh.view(now=0.0)
    assert later.version > view.version
    assert later.members[TWO] is view.members[TWO]
    assert (view.members[ONE].status, later.members[ONE].status) == ("alive", "suspect")


def test_what_was_heard_is_refreshed_once_a_second_under_the_same_version() -> None:
    talk = Talk(peers=1)
    talk.pass_time(0.5)
    view = talk.mesh.view(now=talk.now)
    talk.pass_time(3.0)
    later = talk.mesh.view(now=talk.now)
    assert later.members[ONE].heard_s > view.members[ONE].heard_s
    assert later.version == view.version


def test_members_are_in_the_order_of_their_names_and_we_are_among_them() -> None:
    talk = Talk(peers=12)
    view = talk.mesh.view(now=0.0)
    assert list(view.members) == sorted(view.members)
    assert view.myself.name == ME
    assert len(view.peers) == 12


def test_the_dead_keep_their_offers_for_a_while() -> None:
    talk = Talk(peers=2)
    talk.hear(offer_of(ONE), sender=talk.address(ONE))
    talk.lose(ONE)
    assert talk.member(ONE).offers == {"models/0": b"a model"}
    talk.pass_time(500.0)
    assert talk.member(ONE).offers == {"models/0": b"a model"}
    talk.pass_time(620.0)
    assert talk.member(ONE).offers == {}


def test_the_departed_are_remembered_up_to_a_number_and_a_time() -> None:
    talk = Talk(peers=6, limits=Limits(departed_max=3, departed_kept_s=100.0))
    for name in list(talk.peers)[:5]:
        talk.now += 0.1
        talk.hear(Dead(1, name, name), sender=talk.address(name))
    talk.pass_time(20.0)
    assert [event for event in talk.events if isinstance(event, MemberForgotten)] == [MemberForgotten(ONE), MemberForgotten(TWO)]
    talk.pass_time(120.0)
    assert list(talk.mesh.view(now=talk.now).members) == [ME, "p6-000006"]


def test_the_same_random_numbers_make_the_same_run() -> None:
    def run() -> list[object]:
        talk = Talk(peers=6, seed=4)
        talk.silent[TWO] = None
        talk.pass_time(10.0)
        return [*talk.sent, *talk.events]

    assert run() == run()


def test_a_checksum_goes_to_members_whose_protocol_knows_it_and_to_nobody_else() -> None:
    talk = Talk(peers=2, serf=True)
    talk.hear(replace(talk.alive(TWO, 2), vsn=bytes((1, 4, 2, *VSN[3:]))), sender=talk.address(TWO))
    talk.mesh.datagrams()
    firsts = []
    for sender in (talk.address(ONE), talk.address(TWO), STRANGER):
        talk.mesh.receive(pack([encode(Ping(number, ME, sender, "somebody")) for number in (1, 2)]), sender=sender, now=talk.now)
        firsts += [packet.payload[0] for packet in talk.mesh.datagrams() if packet.target == sender]
    assert firsts == [HAS_CRC, COMPOUND, COMPOUND]

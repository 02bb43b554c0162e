"""Serf's layer in conversation: a node of ours among stock agents and others of ours."""

from __future__ import annotations

import pytest
from tests.maia.talk import ME, Talk
from tests.maia.wire.test_serf import MESSAGES

from maia.config import LAN, Address
from maia.view import MemberDied, MemberLeft
from maia.wire.frames import StreamDecoder
from maia.wire.messages import PRIVATE_FROM, STATE_ALIVE, Alive, Dead, NodeState, PushPull, User
from maia.wire.serf import (
    JoinIntent,
    LeaveIntent,
    Query,
    Relay,
    Response,
    SerfMessage,
    UserState,
    decode_serf,
    decode_state,
    encode_join,
    encode_key_request,
    encode_leave,
    encode_query,
    encode_relay,
    encode_response,
    encode_state,
)

ONE, TWO = "p1-000001", "p2-000002"
STOCK, STOCK_ADDRESS = "stock", Address("10.0.0.9", 7946)


def serf_said(talk: Talk, *, to: Address | None = None) -> list[SerfMessage]:
    bodies = [message.body for message in talk.said(User, to=to) if isinstance(message, User) and message.body[0] < PRIVATE_FROM]
    return [decode_serf(body) for body in dict.fromkeys(bodies)]


def responses(talk: Talk) -> list[Response]:
    return [message for message in serf_said(talk, to=STOCK_ADDRESS) if isinstance(message, Response)]


def among_stock(*, peers: int = 1, **changes: object) -> Talk:
    talk = Talk(peers=peers, serf=True, **changes)  # type: ignore[arg-type]
    talk.hear(Alive(1, STOCK, STOCK_ADDRESS), sender=STOCK_ADDRESS)
    talk.forget()
    return talk


def query(title: bytes, payload: bytes = b"", *, asker: Address = STOCK_ADDRESS, flags: int = 0, relays: int = 0, time: int = 3) -> User:
    return User(encode_query(Query(time, 77, asker, title, payload, flags=flags, relays=relays, node=STOCK)))


# --- events and queries of others ---


def test_what_is_serfs_is_not_counted_among_the_offers() -> None:
    talk = among_stock()
    talk.pass_time(3.0)
    offers = talk.mesh.counters.bytes_out.get("offers", 0)
    talk.hear(User(MESSAGES["event"]), sender=STOCK_ADDRESS)
    talk.pass_time(6.0)
    counters = talk.mesh.counters
    assert (counters.bytes_in_by_kind["serf"], counters.bytes_in_by_kind.get("offers", 0)) == (1 + len(MESSAGES["event"]), 0)
    assert counters.bytes_out["serf"] > 0
    assert counters.bytes_out.get("offers", 0) == offers


@pytest.mark.parametrize("name", ["event", "query", "filtered-query"])
def test_what_people_tell_and_ask_is_told_on_byte_for_byte_and_once_by_each_way_it_came(name: str) -> None:
    talk = among_stock()
    body = MESSAGES[name]
    talk.hear(User(body), sender=STOCK_ADDRESS)
    talk.hear(User(body), sender=talk.address(ONE))
    talk.pass_time(3.0)
    told = [message for message in talk.said(User) if message == User(body)]
    assert len(told) == 4  # as often as a rumour between three
    talk.forget()
    talk.hear(User(body), sender=STOCK_ADDRESS)
    talk.pass_time(6.0)
    assert User(body) not in talk.said(User)
    assert talk.mesh.counters.rejected == {}


def test_a_query_that_is_not_to_be_told_on_is_not() -> None:
    talk = among_stock()
    talk.hear(query(b"uptime", flags=2), sender=STOCK_ADDRESS)
    talk.pass_time(3.0)
    assert talk.said(User) == []


def test_a_query_of_people_is_answered_by_nobody_here() -> None:
    talk = among_stock()
    talk.hear(query(b"uptime", flags=1 | 2), sender=STOCK_ADDRESS)
    assert serf_said(talk) == []
    assert talk.mesh.counters.queries == 1


def test_an_event_is_told_though_rumours_fill_every_packet() -> None:
    talk = among_stock(profile=LAN)
    event = User(b"\x03" + b"\x82\xa5LTime\x09\xa7Payload\xda\x03\x00" + b"x" * 768)
    talk.hear(event, sender=STOCK_ADDRESS)
    for number in range(400):
        talk.hear(Alive(1, f"stock-{number:03}", Address("10.1.0.1", 1000 + number)), sender=STOCK_ADDRESS)
    rumours_before = talk.mesh.rumours_queued
    talk.forget()
    talk.pass_time(talk.now + 2.0)
    assert event in talk.said(User)
    assert talk.said(Alive)
    assert talk.mesh.rumours_queued > rumours_before / 2  # they did fill all the packets meanwhile


def test_what_is_too_long_for_a_packet_is_counted_and_not_told() -> None:
    talk = among_stock()
    talk.mesh.receive(b"\x08\x03\x82\xa5LTime\x09\xa7Payload\xda\x08\x00" + b"x" * 2048, sender=STOCK_ADDRESS, now=talk.now)
    talk.pass_time(1.0)
    assert talk.said(User) == []
    assert talk.mesh.counters.rejected == {"too-long-to-tell": 1}


# --- intents ---


def test_a_stock_agent_that_leaves_has_left() -> None:
    talk = among_stock()
    talk.hear(User(encode_leave(LeaveIntent(4, STOCK))), sender=STOCK_ADDRESS)
    assert talk.status(STOCK) == "alive"
    talk.hear(Dead(1, STOCK, STOCK), sender=STOCK_ADDRESS)
    assert talk.status(STOCK) == "left"
    assert not [event for event in talk.events if isinstance(event, MemberDied)]


def test_who_dies_on_its_way_out_has_left_and_so_has_a_dead_one_that_is_made_to() -> None:
    talk = among_stock(peers=2)
    talk.hear(User(encode_leave(LeaveIntent(4, STOCK))), sender=STOCK_ADDRESS)
    talk.silent = {ONE: None, TWO: None}
    talk.pass_time_until(lambda: {talk.status(name) for name in (STOCK, ONE, TWO)} <= {"left", "dead"}, limit_s=60.0)
    assert [talk.status(name) for name in (STOCK, ONE, TWO)] == ["left", "dead", "dead"]
    talk.forget()
    talk.hear(User(encode_leave(LeaveIntent(5, ONE))), sender=STOCK_ADDRESS)
    assert [talk.status(name) for name in (STOCK, ONE, TWO)] == ["left", "left", "dead"]
    assert talk.events == [MemberLeft(ONE)]


def test_this_node_refutes_that_it_leaves() -> None:
    talk = among_stock()
    talk.hear(User(encode_leave(LeaveIntent(40, ME))), sender=STOCK_ADDRESS)
    talk.pass_time(1.0)
    assert serf_said(talk) == [JoinIntent(41, ME)]
    assert talk.status(ME) == "alive"


def test_this_node_says_that_it_leaves_before_it_says_goodbye_to_stock_agents() -> None:
    talk = among_stock()
    talk.mesh.leave(now=talk.now)
    talk._drain()
    assert [type(message) for message in serf_said(talk, to=STOCK_ADDRESS)] == [LeaveIntent]
    assert talk.said(Dead) == []
    assert not talk.mesh.farewell_told
    talk.pass_time_until(lambda: talk.mesh.farewell_told)
    (leaving_s, *_) = [when for when, _, message in talk.sent if isinstance(message, User)]
    (goodbye_s, *_) = [when for when, _, message in talk.sent if isinstance(message, Dead)]
    assert goodbye_s - leaving_s >= talk.config.profile.gossip_interval_s
    assert serf_said(talk) == [LeaveIntent(1, ME)]


def test_among_our_own_the_goodbye_is_said_at_once() -> None:
    talk = Talk(peers=1)
    talk.mesh.leave(now=talk.now)
    talk._drain()
    assert talk.said(Dead)


def test_a_node_that_has_joined_says_that_it_is_here_to_stay() -> None:
    talk = among_stock()
    talk.mesh.join([STOCK_ADDRESS], now=talk.now)
    talk.pass_time(talk.now + 0.1)
    (exchange,) = talk.exchanges
    state = encode_state(UserState(30, {STOCK: 4, ME: 29}, (ME,), 8, 9))
    reply = PushPull((NodeState(Alive(1, STOCK, STOCK_ADDRESS), STATE_ALIVE),), join=True, user_state=state)
    talk.mesh.reply(exchange.number, reply, now=talk.now)
    talk.pass_time(talk.now + 1.0)
    (said,) = serf_said(talk)[-1:]
    assert isinstance(said, JoinIntent)
    assert (said.node, said.time > 29) == (ME, True)


# --- exchanges ---


def answer_of(talk: Talk, user_state: bytes) -> UserState:
    reply = talk.mesh.answer(PushPull((), join=False, user_state=user_state), now=talk.now)
    whole = StreamDecoder().feed(reply)
    assert isinstance(whole, PushPull)
    return decode_state(whole.user_state)


def test_an_exchange_tells_the_clocks_the_intents_and_who_left() -> None:
    talk = among_stock()
    talk.hear(User(encode_join(JoinIntent(6, ONE))), sender=talk.address(ONE))
    talk.hear(User(encode_leave(LeaveIntent(8, STOCK))), Dead(1, STOCK, STOCK), sender=STOCK_ADDRESS)
    talk.hear(User(MESSAGES["event"]), sender=STOCK_ADDRESS)
    assert answer_of(talk, b"") == UserState(9, {ONE: 6, STOCK: 8}, (STOCK,), 2, 1)


def test_an_exchange_brings_the_clocks_and_makes_a_dead_member_one_that_left() -> None:
    talk = among_stock(peers=2)
    talk.silent = {ONE: None}
    talk.pass_time_until(lambda: talk.status(ONE) == "dead", limit_s=30.0)
    told = encode_state(UserState(50, {ONE: 7, TWO: 8}, (ONE,), 60, 70))
    answer = answer_of(talk, told)
    assert (answer.time, answer.event_time, answer.query_time) == (50, 60, 70)
    assert talk.status(ONE) == "left"
    assert answer_of(talk, told).status_times == {ONE: 8, TWO: 8}  # and hearing it again moves nothing


def test_a_state_that_cannot_be_read_spoils_nothing_else() -> None:
    talk = among_stock()
    assert answer_of(talk, b"\x02nonsense").time == 1
    assert sum(talk.mesh.counters.rejected.values()) == 1


# --- what Serf asks of its members ---


def test_a_stock_agent_that_pings_by_query_gets_its_ack() -> None:
    talk = among_stock()
    talk.hear(query(b"_serf_ping", flags=1), sender=STOCK_ADDRESS)
    assert responses(talk) == [Response(3, 77, ME, ack=True)]


def test_who_asks_whether_its_name_is_contested_learns_whom_we_know_by_it() -> None:
    talk = among_stock()
    talk.hear(query(b"_serf_conflict", STOCK.encode()), sender=STOCK_ADDRESS)
    (response,) = responses(talk)
    assert response.payload[0] == 6
    assert b"\xa4Addr\xa4\x0a\x00\x00\x09" in response.payload
    talk.forget()
    talk.hear(query(b"_serf_conflict", ME.encode(), time=4), sender=STOCK_ADDRESS)
    talk.hear(query(b"_serf_conflict", b"nobody", time=5), sender=STOCK_ADDRESS)
    assert responses(talk) == []


def test_an_answer_goes_to_members_alone() -> None:
    talk = among_stock()
    talk.hear(query(b"_serf_ping", flags=1, asker=Address("10.9.9.9", 53)), sender=STOCK_ADDRESS)
    assert talk.said(User) == []
    assert talk.mesh.counters.rejected == {"stranger": 1}


def test_an_answer_takes_as_many_other_ways_as_are_wanted() -> None:
    talk = among_stock(peers=3)
    talk.hear(query(b"_serf_list-keys", encode_key_request(None), relays=2), sender=STOCK_ADDRESS)
    relayed = [(target, message) for _, target, message in talk.sent if isinstance(message, User) and message.body[0] == 9]
    assert len({target for target, _ in relayed}) == 2
    assert STOCK_ADDRESS not in {target for target, _ in relayed}


def test_an_answer_is_handed_on_to_a_member_and_nothing_else_to_nobody_else() -> None:
    talk = among_stock()
    response = encode_response(Response(3, 77, STOCK, payload=b"x"))
    talk.hear(User(encode_relay(Relay(talk.address(ONE), response), node=ONE)), sender=STOCK_ADDRESS)
    assert talk.said(User, to=ONE) == [User(response)]
    talk.forget()
    talk.hear(User(encode_relay(Relay(Address("10.9.9.9", 53), response), node="x")), sender=STOCK_ADDRESS)
    talk.hear(User(encode_relay(Relay(talk.address(ONE), MESSAGES["relay"]), node=ONE)), sender=STOCK_ADDRESS)
    talk.hear(User(encode_relay(Relay(talk.address(ONE), encode_leave(LeaveIntent(9, ONE))), node=ONE)), sender=STOCK_ADDRESS)
    assert talk.said(User) == []
    assert talk.mesh.counters.rejected == {"relay-refused": 3}

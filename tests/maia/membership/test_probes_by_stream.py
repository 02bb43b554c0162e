"""Where UDP does not pass and TCP does, a member lives."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.maia.talk import ME, Talk

from maia.config import Address
from maia.errors import DatagramRejected
from maia.exchanges import Exchange
from maia.wire.codec import encode
from maia.wire.messages import STATE_ALIVE, VSN, Ack, Dead, Nack, NodeState, Ping, PushPull, Suspect

ONE, TWO = "p1-000001", "p2-000002"


def stream_pings(talk: Talk) -> list[tuple[Exchange, Ping]]:
    found = []
    for exchange in talk.exchanges:
        message = talk.mesh.decoder().feed(exchange.request)
        if isinstance(message, Ping):
            found.append((exchange, message))
    talk.exchanges.clear()
    return found


def unanswered(talk: Talk, name: str) -> tuple[Exchange, Ping]:
    """The stream ping that follows a ping to `name` to which no datagram came back."""
    talk.silent[name] = None
    found: list[tuple[Exchange, Ping]] = []

    def asked() -> bool:
        found.extend(stream_pings(talk))
        return bool(found)

    talk.pass_time_until(asked)
    return found[0]


def test_who_does_not_answer_by_datagram_is_asked_by_stream_while_the_relays_ask_too() -> None:
    talk = Talk(peers=3)
    exchange, ping = unanswered(talk, ONE)
    assert (exchange.target, ping.node, ping.source_node) == (talk.address(ONE), ONE, ME)
    assert 0 < exchange.timeout_s <= talk.config.profile.probe_interval_s - talk.config.profile.probe_timeout_s + 1e-9
    assert talk.mesh.counters.indirect_pings == 2


def test_an_ack_by_stream_proves_that_a_member_lives() -> None:
    talk = Talk(peers=1)
    for _ in range(20):
        exchange, ping = unanswered(talk, ONE)
        talk.mesh.reply(exchange.number, Ack(ping.sequence), now=talk.now)
    assert talk.status(ONE) == "alive"
    assert (talk.mesh.counters.probes_by_stream, talk.mesh.counters.probes_failed, talk.mesh.counters.suspicions) == (20, 0, 0)


@pytest.mark.parametrize("wrong", [Ack(1), Ping(1), None])
def test_a_stream_that_fails_or_answers_something_else_proves_nothing(wrong: Ack | Ping | None) -> None:
    talk = Talk(peers=1)
    exchange, _ = unanswered(talk, ONE)
    if wrong is not None:
        with pytest.raises(DatagramRejected, match="unexpected-stream"):
            talk.mesh.reply(exchange.number, wrong, now=talk.now)
    talk.mesh.exchange_failed(exchange.number)
    talk.pass_time(talk.now + 1.0)
    assert talk.status(ONE) == "suspect"
    assert talk.mesh.counters.exchanges_failed == 0


def test_an_ack_by_stream_that_comes_after_the_datagram_s_changes_nothing() -> None:
    talk = Talk(peers=1)
    exchange, ping = unanswered(talk, ONE)
    talk.hear(Ack(ping.sequence), sender=talk.address(ONE))
    talk.mesh.reply(exchange.number, Ack(ping.sequence), now=talk.now)
    assert talk.mesh.counters.probes_by_stream == 0


def test_a_member_of_before_the_third_protocol_is_not_asked_by_stream() -> None:
    talk = Talk(peers=1)
    talk.hear(replace(talk.alive(ONE, 2), vsn=bytes((1, 2, 2, *VSN[3:]))), sender=talk.address(ONE))
    talk.silent[ONE] = None
    talk.pass_time_until(lambda: talk.mesh.counters.probes_failed)
    assert stream_pings(talk) == []


def test_a_ping_by_stream_is_answered_by_whom_it_means() -> None:
    talk = Talk(peers=1)
    assert talk.mesh.decoder().feed(talk.mesh.answer(Ping(9, ME), now=0.0)) == Ack(9)
    with pytest.raises(DatagramRejected, match="ping-for-another"):
        talk.mesh.answer(Ping(9, TWO), now=0.0)
    with pytest.raises(DatagramRejected, match="unexpected-stream"):
        talk.mesh.answer(Ack(9), now=0.0)
    with pytest.raises(DatagramRejected, match="unknown-stream"):
        talk.mesh.decoder().feed(encode(Nack(9)))


@pytest.mark.parametrize("believed", ["suspect", "dead", "left"])
def test_who_asks_by_stream_and_is_not_believed_alive_is_asked_back_for_all_that_it_knows(believed: str) -> None:
    talk = Talk(peers=3)
    match believed:
        case "suspect":
            talk.hear(Suspect(1, ONE, TWO), sender=talk.address(TWO))
        case "dead":
            talk.lose(ONE)
        case _:
            talk.hear(Dead(1, ONE, ONE), sender=talk.address(ONE))
    assert talk.status(ONE) == believed
    talk.exchanges.clear()
    for _ in range(3):
        talk.mesh.answer(Ping(9, ME, Address("10.6.6.6", 6), ONE), now=talk.now)
    talk.pass_time(talk.now)
    (exchange,) = (exchange for exchange in talk.exchanges if isinstance(talk.mesh.decoder().feed(exchange.request), PushPull))
    assert exchange.target == talk.address(ONE)
    state = PushPull((NodeState(talk.alive(ONE, 2), STATE_ALIVE),), join=False)
    talk.mesh.reply(exchange.number, state, now=talk.now)
    assert talk.status(ONE) == "alive"


def test_who_asks_by_stream_is_not_asked_back_where_it_is_believed_or_unknown_or_we_are_leaving() -> None:
    talk = Talk(peers=3)
    talk.mesh.answer(Ping(9, ME, talk.address(ONE), ONE), now=talk.now)
    talk.mesh.answer(Ping(9, ME, Address("10.6.6.6", 6), "stranger-666666"), now=talk.now)
    talk.lose(ONE)
    talk.mesh.leave(now=talk.now)
    talk.mesh.answer(Ping(9, ME, talk.address(ONE), ONE), now=talk.now)
    talk.pass_time(talk.now)
    assert [exchange for exchange in talk.exchanges if isinstance(talk.mesh.decoder().feed(exchange.request), PushPull)] == []


def test_an_exchange_that_is_answered_with_an_ack_has_failed() -> None:
    talk = Talk(peers=1)
    talk.mesh.join([talk.address(ONE)], now=talk.now)
    talk.pass_time_until(lambda: talk.exchanges)
    (exchange,) = talk.exchanges
    assert isinstance(talk.mesh.decoder().feed(exchange.request), PushPull)
    with pytest.raises(DatagramRejected, match="unexpected-stream"):
        talk.mesh.reply(exchange.number, Ack(1), now=talk.now)
    assert talk.mesh.counters.exchanges_failed == 1

"""How seeds are reached, and how the lost are found again."""

from __future__ import annotations

import itertools
from random import Random

from tests.maia.talk import ME, Talk, read_stream

from maia.config import Address
from maia.core import Mesh
from maia.exchanges import Exchange
from maia.membership.reunion import BACKOFF_MAX_S, KNOCKS_PER_STREAM
from maia.view import SeedAnswered
from maia.wire.messages import STATE_ALIVE, Ack, Dead, NodeState, Ping, PushPull

ONE, TWO = "p1-000001", "p2-000002"
SEED = Address("10.9.9.9", 9)


def fail_all(talk: Talk) -> list[float]:
    """Every exchange of the next five minutes fails; when each was begun."""
    begun: list[float] = []
    for _ in range(3000):
        talk.pass_time(talk.now + 0.1)
        for exchange in talk.exchanges:
            begun.append(talk.now)
            talk.mesh.exchange_failed(exchange.number)
        talk.exchanges.clear()
    return begun


def test_a_seed_that_does_not_answer_is_asked_for_ever_with_growing_pauses() -> None:
    talk = Talk()
    assert talk.mesh.join([SEED], now=0.0) == 1
    begun = fail_all(talk)
    pauses = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert pauses[0] < 0.6
    assert max(pauses) <= 1.5 * BACKOFF_MAX_S + 0.2
    assert begun[-1] > 270
    assert 20 < len(begun) < 40


def test_our_own_address_is_no_seed() -> None:
    talk = Talk()
    assert talk.mesh.join([talk.config.gossip], now=0.0) == 0
    assert fail_all(talk) == []


def test_a_seed_beyond_the_limit_is_asked_in_the_place_of_the_first() -> None:
    talk = Talk()
    seeds = [Address("10.9.9.9", port) for port in range(1, talk.config.limits.seeds_max + 2)]
    assert talk.mesh.join(seeds, now=0.0) == len(seeds)
    for _ in range(600):
        talk.pass_time(talk.now + 0.1)
        for exchange in talk.exchanges[:]:
            talk.mesh.exchange_failed(exchange.number)
    assert {exchange.target for exchange in talk.exchanges} == set(seeds[1:])


def test_a_seed_that_answered_is_not_asked_again() -> None:
    talk = Talk()
    seed = Talk(peers=1)
    talk.mesh.join([seed.address(ONE)], now=0.0)
    talk.pass_time(0.1)
    (exchange,) = talk.exchanges
    assert exchange.target == seed.address(ONE)
    assert read_stream(exchange.request).join
    talk.mesh.reply(exchange.number, PushPull((NodeState(seed.alive(ONE), STATE_ALIVE),), True), now=talk.now)
    talk.peers = seed.peers
    talk.pass_time(0.2)
    assert SeedAnswered(seed.address(ONE)) in talk.events
    talk.forget()
    talk.pass_time(90.0)
    assert talk.exchanges  # the exchanges that every node has now and then
    assert not any(read_stream(exchange.request).join for exchange in talk.exchanges)


def test_the_dead_are_pinged_now_and_then_and_whoever_answers_is_asked_for_everything() -> None:
    talk = Talk(peers=2)
    talk.silent[ONE] = None
    talk.lose(ONE)
    talk.forget()
    talk.pass_time(12.0)
    knocks = [message for message in talk.said(Ping, to=ONE) if isinstance(message, Ping)]
    assert 6 <= len(knocks) <= 20
    assert {knock.node for knock in knocks} == {ONE}
    talk.exchanges.clear()  # pings by stream
    talk.hear(Ack(knocks[-1].sequence), sender=talk.address(ONE))
    assert [exchange.target for exchange in talk.exchanges] == [talk.address(ONE)]


def knock_by_stream(talk: Talk) -> tuple[Exchange, Ping]:
    """The next knock that goes over TCP."""
    talk.forget()
    found: list[tuple[Exchange, Ping]] = []

    def knocked() -> bool:
        for exchange in talk.exchanges:
            message = talk.mesh.decoder().feed(exchange.request)
            if isinstance(message, Ping):
                found.append((exchange, message))
        talk.exchanges.clear()
        return bool(found)

    talk.pass_time_until(knocked, limit_s=20.0)
    return found[0]


def test_every_tenth_knock_goes_over_tcp_as_well_and_whoever_answers_it_is_asked_for_everything() -> None:
    talk = Talk(peers=2)
    talk.silent[ONE] = None
    talk.lose(ONE)
    unanswered, _ = knock_by_stream(talk)
    talk.mesh.exchange_failed(unanswered.number)
    exchange, ping = knock_by_stream(talk)
    assert len(talk.said(Ping, to=ONE)) == KNOCKS_PER_STREAM
    assert (exchange.target, ping.node, ping.source_node) == (talk.address(ONE), ONE, ME)
    talk.mesh.reply(exchange.number, Ack(ping.sequence), now=talk.now)
    (asked,) = talk.mesh.exchanges()
    assert asked.target == talk.address(ONE)
    assert not read_stream(asked.request).join


def test_those_who_left_are_left_alone() -> None:
    talk = Talk(peers=2)
    talk.hear(Dead(1, ONE, ONE), sender=talk.address(ONE))
    talk.forget()
    talk.pass_time(20.0)
    assert talk.said(Ping, to=ONE) == []


def test_a_seed_that_was_lost_and_forgotten_is_still_looked_for() -> None:
    talk = Talk()
    talk.mesh.join([SEED], now=0.0)
    talk.pass_time(0.1)
    (exchange,) = talk.exchanges
    talk.mesh.reply(exchange.number, PushPull((), True), now=talk.now)
    talk.forget()
    talk.pass_time(10.0)
    assert talk.said(Ping, to=SEED)


def test_a_ping_from_somebody_unknown_who_knows_us_leads_to_an_exchange_but_not_to_one_each_time() -> None:
    talk = Talk()
    for sequence in range(20):
        talk.hear(Ping(sequence, ME, SEED, "somebody"), sender=SEED)
    assert [exchange.target for exchange in talk.exchanges] == [SEED]
    assert talk.said(Ack, to=SEED) == [Ack(sequence) for sequence in range(20)]


def test_an_address_that_failed_us_is_not_dialled_again_at_once() -> None:
    talk = Talk()
    dialled: list[float] = []
    for sequence in range(100):
        talk.pass_time(sequence * 0.1)
        talk.hear(Ping(sequence, ME, SEED, "somebody"), sender=SEED)
        for exchange in talk.exchanges:
            dialled.append(talk.now)
            talk.mesh.exchange_failed(exchange.number)
        talk.exchanges.clear()
    assert dialled == [0.0, 5.0]


def test_a_flood_of_unknown_pingers_does_not_make_us_dial_them_all() -> None:
    talk = Talk()
    for number in range(1, 255):
        pinger = Address(f"10.8.0.{number}", 1)
        talk.hear(Ping(number, ME, pinger, "somebody"), sender=pinger)
    assert len(talk.exchanges) == 8
    talk.mesh.join([Address("10.8.1.1", 1)], now=talk.now)
    talk.pass_time(talk.now + 1.0)
    assert len(talk.exchanges) == 9, "a seed is dialled all the same"


def test_a_first_seed_that_restarts_without_knowing_anyone_is_found_by_those_who_knew_it() -> None:
    """Two real meshes: one keeps the other as a living member, the other has just started and has no seeds."""
    keeper, restarted = Talk(peers=1), Talk()
    restarted.mesh = Mesh(keeper.peers[ONE], random=Random(2), now=0.0)
    keeper.silent[ONE] = None
    keeper.pass_time_until(lambda: keeper.said(Ping, to=ONE))
    (ping,) = keeper.said(Ping, to=ONE)
    restarted.hear(ping, sender=keeper.config.gossip)
    (exchange,) = restarted.exchanges
    answer = keeper.mesh.answer(read_stream(exchange.request), now=keeper.now)
    restarted.mesh.reply(exchange.number, read_stream(answer), now=restarted.now)
    assert restarted.status(ME) == "alive"

"""How it is found out who still answers."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from tests.maia.talk import ME, Talk

from maia.config import LAN, LAN_FAST, Address
from maia.membership.members import PROBES_KEPT
from maia.membership.probing import PASSED_OVER_MAX
from maia.view import MemberSuspected
from maia.wire.messages import Ack, IndirectPing, Nack, Ping, Suspect

ONE, TWO, THREE = (f"p{number}-{number:06}" for number in (1, 2, 3))
STRANGER = Address("10.9.9.9", 9)


def test_every_member_is_probed_once_a_round_and_no_order_repeats_for_ever() -> None:
    talk = Talk(peers=8)
    talk.pass_time(1.0)  # the newcomers of the start have taken their places
    talk.forget()
    talk.pass_time(1.0 + 8 * 20 * 0.2)
    probed = [ping.node for ping in talk.said(Ping) if isinstance(ping, Ping)]
    counts = Counter(probed)
    assert set(counts) == set(talk.peers)
    assert max(counts.values()) - min(counts.values()) <= 2  # the first and the last round are cut
    rounds = {tuple(probed[at : at + 8]) for at in range(0, len(probed) - 8, 8)}
    assert len(rounds) > 10


@pytest.mark.parametrize("peers", [1, 2, 8])
def test_one_member_is_probed_per_interval(peers: int) -> None:
    talk = Talk(peers=peers)
    talk.pass_time(20.0)
    times = [at_s for at_s, _, message in talk.sent if isinstance(message, Ping)]
    assert len(times) in (98, 99, 100)
    assert min(later - earlier for earlier, later in pairwise(times)) > 0.199


def test_who_does_not_answer_is_asked_for_through_three_others_before_it_is_suspected() -> None:
    talk = Talk(peers=5)
    talk.silent[ONE] = None
    talk.pass_time(3.0)
    requests = [(at_s, target, message) for at_s, target, message in talk.sent if isinstance(message, IndirectPing)]
    first_s = requests[0][0]
    relays = [target for at_s, target, _ in requests if at_s == first_s]
    assert len(set(relays)) == 3
    assert talk.address(ONE) not in relays
    assert {message.timeout_ms for _, _, message in requests} == {80}
    pinged_s = next(at_s for at_s, target, message in talk.sent if isinstance(message, Ping) and target == talk.address(ONE))
    assert first_s - pinged_s == pytest.approx(LAN_FAST.probe_timeout_s)
    assert MemberSuspected(ONE, ME) in talk.events


def test_an_answer_through_another_is_an_answer() -> None:
    talk = Talk(peers=3)
    talk.silent[ONE] = None
    talk.pass_time_until(lambda: talk.said(IndirectPing))
    (request,) = talk.said(IndirectPing, to=TWO)
    assert isinstance(request, IndirectPing)
    talk.hear(Ack(request.sequence), sender=talk.address(TWO))
    talk.pass_time(talk.now + 0.15)
    assert talk.events == []


def test_a_suspect_learns_of_it_with_the_ping() -> None:
    talk = Talk(peers=3)
    talk.hear(Suspect(1, ONE, TWO), sender=talk.address(TWO))
    talk.pass_time(1.0)
    pinged = [at_s for at_s, target, message in talk.sent if isinstance(message, Ping) and target == talk.address(ONE)]
    accused = [at_s for at_s, target, message in talk.sent if message == Suspect(1, ONE, ME) and target == talk.address(ONE)]
    assert accused
    assert set(accused) <= set(pinged)


def failed_probe(talk: Talk, *, nacks: int) -> int:
    """The health score after a probe that nobody answered, when `nacks` relays said that they got no answer either."""
    talk.silent.update(dict.fromkeys(talk.peers))
    if nacks:
        talk.pass_time_until(lambda: talk.said(IndirectPing))
    for request in talk.said(IndirectPing)[:nacks]:
        assert isinstance(request, IndirectPing)
        talk.hear(Nack(request.sequence), sender=talk.address(TWO))
    talk.pass_time_until(lambda: talk.mesh.counters.probes_failed)
    talk.mesh.view(now=talk.now)
    return talk.mesh.counters.health


def test_missing_nacks_are_held_against_ourselves() -> None:
    assert failed_probe(Talk(peers=4), nacks=3) == 0
    assert failed_probe(Talk(peers=4), nacks=1) == 2
    assert failed_probe(Talk(peers=1), nacks=0) == 1


def test_a_probe_that_succeeds_makes_us_trust_ourselves_again() -> None:
    talk = Talk(peers=1)
    assert failed_probe(talk, nacks=0) == 1
    talk.silent.clear()
    talk.pass_time(talk.now + 1.0)
    talk.mesh.view(now=talk.now)
    assert talk.mesh.counters.health == 0


def test_the_silence_of_slower_relays_says_nothing_about_us() -> None:
    talk = Talk(peers=4)
    for name in (TWO, THREE, "p4-000004"):
        talk.hear(talk.alive(name, 2, profile=LAN), sender=talk.address(name))
    assert failed_probe(talk, nacks=0) == 1  # as if there were no relays that nack, and not 3


def test_a_relay_passes_the_answer_on_under_the_requester_s_number() -> None:
    talk = Talk(peers=2)
    talk.hear(IndirectPing(77, talk.address(ONE), ONE, True, talk.address(TWO), TWO, 80), sender=talk.address(TWO))
    assert talk.said(Ack, to=TWO) == [Ack(77)]
    talk.pass_time(0.15)
    assert talk.said(Nack) == []


def test_a_relay_says_in_time_that_it_got_no_answer_either() -> None:
    talk = Talk(peers=2)
    talk.silent[ONE] = None
    talk.hear(IndirectPing(77, talk.address(ONE), ONE, True, talk.address(TWO), TWO, 80), sender=talk.address(TWO))
    talk.pass_time(0.5)
    (nacked_s,) = [at_s for at_s, target, message in talk.sent if message == Nack(77) and target == talk.address(TWO)]
    assert nacked_s <= 0.8 * 0.080


def test_a_relay_without_a_wish_for_nacks_sends_none() -> None:
    talk = Talk(peers=2)
    talk.silent[ONE] = None
    talk.hear(IndirectPing(77, talk.address(ONE), ONE, False, talk.address(TWO), TWO), sender=talk.address(TWO))
    talk.pass_time(2.0)
    assert talk.said(Nack) == []


def test_relays_are_bounded_in_all_and_for_each_member_that_asks() -> None:
    talk = Talk(peers=40)
    talk.silent[ONE] = None
    for sequence in range(12):
        talk.hear(IndirectPing(sequence, talk.address(ONE), ONE, False, talk.address(TWO), TWO), sender=talk.address(TWO))
    assert talk.mesh.counters.rejected == {"too-many-relays": 4}
    for name in list(talk.peers)[2:]:
        for sequence in range(8):
            talk.hear(IndirectPing(sequence, talk.address(ONE), ONE, False, talk.address(name), name), sender=talk.address(name))
    assert talk.mesh.counters.rejected == {"too-many-relays": 4 + 38 * 8 - (256 - 8)}
    talk.pass_time(1.0)
    talk.forget()
    talk.hear(IndirectPing(99, talk.address(ONE), ONE, False, talk.address(TWO), TWO), sender=talk.address(TWO))
    assert talk.said(Ping, to=ONE), "their time is over, and there is room again"


def test_a_stall_frees_the_places_of_the_relays_that_it_ends() -> None:
    talk = Talk(peers=3)
    talk.silent[ONE] = None
    for sequence in range(20):
        talk.forget()
        talk.hear(IndirectPing(sequence, talk.address(ONE), ONE, True, talk.address(TWO), TWO, 80), sender=talk.address(TWO))
        assert talk.said(Ping, to=ONE)
        talk.now += 5.0
        talk.mesh.tick(now=talk.now)
    assert talk.mesh.counters.stalls == 20
    assert talk.mesh.counters.rejected == {}


def test_nobody_is_pinged_for_a_stranger_and_no_stranger_for_a_member() -> None:
    talk = Talk(peers=2)
    talk.hear(IndirectPing(1, talk.address(ONE), ONE, True, STRANGER, "x"), sender=STRANGER)
    talk.hear(IndirectPing(2, STRANGER, "x", False, talk.address(TWO), TWO), sender=talk.address(TWO))
    talk.hear(IndirectPing(3, STRANGER, ONE, True, talk.address(TWO), TWO), sender=talk.address(TWO))
    assert talk.said(Nack) == talk.said(Nack, to=TWO) == [Nack(3)]
    assert talk.said(Ping) == []
    assert talk.mesh.counters.rejected == {"stranger": 1}


def test_a_ping_for_another_name_is_not_answered() -> None:
    talk = Talk(peers=1)
    talk.hear(Ping(1, "the node that lived here before", talk.address(ONE), ONE), sender=talk.address(ONE))
    assert talk.said(Ack) == []
    assert talk.mesh.counters.rejected == {"ping-for-another": 1}


def test_a_peer_that_a_link_heard_is_not_pinged_for_an_interval() -> None:
    talk = Talk(peers=1)
    talk.pass_time(1.0)
    talk.forget()
    talk.mesh.heard(ONE, now=talk.now)
    talk.pass_time(1.199)
    assert talk.said(Ping) == []
    talk.pass_time(1.5)
    assert talk.said(Ping)


def test_a_peer_that_answers_calls_all_the_time_is_pinged_now_and_then_for_the_root_of_its_catalogue() -> None:
    talk = Talk(peers=1)
    talk.pass_time(1.0)
    talk.forget()
    for step in range(200):
        talk.mesh.heard(ONE, now=talk.now)
        talk.pass_time(1.0 + step * 0.05)
    assert 50 / (PASSED_OVER_MAX + 1) - 1 <= len(talk.said(Ping)) < 25  # of fifty intervals


def test_a_stall_gives_every_suspect_another_interval() -> None:
    stalled, steady = Talk(peers=4), Talk(peers=4)
    for talk in (stalled, steady):
        talk.hear(Suspect(1, TWO, THREE), sender=talk.address(THREE))
        talk.pass_time(5.9)  # of the six seconds that a lone accuser gets
    stalled.mesh.stalled(0.5, now=5.9)
    for talk in (stalled, steady):
        talk.pass_time(6.1)
    assert (stalled.status(TWO), steady.status(TWO)) == ("suspect", "dead")
    stalled.pass_time(6.3)
    assert stalled.status(TWO) == "dead"


def test_a_stall_counts_once_for_everything_that_waited_and_what_was_due_to_others_is_not_told_late() -> None:
    talk = Talk(peers=3)
    talk.silent[ONE] = None
    talk.hear(IndirectPing(77, talk.address(ONE), ONE, True, talk.address(TWO), TWO, 80), sender=talk.address(TWO))
    talk.forget()
    talk.now += 5.0
    for sequence in range(20):
        talk.hear(Ping(sequence, ME), sender=talk.address(TWO))
    talk.pass_time(talk.now + 0.1)
    assert talk.mesh.counters.stalls == 1
    assert talk.said(Nack) == []


def test_a_lag_shorter_than_a_probe_timeout_is_no_stall() -> None:
    talk = Talk(peers=1)
    talk.mesh.stalled(0.079, now=0.0)
    assert talk.mesh.counters.stalls == 0


def test_a_late_answer_is_noticed_as_our_own_stall() -> None:
    talk = Talk(peers=1)
    talk.silent[ONE] = None
    talk.pass_time_until(lambda: talk.said(Ping, to=ONE))
    (ping,) = talk.said(Ping, to=ONE)
    assert isinstance(ping, Ping)
    talk.now += 3.0
    talk.hear(Ack(ping.sequence), sender=talk.address(ONE))
    assert talk.mesh.counters.stalls == 1


def test_a_tick_that_comes_late_blames_nobody() -> None:
    talk = Talk(peers=1)
    talk.silent[ONE] = None
    talk.pass_time_until(lambda: talk.said(Ping, to=ONE))
    talk.mesh.tick(now=talk.now + 3.0)  # the deadline of that probe is long over
    assert talk.mesh.counters.probes_failed == 0
    assert (talk.mesh.counters.stalls, talk.mesh.counters.probes_voided) == (1, 1)
    assert talk.status(ONE) == "alive"


def test_a_verdict_shows_how_late_our_own_timers_were_before_it() -> None:
    talk = Talk(peers=1)
    talk.silent[ONE] = None
    talk.pass_time_until(lambda: talk.said(Ping, to=ONE))
    talk.mesh.tick(now=talk.now + 3.0)
    talk.now += 3.0
    talk.pass_time_until(lambda: talk.status(ONE) == "suspect")
    evidence = talk.member(ONE).evidence
    assert evidence is not None
    assert evidence.own_lag_s == pytest.approx(3.0, abs=0.1)
    assert [probe.outcome for probe in evidence.probes] == ["voided", "failed"]


def test_every_probe_is_counted_by_its_outcome_and_the_last_ones_are_kept() -> None:
    talk = Talk(peers=3)
    talk.pass_time(20.0)
    talk.hear(Suspect(1, ONE, TWO), sender=talk.address(TWO))
    counters = talk.mesh.counters
    assert counters.probes_acked == counters.pings > 90
    evidence = talk.member(ONE).evidence
    assert evidence is not None
    assert [probe.outcome for probe in evidence.probes] == ["acked"] * PROBES_KEPT


def test_an_answer_that_came_after_others_were_asked_is_told_apart() -> None:
    talk = Talk(peers=3)
    talk.silent[ONE] = None
    talk.pass_time_until(lambda: talk.said(IndirectPing))
    (request,) = talk.said(IndirectPing, to=TWO)
    assert isinstance(request, IndirectPing)
    talk.hear(Ack(request.sequence), sender=talk.address(TWO))
    assert (talk.mesh.counters.probes_late, talk.mesh.counters.probes_failed) == (1, 0)

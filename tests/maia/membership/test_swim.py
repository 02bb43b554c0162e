"""Which message overrules which, and how a node clears its own name."""

from __future__ import annotations

import pytest
from tests.maia.keys import key_of
from tests.maia.talk import ME, Talk

from maia.config import INCARNATION_MAX, LAN, Address
from maia.membership.members import EVIDENCE_KEPT
from maia.membership.suspicion import CONDEMNED_SHARE
from maia.view import (
    IncarnationRaised,
    MemberChanged,
    MemberCleared,
    MemberDied,
    MemberJoined,
    MemberLeft,
    MemberReturned,
    MemberSuspected,
    NameContested,
)
from maia.wire.messages import Alive, Dead, Message, Suspect

ONE, TWO, THREE = (f"p{number}-{number:06}" for number in (1, 2, 3))
ELSEWHERE = Address("10.9.9.9", 9)


def test_an_alive_makes_a_member_and_is_told_on() -> None:
    talk = Talk(peers=2)
    newcomer = Talk(peers=3).alive(THREE)
    talk.hear(newcomer, sender=talk.address(ONE))
    assert talk.status(THREE) == "alive"
    assert talk.events == [MemberJoined(THREE)]
    talk.pass_time(0.3)
    assert newcomer in talk.said(Alive, to=ONE)
    assert newcomer in talk.said(Alive, to=TWO)


@pytest.mark.parametrize(
    ("known", "heard", "becomes"),
    [
        # At equal incarnations dead overrules suspect overrules alive; a higher incarnation overrules all but a lower one never.
        (Alive, (Suspect, 5), "suspect"),
        (Alive, (Dead, 5), "suspect"),
        (Alive, (Suspect, 4), "alive"),
        (Alive, (Dead, 4), "alive"),
        (Alive, (Dead, 6), "suspect"),
        (Suspect, (Alive, 5), "suspect"),
        (Suspect, (Alive, 6), "alive"),
        (Suspect, (Dead, 5), "dead"),
        (Suspect, (Dead, 4), "suspect"),
        (Dead, (Alive, 5), "dead"),
        (Dead, (Suspect, 6), "dead"),
        (Dead, (Alive, 6), "alive"),
    ],
)
def test_which_message_overrules_which(known: type[Message], heard: tuple[type[Message], int], becomes: str) -> None:
    talk = Talk(peers=3)
    talk.hear(talk.alive(ONE, 5), sender=talk.address(ONE))

    def message(kind: type[Message], incarnation: int) -> Message:
        return talk.alive(ONE, incarnation) if kind is Alive else kind(incarnation, ONE, TWO)  # type: ignore[call-arg]

    if known is not Alive:
        talk.hear(message(known, 5), sender=talk.address(TWO))
        talk.silent[ONE] = None
        talk.pass_time(1.5)  # longer than the minimum of a suspicion: now whoever says that it is dead is believed
    talk.hear(message(*heard), sender=talk.address(TWO))
    assert talk.status(ONE) == becomes


def test_a_suspicion_is_told_on_and_ends_in_death_when_nobody_refutes() -> None:
    talk = Talk(peers=3)
    talk.silent[ONE] = None
    talk.hear(Suspect(1, ONE, TWO), sender=talk.address(TWO))
    assert talk.events == [MemberSuspected(ONE, TWO)]
    talk.pass_time(7.0)
    assert talk.status(ONE) == "dead"
    assert [event for event in talk.events if isinstance(event, MemberDied)] == [MemberDied(ONE, ME)]
    assert Suspect(1, ONE, TWO) in talk.said(Suspect, to=THREE)
    assert Dead(1, ONE, ME) in talk.said(Dead, to=THREE)


def test_a_refutation_clears_a_suspect() -> None:
    talk = Talk(peers=3)
    talk.hear(Suspect(1, ONE, TWO), sender=talk.address(TWO))
    talk.hear(talk.alive(ONE, 2), sender=talk.address(ONE))
    assert talk.events == [MemberSuspected(ONE, TWO), MemberCleared(ONE)]
    talk.pass_time(10.0)
    assert talk.status(ONE) == "alive"


def test_a_higher_accusation_starts_the_suspicion_anew() -> None:
    talk = Talk(peers=4)
    talk.hear(Suspect(1, ONE, TWO), sender=talk.address(TWO))
    talk.pass_time(5.5)  # of at most 6 s
    talk.hear(Suspect(2, ONE, THREE), sender=talk.address(THREE))
    talk.pass_time(6.5)
    assert talk.status(ONE) == "suspect"


def test_an_accused_node_refutes_at_once_to_three_peers_and_its_accuser() -> None:
    for accuser in Talk(peers=6).peers:
        talk = Talk(peers=6)
        talk.hear(Suspect(1, ME, accuser), sender=talk.address(accuser))
        refutations = [(target, message) for _, target, message in talk.sent if isinstance(message, Alive) and message.node == ME]
        assert {message.incarnation for _, message in refutations} == {2}
        targets = [target for target, _ in refutations]
        assert talk.address(accuser) in targets
        assert len(set(targets)) in (3, 4)
        assert talk.events == [IncarnationRaised(2)]
        assert talk.mesh.counters.refutations == 1


@pytest.mark.parametrize("accusation", [Suspect(9, ME, ONE), Dead(9, ME, ONE), Dead(9, ME, ME)])
def test_a_node_answers_every_accusation_with_a_higher_incarnation(accusation: Message) -> None:
    talk = Talk(peers=1)
    talk.hear(accusation, sender=talk.address(ONE))
    assert talk.member(ME).incarnation == 10
    assert talk.status(ME) == "alive"


def test_the_highest_accusation_that_is_believed_can_still_be_refuted() -> None:
    talk = Talk(peers=1)
    talk.hear(Dead(INCARNATION_MAX, ME, ONE), sender=talk.address(ONE))
    (alive,) = {message for message in talk.said(Alive, to=ONE) if isinstance(message, Alive) and message.node == ME}
    assert alive.incarnation == INCARNATION_MAX + 1
    other = Talk(peers=1)
    other.peers[ME] = talk.config
    other.hear(talk.alive(ONE), sender=talk.address(ONE))
    assert other.mesh.counters.rejected == {}


@pytest.mark.parametrize("stale", [Suspect(4, ONE, TWO), Dead(4, ONE, TWO)])
def test_whoever_tells_a_stale_accusation_is_answered_with_the_newer_alive(stale: Message) -> None:
    talk = Talk(peers=2)
    talk.hear(talk.alive(ONE, 5), sender=talk.address(ONE))
    talk.forget()
    talk.hear(stale, sender=talk.address(TWO))
    assert talk.alive(ONE, 5) in talk.said(Alive, to=TWO)
    assert talk.said(Alive, to=ONE) == []


def test_who_accuses_us_with_an_old_incarnation_is_told_our_newer_one() -> None:
    talk = Talk(peers=2, incarnation=5)
    talk.hear(Dead(4, ME, TWO), sender=talk.address(TWO))
    assert talk.member(ME).incarnation == 5
    assert [message.incarnation for message in talk.said(Alive, to=TWO) if isinstance(message, Alive) and message.node == ME] == [5]


def test_a_dead_member_that_speaks_is_told_that_it_is_dead_so_that_it_refutes() -> None:
    talk = Talk(peers=2)
    talk.lose(ONE, incarnation=5)
    talk.forget()
    talk.hear(talk.alive(ONE, 1), sender=talk.address(ONE))
    assert Dead(5, ONE, ME) in talk.said(Dead, to=ONE)
    assert talk.status(ONE) == "dead"


def test_a_member_that_forgot_its_incarnation_is_told_the_one_that_we_know() -> None:
    talk = Talk(peers=2)
    talk.hear(talk.alive(ONE, 7), sender=talk.address(ONE))
    talk.forget()
    talk.hear(talk.alive(ONE, 1), sender=talk.address(ONE))
    assert talk.alive(ONE, 7) in talk.said(Alive, to=ONE)


def test_a_goodbye_is_no_death() -> None:
    talk = Talk(peers=2)
    talk.hear(Dead(1, ONE, ONE), sender=talk.address(ONE))
    assert talk.status(ONE) == "left"
    assert talk.events == [MemberLeft(ONE)]
    assert talk.mesh.counters.deaths == 0


def test_who_suspects_somebody_that_said_goodbye_is_told_so() -> None:
    talk = Talk(peers=3)
    talk.hear(Dead(1, ONE, ONE), sender=talk.address(ONE))
    talk.forget()
    talk.hear(Suspect(1, ONE, TWO), sender=talk.address(TWO))
    assert talk.said(Dead, to=TWO) == [Dead(1, ONE, ONE)]
    assert talk.status(ONE) == "left"


def test_a_death_that_another_reports_is_an_accusation_until_the_member_had_time_to_refute() -> None:
    talk = Talk(peers=3)
    talk.silent[ONE] = None
    talk.hear(Dead(1, ONE, TWO), sender=talk.address(TWO))
    assert talk.events == [MemberSuspected(ONE, TWO)]
    assert talk.said(Dead) == []  # nor is it told on before it is believed
    talk.pass_time(CONDEMNED_SHARE - 0.05)
    assert talk.status(ONE) == "suspect"
    talk.pass_time(CONDEMNED_SHARE + 0.05)
    assert talk.status(ONE) == "dead"


def test_a_death_that_another_reports_is_refuted_like_any_accusation() -> None:
    talk = Talk(peers=3)
    talk.hear(Dead(1, ONE, TWO), sender=talk.address(TWO))
    talk.hear(talk.alive(ONE, 2), sender=talk.address(ONE))
    talk.pass_time(20.0)
    assert talk.status(ONE) == "alive"
    assert talk.mesh.counters.deaths == 0


def test_a_death_in_our_own_name_that_another_sends_is_no_verdict_of_ours() -> None:
    talk = Talk(peers=3)
    talk.hear(Dead(1, ONE, ME), sender=talk.address(TWO))
    assert talk.status(ONE) == "suspect"


def test_who_suspects_somebody_whom_we_buried_is_told_so() -> None:
    talk = Talk(peers=3)
    talk.lose(ONE)
    talk.forget()
    talk.hear(Suspect(1, ONE, TWO), sender=talk.address(TWO))
    assert talk.said(Dead, to=TWO) == [Dead(1, ONE, ME)]


def test_a_goodbye_that_comes_after_the_death_still_counts() -> None:
    talk = Talk(peers=2)
    talk.lose(ONE)
    talk.hear(Dead(1, ONE, ONE), sender=talk.address(TWO))
    assert talk.status(ONE) == "left"


def test_a_higher_generation_is_a_return_also_of_a_living_member() -> None:
    talk = Talk(peers=2)
    talk.hear(talk.alive(ONE, 2, generation=2), sender=talk.address(ONE))
    assert talk.events == [MemberReturned(ONE, 2)]


def test_new_tags_are_a_change_and_no_return() -> None:
    talk = Talk(peers=2)
    talk.hear(talk.alive(ONE, 2, role="inference"), sender=talk.address(ONE))
    assert talk.events == [MemberChanged(ONE)]
    assert talk.member(ONE).role == "inference"


def test_the_same_identity_may_move_to_another_address() -> None:
    talk = Talk(peers=2)
    talk.hear(talk.alive(ONE, 2, gossip=ELSEWHERE), sender=ELSEWHERE)
    assert talk.member(ONE).gossip == ELSEWHERE


def test_another_identity_never_takes_a_name_over() -> None:
    talk = Talk(peers=2)
    talk.lose(ONE)
    talk.forget()
    talk.hear(talk.alive(ONE, 9, signer=key_of("somebody else"), gossip=ELSEWHERE), sender=ELSEWHERE)
    assert talk.status(ONE) == "dead"
    assert talk.events == [NameContested(ONE, ELSEWHERE)]
    assert talk.mesh.counters.rejected == {"name-taken": 1}


def test_another_identity_under_our_own_name_starts_no_race_of_incarnations() -> None:
    talk = Talk(peers=1)
    talk.peers[ME] = talk.config
    impostor = talk.alive(ME, 9, signer=key_of("somebody else"), gossip=ELSEWHERE)
    talk.hear(impostor, sender=ELSEWHERE)
    assert talk.member(ME).incarnation == 1
    assert talk.events == [NameContested(ME, ELSEWHERE)]


@pytest.mark.parametrize("cluster_id", ["", "theirs"])
def test_a_node_of_another_cluster_is_no_member(cluster_id: str) -> None:
    talk = Talk(cluster_id="ours")
    stranger = Talk(peers=1).alive(ONE, cluster_id=cluster_id)
    talk.hear(stranger, sender=stranger.address)
    assert list(talk.mesh.view(now=0.0).members) == [ME]
    assert talk.mesh.counters.rejected == {"other-cluster": 1}


def test_a_stock_agent_belongs_here_only_where_the_configuration_says_so() -> None:
    stock = Alive(1, "stock", ELSEWHERE)
    closed, open_to_serf = Talk(), Talk(serf=True)
    for talk in (closed, open_to_serf):
        talk.hear(stock, sender=ELSEWHERE)
    assert "stock" not in closed.mesh.view(now=0.0).members
    assert open_to_serf.status("stock") == "alive"


def test_a_stock_agent_moves_only_after_its_goodbye() -> None:
    talk = Talk(serf=True)
    talk.hear(Alive(1, "stock", ELSEWHERE), sender=ELSEWHERE)
    moved = Alive(2, "stock", Address("10.9.9.8", 9))
    talk.hear(moved, sender=moved.address)
    assert talk.member("stock").gossip == ELSEWHERE
    talk.hear(Dead(1, "stock", "stock"), sender=ELSEWHERE)
    talk.hear(moved, sender=moved.address)
    assert talk.member("stock").gossip == moved.address


def test_the_victim_s_profile_decides_how_long_it_is_suspected() -> None:
    talk = Talk(peers=4)
    talk.hear(talk.alive(ONE, 2, profile=LAN), sender=talk.address(ONE))
    talk.silent[ONE] = talk.silent[TWO] = None
    for member, incarnation in ((ONE, 2), (TWO, 1)):
        for accuser in (THREE, "p4-000004", ME):
            talk.hear(Suspect(incarnation, member, accuser), sender=talk.address(THREE))
    talk.pass_time(1.5)
    assert (talk.status(ONE), talk.status(TWO)) == ("suspect", "dead")
    talk.pass_time(5.0)
    assert talk.status(ONE) == "dead"


def test_why_a_member_is_dead_is_remembered() -> None:
    talk = Talk(peers=3)
    talk.silent[ONE] = None
    talk.pass_time(9.0)
    evidence = talk.member(ONE).evidence
    assert evidence is not None
    assert (evidence.status, evidence.accuser) == ("dead", ME)
    assert "did not refute" in evidence.how
    assert evidence.accusers == (ME,)
    assert [probe.outcome for probe in evidence.probes][-2:] == ["failed", "failed"]
    assert "directly or through 2 others" in evidence.probes[-1].how


def test_whoever_said_goodbye_and_comes_again_is_not_called_restarted() -> None:
    talk = Talk(peers=2)
    talk.hear(Dead(1, ONE, ONE), sender=talk.address(ONE))
    talk.hear(talk.alive(ONE, 2, generation=2), sender=talk.address(ONE))
    evidence = talk.member(ONE).evidence
    assert evidence is not None
    assert (evidence.status, evidence.how) == ("alive", "joined again")


def test_what_led_to_a_death_is_still_known_when_the_member_is_back() -> None:
    talk = Talk(peers=3)
    talk.silent[ONE] = None
    talk.pass_time(9.0)
    talk.silent.clear()
    talk.hear(talk.alive(ONE, 2, generation=2), sender=talk.address(ONE))
    assert [(evidence.status, evidence.how) for evidence in talk.member(ONE).history][-1] == ("alive", "restarted")
    assert [evidence.status for evidence in talk.member(ONE).history] == ["alive", "suspect", "dead", "alive"]


def test_of_a_member_that_flaps_only_the_last_is_remembered() -> None:
    talk = Talk(peers=3)
    for incarnation in range(1, 40):
        talk.hear(Suspect(incarnation, ONE, TWO), sender=talk.address(TWO))
        talk.hear(talk.alive(ONE, incarnation + 1), sender=talk.address(ONE))
    history = talk.member(ONE).history
    assert len(history) == EVIDENCE_KEPT
    assert [evidence.status for evidence in history[-2:]] == ["suspect", "alive"]
    assert history[-1].accusers == (TWO,)
    assert talk.mesh.counters.cleared == 39


def test_who_accused_this_node_is_known_after_it_refuted() -> None:
    talk = Talk(peers=2)
    talk.hear(Suspect(1, ME, TWO), sender=talk.address(TWO))
    evidence = talk.member(ME).evidence
    assert evidence is not None
    assert (evidence.status, evidence.accuser) == ("alive", TWO)


def test_a_confirmation_counts_once_and_a_repetition_not_at_all() -> None:
    talk = Talk(peers=4)
    for accuser in (TWO, TWO, THREE, THREE):
        talk.hear(Suspect(1, ONE, accuser), sender=talk.address(accuser))
    assert (talk.mesh.counters.suspicions, talk.mesh.counters.confirmations) == (1, 1)


def test_more_members_than_the_limit_are_refused() -> None:
    talk = Talk(peers=2)
    crowd = Talk(peers=10)
    object.__setattr__(talk.config.limits, "members_max", 4)
    for name in crowd.peers:
        talk.hear(crowd.alive(name), sender=crowd.address(name))
    assert len(talk.mesh.view(now=0.0).members) == 4
    assert talk.mesh.counters.rejected["too-many-members"] == 7


def test_after_a_goodbye_nothing_is_refuted_and_everybody_is_told() -> None:
    talk = Talk(peers=3)
    talk.mesh.leave(now=talk.now)
    talk.pass_time(0.01)
    for name in talk.peers:
        assert Dead(1, ME, ME) in talk.said(Dead, to=name)
    talk.hear(Dead(1, ME, ME), sender=talk.address(ONE))
    assert talk.member(ME).incarnation == 1
    assert not talk.mesh.farewell_told
    talk.pass_time(2.0)
    assert talk.mesh.farewell_told

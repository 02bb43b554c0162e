"""Every invariant can be broken, and says so under its name; a failure says how to see it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from _pytest.outcomes import Failed
from tests.simulation.scenario import scenario

from maia.core import Mesh
from maia.sim.campaign import Summary
from maia.sim.invariants import Invariant
from maia.sim.oracle import InvariantBroken, Oracle
from maia.sim.run import Run, RunFailed, carry_out, live
from maia.sim.squeezing import compressed, squeezed
from maia.sim.stamps import stamped
from maia.sim.world import NodeReconnected, World
from maia.view import IncarnationRaised, MemberLeft, MemberReturned
from maia.wire.codec import decode, encode, pack
from maia.wire.compress import expand
from maia.wire.messages import Suspect

RUN = Run(seed=11, nodes=7, seconds=20.0, loss=0.05, duplication=0.05, reordering=0.1, faults=3)


class Watched:
    """Three nodes under an oracle, well for long enough that nothing excuses them."""

    def __init__(self) -> None:
        self.oracle = Oracle()
        self.world = World(5, nodes=3, witness=self.oracle.witness)
        self.world.boot_all()
        live(self.world, self.oracle, seconds=12.0)
        self.one, self.two, self.three = self.world.nodes

    def pass_time(self, seconds: float) -> None:
        live(self.world, self.oracle, seconds=seconds)
        self.oracle.check(self.world)

    def broken(self, invariant: Invariant, *, saying: str, seconds: float = 0.0) -> None:
        with pytest.raises(InvariantBroken, match=f"^{invariant}: at .*{saying}") as caught:
            self.pass_time(seconds)
        assert caught.value.invariant is invariant


def test_spared_sees_a_living_node_given_up() -> None:
    watched = Watched()
    watched.world.sky.partition([[0, 1], [2]])  # behind the oracle's back
    watched.broken(Invariant.SPARED, saying="which lives", seconds=30.0)


def test_no_ghost_sees_a_return_without_anything_new() -> None:
    watched = Watched()
    with pytest.raises(InvariantBroken, match=r"^no ghost: .* saw node001-000001 live again .* after \(2, 2\)"):
        watched.oracle.witness(watched.world, watched.one, MemberReturned(watched.two.name, watched.two.generation))


def test_trusted_again_sees_who_stays_dead_though_nothing_is_wrong() -> None:
    watched = Watched()
    watched.world.partition([[0, 1], [2]])
    live(watched.world, watched.oracle, seconds=20.0)
    for node in watched.world.nodes:
        watched.oracle.witness(watched.world, node, NodeReconnected())  # so it believes
    watched.broken(Invariant.TRUSTED, saying="which is well", seconds=60.0)


def test_own_word_sees_an_incarnation_that_its_owner_never_had() -> None:
    watched = Watched()
    watched.two.incarnation = 1
    watched.broken(
        Invariant.OWN_WORD, saying=r"knows generation and incarnation \(2, 2\) of node001-000001, which is at \(2, 1\)", seconds=1.0
    )


def test_monotone_sees_an_incarnation_fall() -> None:
    watched = Watched()
    watched.oracle.witness(watched.world, watched.one, IncarnationRaised(9))
    with pytest.raises(InvariantBroken, match=r"^monotone: .* raised its incarnation from 9 to 8"):
        watched.oracle.witness(watched.world, watched.one, IncarnationRaised(8))


def test_monotone_sees_what_is_known_of_others_fall() -> None:
    watched = Watched()
    watched.oracle._known[watched.one.name, watched.two.name] = (2, 7)
    watched.broken(Invariant.MONOTONE, saying=r"went back from \(2, 7\) to \(2, 2\)", seconds=1.0)


def test_monotone_sees_an_offer_go_back() -> None:
    watched = Watched()
    watched.world.offer(watched.one, "models/1", stamped(5))
    live(watched.world, watched.oracle, seconds=1.0)
    with pytest.raises(InvariantBroken, match=r"^monotone: .* went back from 5 to 3 in what node000-000000 offers"):
        watched.world.offer(watched.one, "models/1", stamped(3))


def test_noticed_sees_a_crash_that_nobody_notices() -> None:
    watched = Watched()
    watched.oracle.crashed_s[watched.three.name] = -100.0  # so it believes, and the node answers all the same
    watched.broken(Invariant.NOTICED, saying="still sees node002-000002 as living", seconds=30.0)


def test_no_limbo_sees_an_endless_doubt() -> None:
    watched = Watched()
    assert watched.one.mesh is not None
    member = watched.one.mesh._table.by_name[watched.two.name]
    member.status = "suspect"
    member.since_s -= 1000.0
    watched.one.mesh._table.touch(member)
    watched.broken(Invariant.NO_LIMBO, saying="suspects node001-000001 for 1")


@pytest.mark.parametrize(
    ("waste", "what"),
    [
        (lambda watched: setattr(watched.one, "ticks", 100_000), "wakes in 1 s"),
        (lambda watched: setattr(watched.one.mesh.counters, "stream_bytes_out", 10**9), "bytes in streams in 1 s"),
        (lambda watched: watched.one.mesh.counters.sent("ping", 10**8), "bytes in datagrams in 1 s"),
        (lambda watched: [watched.one.mesh._rumours.add(f"{number}", bytes(1000)) for number in range(3000)], "rumours are queued"),
        (lambda watched: watched.one.mesh._exchanges._under_way.update(dict.fromkeys(range(99))), "99 exchanges"),
    ],
    ids=["wakes", "streams", "datagrams", "rumours", "exchanges"],
)
def test_bounded_sees_what_grows(waste: Callable[[Watched], None], what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maia.membership.rumours.RUMOURS_MAX", 10_000)
    watched = Watched()
    waste(watched)
    watched.broken(Invariant.BOUNDED, saying=what)


def test_unmoved_sees_garbage_that_is_believed() -> None:
    watched = Watched()
    with pytest.raises(InvariantBroken, match=r"^unmoved: .* took garbage for something"):
        watched.world.litter(encode(Suspect(2, watched.two.name, "nobody")), sender=watched.three, receiver=watched.one)


def test_own_error_sees_any_other_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(mesh: Mesh, datagram: bytes, **_: object) -> None:
        raise IndexError(len(datagram))

    monkeypatch.setattr(Mesh, "receive", careless)
    with pytest.raises(RunFailed, match=r"^own error: .* raised IndexError\(") as caught:
        carry_out(Run(seed=1, nodes=3, seconds=5.0))
    assert caught.value.invariant is Invariant.OWN_ERROR


def test_agreement_sees_catalogues_that_differ() -> None:
    watched = Watched()
    watched.oracle.check_agreement(watched.world)
    watched.two.offers["never offered"] = b""
    with pytest.raises(InvariantBroken, match=r"^agreement: .* sees 1 offers of node001-000001, which has 2"):
        watched.oracle.check_agreement(watched.world)


def test_agreement_takes_a_goodbye_that_nobody_heard_for_a_death_and_no_other() -> None:
    watched = Watched()
    watched.world.partition([[0, 1], [2]])
    watched.pass_time(1.0)
    watched.world.leave(watched.three)
    watched.pass_time(3.0)
    watched.world.crash(watched.three)
    watched.world.heal()
    watched.pass_time(60.0)
    assert watched.world.view(watched.one).members[watched.three.name].status == "dead"
    watched.oracle.check_agreement(watched.world)
    watched.oracle.witness(watched.world, watched.two, MemberLeft(watched.three.name))  # so it believes
    with pytest.raises(InvariantBroken, match=r"which left, as dead"):
        watched.oracle.check_agreement(watched.world)


def test_every_invariant_stands_in_the_algorithm_with_what_it_means() -> None:
    told = (Path(__file__).parents[2] / "mesh" / "ALGORITHM.md").read_text()
    assert [invariant for invariant in Invariant if f"| **{invariant}** |" not in told] == []


def test_a_failing_seed_says_how_to_replay_it_and_what_its_node_saw() -> None:
    watched = Watched()
    told = str(RunFailed(RUN, InvariantBroken(watched.world, watched.two, Invariant.SPARED, "something must never happen")))
    assert told.startswith("spared: at 12.000 s, node001-000001: something must never happen")
    assert "replay: python -m maia.sim --seed 11 --nodes 7 --seconds 20 --profile lan-fast --loss 0.05" in told
    assert "MemberJoined(name='node002-000002')" in told


def test_a_failing_scenario_says_the_same() -> None:
    with pytest.raises(Failed) as caught, scenario(3, nodes=3) as mesh:
        raise InvariantBroken(mesh.world, mesh.nodes[1], Invariant.SPARED, "something must never happen")
    told = str(caught.value)
    assert told.startswith("spared: at 3.000 s, node001-000001: something must never happen")
    assert "replay: SEED=3 pytest tests/simulation/test_oracle.py::test_a_failing_scenario_says_the_same" in told
    assert "MemberJoined(name='node002-000002')" in told


def test_a_campaign_that_found_something_says_what_and_fails() -> None:
    summary = Summary()
    summary.add(RUN, None, "spared: something must never happen")
    assert list(summary.lines(seconds=2.0)) == ["lan-fast: 1 seeds, 0 packets", "0 packets in 2 s of wall time; 1 violations"]


def test_what_the_world_compresses_is_read_as_what_it_was() -> None:
    random = Random(3)
    parts = [encode(Suspect(number, f"node{number:03}", "nobody")) for number in range(20)]
    for packet in (pack(parts), pack(parts, checksum=False), parts[0], random.randbytes(1200)):
        if packet[0] != 12:
            assert expand(compressed(packet), bytes_max=len(packet)) == packet
    assert len(squeezed(pack(parts))) < len(pack(parts)) / 2
    assert decode(squeezed(pack(parts))) == decode(pack(parts))

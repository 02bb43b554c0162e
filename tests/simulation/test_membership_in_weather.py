"""Whole meshes in virtual time, many seeds of each: who is noticed, who is spared, who returns.

A failure names the seed and the last events of the node, and the command that replays the run where there is one.
"""

from __future__ import annotations

import pytest
from tests.simulation.scenario import LOSSY, died, every_seed, few_seeds, scenario, some_seeds

from maia.config import LAN, LAN_FAST, Profile
from maia.keyring import Keyring
from maia.sim.run import Run, carry_out
from maia.sim.weather import Weather
from maia.view import MemberLeft


@every_seed
def test_a_crash_is_noticed_by_everyone_and_nobody_else_dies(seed: int) -> None:
    with scenario(seed, weather=LOSSY) as mesh:
        victim = mesh.nodes[seed % 10]
        mesh.run(7.0)
        mesh.world.crash(victim)
        mesh.run(15.0)  # the oracle fails the run at once if anybody else is given up
        survivors = [node for node in mesh.nodes if node is not victim]
        assert [mesh.status(node, victim) for node in survivors] == ["dead"] * 9
        assert [died(node) for node in survivors] == [[victim.name]] * 9
        assert len(mesh.oracle.noticed_s) == 9


@some_seeds
def test_a_quiet_mesh_suspects_nobody(seed: int) -> None:
    with scenario(seed) as mesh:
        mesh.run(30.0)
        for node in mesh.nodes:
            assert node.mesh is not None
            assert (node.mesh.counters.suspicions, node.mesh.counters.probes_failed) == (0, 0)
            assert node.mesh.counters.rejected == {}


@every_seed
def test_a_short_pause_is_refuted_before_anybody_gives_the_node_up(seed: int) -> None:
    with scenario(seed) as mesh:
        paused = mesh.nodes[seed % 10]
        mesh.world.pause(paused)
        mesh.run(0.7)
        mesh.world.resume(paused)
        mesh.run(10.0)
        for node in mesh.nodes:
            assert died(node) == []
        mesh.settle()


@every_seed
def test_a_stopped_node_blames_nobody_when_it_goes_on(seed: int) -> None:
    with scenario(seed) as mesh:
        paused = mesh.nodes[seed % 10]
        mesh.world.pause(paused)
        mesh.run(5.0)
        mesh.world.resume(paused)
        mesh.settle()
        assert paused.mesh is not None
        assert paused.mesh.counters.stalls >= 1
        assert died(paused) == []
        assert paused.mesh.counters.refutations >= 1


@every_seed
@pytest.mark.parametrize("keep_state", [True, False], ids=["with its state", "without its state"])
@pytest.mark.parametrize("down_s", [0.3, 4.0], ids=["unnoticed", "noticed"])
def test_a_restarted_node_is_alive_everywhere_with_what_it_offers_now(seed: int, keep_state: bool, down_s: float) -> None:
    with scenario(seed, nodes=6, weather=Weather(loss=0.02)) as mesh:
        victim = mesh.nodes[seed % 6]  # the first seed, which itself knows no seed, included
        mesh.world.crash(victim)
        mesh.run(down_s)
        victim.offers = {"models/3": b"another model"}
        mesh.world.boot(victim, keep_state=keep_state)
        mesh.settle()
        for node in mesh.nodes:
            member = mesh.world.view(node).members[victim.name]
            assert member.generation == victim.generation
            assert member.offers == {"models/3": b"another model"}


@some_seeds
def test_a_goodbye_is_seen_as_left_by_everyone_and_as_dead_by_nobody(seed: int) -> None:
    with scenario(seed, weather=LOSSY) as mesh:
        leaver = mesh.nodes[seed % 10]
        mesh.world.leave(leaver)
        end_s = mesh.world.now + 3.0
        while leaver.mesh is not None and not leaver.mesh.farewell_told and mesh.world.now < end_s:
            mesh.run(0.05)
        assert leaver.mesh is not None
        assert leaver.mesh.farewell_told
        mesh.world.crash(leaver)
        mesh.run(10.0)
        for node in mesh.nodes:
            if node is not leaver:
                assert mesh.status(node, leaver) == "left"
                assert died(node) == []
                assert sum(event == MemberLeft(leaver.name) for _, event in node.history) == 1


@some_seeds
def test_a_partition_heals_whoever_was_given_up_meanwhile(seed: int) -> None:
    with scenario(seed, weather=Weather(loss=0.02)) as mesh:
        mesh.world.partition([range(seed % 9 + 1), range(seed % 9 + 1, 10)])
        mesh.run(30.0)  # a node that is alone doubts itself first, and nobody confirms what it suspects
        assert mesh.status(mesh.nodes[0], mesh.nodes[9]) == "dead" == mesh.status(mesh.nodes[9], mesh.nodes[0])
        mesh.world.heal()
        mesh.settle()


@some_seeds
def test_one_failed_link_fails_no_node(seed: int) -> None:
    with scenario(seed, nodes=5) as mesh:
        one, other = seed % 5, (seed + 1) % 5
        for sender, receiver in ((one, other), (other, one))[: 1 + seed % 2]:
            mesh.world.cut(sender, receiver)
        mesh.run(20.0)
        for node in mesh.nodes:
            assert died(node) == []


@some_seeds
def test_every_node_restarting_at_once_leaves_no_ghosts_and_no_lonely_node(seed: int) -> None:
    with scenario(seed, nodes=8, weather=Weather(loss=0.02)) as mesh:
        for node in mesh.nodes:
            mesh.world.crash(node)
        mesh.run(0.5)
        for node in mesh.nodes:
            mesh.world.boot(node, keep_state=bool(seed % 2))
        mesh.settle()


@few_seeds
@pytest.mark.parametrize("profile", [LAN_FAST, LAN], ids=lambda profile: profile.name)
def test_many_troubles_one_after_another_break_no_invariant(seed: int, profile: Profile) -> None:
    outcome = carry_out(Run(seed=seed, nodes=9, seconds=60.0, profile=profile.name, loss=0.03, duplication=0.03, reordering=0.05, faults=6))
    assert outcome.packets > 1000


@few_seeds
def test_two_nodes_notice_each_other_s_death_and_no_other(seed: int) -> None:
    with scenario(seed, nodes=2, weather=Weather(loss=0.02)) as mesh:
        mesh.run(20.0)
        mesh.world.crash(mesh.nodes[1])
        mesh.run(10.0)
        assert mesh.status(mesh.nodes[0], mesh.nodes[1]) == "dead"


def test_what_a_node_sends_when_nothing_happens_is_bounded() -> None:
    with scenario(1, nodes=10) as mesh:
        mesh.run(60.0)
        for node in mesh.nodes:
            assert node.mesh is not None
            sent_bytes = sum(node.mesh.counters.bytes_out.values()) + 28 * sum(node.mesh.counters.datagrams_out.values())
            assert sent_bytes * 8 / 63 < 12_000  # bits per second, IP and UDP headers included


@few_seeds
def test_a_sealed_mesh_notices_a_crash_and_takes_the_node_back(seed: int) -> None:
    with scenario(seed, nodes=5, weather=Weather(loss=0.02), keyring=Keyring((b"k" * 32,))) as mesh:
        mesh.world.crash(mesh.nodes[1])
        mesh.run(10.0)
        assert mesh.status(mesh.nodes[0], mesh.nodes[1]) == "dead"
        mesh.world.boot(mesh.nodes[1])
        mesh.settle()
        assert mesh.status(mesh.nodes[0], mesh.nodes[1]) == "alive"

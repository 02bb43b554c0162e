"""Each kind of bad weather alone, and what the mesh makes of it: nobody dies, and in the end everybody knows everything."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

import pytest
from tests.simulation.scenario import Scenario, died, few_seeds, scenario, some_seeds

from maia.config import LAN, LAN_FAST, MeshConfig, Profile
from maia.keyring import Keyring
from maia.sim.nemesis import Starvation, rotate, strike
from maia.sim.weather import Weather
from maia.sim.world import SimulatedNode, address_of
from maia.view import MemberChanged, MemberReturned

KEY, NEW_KEY = b"k" * 32, b"n" * 32


def change_offers(mesh: Scenario, seed: int, *, changes: int = 20) -> None:
    random = Random(seed)
    for _ in range(changes):
        node = mesh.nodes[random.randrange(len(mesh.nodes))]
        mesh.world.offer(node, f"models/{random.randrange(4)}", random.randbytes(1 + random.randrange(800)))
        mesh.run(0.1)


@few_seeds
@pytest.mark.parametrize(
    "weather",
    [
        Weather(latency_s=(0.01, 0.03)),
        Weather(loss=0.1),
        Weather(duplication=0.5),
        Weather(reordering=0.5, late_s=0.2),
        Weather(compression=0.5),
    ],
    ids=["latency", "loss", "duplication", "reordering", "compression"],
)
def test_nobody_dies_of_the_weather_and_everybody_learns_everything(seed: int, weather: Weather) -> None:
    with scenario(seed, nodes=8, weather=weather) as mesh:
        change_offers(mesh, seed)
        mesh.run(20.0)
        assert [died(node) for node in mesh.nodes] == [[]] * 8
        mesh.settle()


@some_seeds
def test_an_asymmetric_partition_shows_as_link_state_and_not_as_a_death(seed: int) -> None:
    with scenario(seed, nodes=5) as mesh:
        one, other = mesh.nodes[seed % 5], mesh.nodes[(seed + 2) % 5]
        mesh.world.cut(one.index, other.index)
        mesh.run(30.0)
        assert [died(node) for node in mesh.nodes] == [[]] * 5
        for asks, asked in ((one, other), (other, one)):
            assert asks.mesh is not None
            assert asks.mesh.counters.probes_late > 0  # through others, since the ping is lost one way and the ack the other
            assert mesh.status(asks, asked) == "alive"


@few_seeds
@pytest.mark.parametrize("profile", [LAN_FAST, LAN], ids=lambda profile: profile.name)
def test_a_starved_node_accuses_nobody_to_death_and_is_spared(seed: int, profile: Profile) -> None:
    with scenario(seed, nodes=6, profile=profile, weather=Weather(loss=0.02)) as mesh:
        starved = mesh.nodes[seed % 6]
        strike(mesh.world, Starvation(mesh.world.now, starved.index, for_s=60.0, stall_s=0.1 + 0.3 * Random(seed).random()))
        mesh.run(62.0)
        assert [died(node) for node in mesh.nodes] == [[]] * 6
        assert starved.mesh is not None
        assert starved.mesh.counters.stalls > 10 or profile is LAN
        mesh.settle()


@some_seeds
def test_a_patient_node_is_given_its_own_time_by_hasty_ones(seed: int) -> None:
    def patient(index: int, config: MeshConfig) -> MeshConfig:
        return replace(config, profile=LAN) if index == seed % 6 else config

    with scenario(seed, nodes=6, configure=patient) as mesh:
        stopped = mesh.nodes[seed % 6]
        mesh.world.pause(stopped)
        mesh.run(3.5)  # longer than any of the others would be given, and less than its own four seconds
        assert "suspect" in [mesh.status(node, stopped) for node in mesh.everyone_but(stopped)]
        mesh.world.resume(stopped)
        mesh.run(10.0)
        assert [died(node) for node in mesh.nodes] == [[]] * 6
        mesh.settle()


@some_seeds
def test_a_machine_that_sleeps_with_all_its_nodes_wakes_without_a_death(seed: int) -> None:
    with scenario(seed, nodes=6) as mesh:
        first = mesh.nodes[seed % 6]
        mesh.world.pause(first)
        while not all(mesh.status(node, first) == "suspect" for node in mesh.everyone_but(first)):
            mesh.run(0.05)
        for node in mesh.nodes:
            mesh.world.pause(node)
        mesh.run(8.0)  # longer than anybody may be suspected
        for node in mesh.nodes:
            mesh.world.resume(node)
        mesh.run(10.0)
        assert [died(node) for node in mesh.nodes] == [[]] * 6
        mesh.settle()


@few_seeds
def test_clocks_that_go_wrong_by_a_tenth_kill_nobody_and_hide_no_crash(seed: int) -> None:
    with scenario(seed, nodes=6, weather=Weather(loss=0.02), drift=0.1) as mesh:
        mesh.run(30.0)
        assert [died(node) for node in mesh.nodes] == [[]] * 6
        victim = mesh.nodes[seed % 6]
        mesh.world.crash(victim)
        mesh.run(10.0)
        assert [mesh.status(node, victim) for node in mesh.everyone_but(victim)] == ["dead"] * 5


@some_seeds
@pytest.mark.parametrize("keep_state", [True, False], ids=["with its state", "without its state"])
def test_a_node_that_returns_at_another_address_is_found_there_and_by_its_old_name(seed: int, keep_state: bool) -> None:
    with scenario(seed, nodes=6, weather=Weather(loss=0.02)) as mesh:
        mover = mesh.nodes[1 + seed % 5]
        mesh.world.crash(mover)
        mesh.run(0.3 if seed % 2 else 10.0)  # unnoticed, and given up
        mesh.world.move(mover, address_of(mover.index, network=7))
        mesh.world.boot(mover, keep_state=keep_state)
        mesh.settle()  # sees that everybody has it at its new address
        for node in mesh.everyone_but(mover):
            seen = [
                event for _, event in node.history if event in (MemberChanged(mover.name), MemberReturned(mover.name, mover.generation))
            ]
            assert seen


@some_seeds
def test_udp_that_is_blocked_while_tcp_is_open_kills_nobody(seed: int) -> None:
    with scenario(seed, nodes=6) as mesh:
        walled = mesh.nodes[seed % 6]
        wall(mesh, walled)
        mesh.world.offer(walled, "models/1", b"loaded behind the wall")
        mesh.run(40.0)
        assert [died(node) for node in mesh.nodes] == [[]] * 6
        for node in mesh.nodes:
            assert node.mesh is not None
            assert node.mesh.counters.probes_by_stream > 0
        mesh.world.heal()
        mesh.settle()


def wall(mesh: Scenario, walled: SimulatedNode) -> None:
    for node in mesh.everyone_but(walled):
        mesh.world.cut(walled.index, node.index, what="datagrams")
        mesh.world.cut(node.index, walled.index, what="datagrams")


@some_seeds
def test_who_is_suspected_behind_such_a_wall_hears_of_it_over_tcp_and_refutes(seed: int) -> None:
    with scenario(seed, nodes=4) as mesh:
        walled, accused = mesh.nodes[seed % 4], mesh.nodes[(seed + 1) % 4]
        wall(mesh, walled)
        mesh.world.pause(accused)
        while mesh.status(walled, accused) != "suspect":
            mesh.run(0.1)
        mesh.world.resume(accused)
        mesh.run(5.0)
        assert died(walled) == []
        assert mesh.status(walled, accused) == "alive"


@few_seeds
def test_a_rotation_of_keys_loses_nobody_but_who_was_away_and_him_until_he_has_the_key(seed: int) -> None:
    with scenario(seed, nodes=6, weather=Weather(loss=0.02), keyring=Keyring((KEY,))) as mesh:
        away = mesh.nodes[1 + seed % 5]
        mesh.world.crash(away)
        mesh.run(8.0)
        old = away.config
        rotate(mesh.world, NEW_KEY)
        mesh.run(6.0)
        assert all(node.mesh.config.keyring == Keyring((NEW_KEY,)) for node in mesh.nodes if node.mesh is not None)
        assert [died(node) for node in mesh.everyone_but(away)] == [[away.name]] * 5
        away.config = old
        mesh.world.boot(away)
        mesh.world.run(mesh.world.now + 20.0)
        assert away.mesh is not None
        assert list(mesh.world.view(away).members) == [away.name]
        assert mesh.nodes[0].mesh is not None
        assert mesh.nodes[0].mesh.counters.rejected["undecryptable"] > 0
        mesh.world.rekey(away, Keyring((NEW_KEY,)))
        mesh.settle()


@few_seeds
def test_a_node_that_stands_still_during_a_rotation_takes_part_in_it_afterwards(seed: int) -> None:
    with scenario(seed, nodes=5, keyring=Keyring((KEY,))) as mesh:
        paused = mesh.nodes[seed % 5]
        mesh.world.at(mesh.world.now + 1.0, partial(mesh.world.pause, paused))
        rotate(mesh.world, NEW_KEY)
        mesh.run(9.0)
        mesh.world.resume(paused)
        mesh.settle()

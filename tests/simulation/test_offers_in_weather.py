"""Catalogues in virtual time: in the end everyone sees the same offers, whatever the network does."""

from __future__ import annotations

from random import Random

from tests.simulation.scenario import every_seed, scenario, some_seeds

from maia.sim.weather import Weather

STORM = Weather(loss=0.1, duplication=0.05, reordering=0.2)


@every_seed
def test_catalogues_are_equal_in_the_end(seed: int) -> None:
    with scenario(seed, nodes=8, weather=STORM) as mesh:
        random = Random(seed)
        for _ in range(60):
            node = mesh.nodes[random.randrange(8)]
            mesh.world.offer(node, f"models/{random.randrange(4)}", random.randbytes(random.randrange(1, 900)))
            mesh.run(random.random() * 0.2)
        mesh.settle()


@every_seed
def test_a_late_joiner_sees_all_offers(seed: int) -> None:
    with scenario(seed, nodes=8, weather=Weather(loss=0.05)) as mesh:
        late = mesh.nodes[7]
        mesh.world.crash(late)
        mesh.run(8.0)
        for node in mesh.nodes[:7]:
            for number in range(10):
                mesh.world.offer(node, f"agents/{number}", bytes(200))
        mesh.run(1.0)
        late.offers = {"models/0": b"late"}
        mesh.world.boot(late)
        mesh.run(3.0)
        seen = mesh.world.view(late).members
        assert {node.name: dict(seen[node.name].offers) for node in mesh.nodes} == {node.name: node.offers for node in mesh.nodes}
        mesh.settle()


@some_seeds
def test_offers_too_big_for_packets_arrive_too(seed: int) -> None:
    with scenario(seed, nodes=6, weather=Weather(loss=0.05)) as mesh:
        for node in mesh.nodes:
            for number in range(3):
                mesh.world.offer(node, f"devices/{number}", bytes([number]) * 8000)
        mesh.settle()


@some_seeds
def test_a_change_is_known_to_everyone_within_half_a_second(seed: int) -> None:
    with scenario(seed, nodes=10) as mesh:
        mesh.run(5.0)
        owner = mesh.nodes[3]
        mesh.world.offer(owner, "models/1", b"just loaded")
        mesh.run(0.5)
        for node in mesh.nodes:
            assert mesh.world.view(node).members[owner.name].offers["models/1"] == b"just loaded"


def test_equal_catalogues_cost_no_repairs() -> None:
    with scenario(1, nodes=10) as mesh:
        mesh.run(10.0)
        pulls = [node.mesh.counters.pulls for node in mesh.nodes if node.mesh]
        mesh.run(60.0)
        assert [node.mesh.counters.pulls for node in mesh.nodes if node.mesh] == pulls

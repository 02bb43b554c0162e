"""A mesh that starts with everybody knowing everybody is one that has joined, but for the joining."""

from __future__ import annotations

from dataclasses import replace

from maia.sim.acquaintance import boot_acquainted
from maia.sim.oracle import Oracle
from maia.sim.world import SimulatedNode, World
from maia.view import MemberView


def seen_by(world: World, node: SimulatedNode) -> list[MemberView]:
    """What a node sees of everybody, but for when and why it came to see it."""
    return [replace(member, since_s=0.0, heard_s=0.0, history=()) for member in world.view(node).members.values()]


def test_who_starts_acquainted_sees_what_those_see_who_joined() -> None:
    joined, found = World(1, nodes=6), World(1, nodes=6)
    joined.boot_all()
    joined.run(3.0)
    boot_acquainted(found)
    for here, there in zip(joined.nodes, found.nodes, strict=True):
        assert here.mesh is not None
        assert there.mesh is not None
        assert seen_by(joined, here) == seen_by(found, there)
        assert here.mesh._catalogue.root == there.mesh._catalogue.root


def test_nobody_has_to_be_told_anything_after_it() -> None:
    oracle = Oracle()
    world = World(1, nodes=40, witness=oracle.witness)
    boot_acquainted(world)
    oracle.check_agreement(world)
    world.run(5.0)
    oracle.check_agreement(world)
    for node in world.nodes:
        assert node.mesh is not None
        assert {"offers", "suspect", "dead"}.isdisjoint(node.mesh.counters.datagrams_out)
        assert node.mesh.counters.rejected == {}


def test_its_crashes_are_noticed_and_its_changes_known() -> None:
    oracle = Oracle()
    world = World(2, nodes=12, witness=oracle.witness)
    boot_acquainted(world)
    world.run(1.0)
    world.crash(world.nodes[5])
    world.offer(world.nodes[3], "models/1", b"another")
    world.run(8.0)
    assert len(oracle.noticed_s) == 11
    oracle.check_agreement(world)

"""A mesh that is not born but found: everybody knows everybody, as after a long time together.

A thousand nodes that join one by one are a million introductions before anything can be measured. This reaches into each mesh, as nobody
else may, and leaves behind what those introductions would have left.
"""

from __future__ import annotations

from maia.core import Mesh
from maia.exchanges import push_pull_interval_s
from maia.membership.members import Member
from maia.sim.world import World
from maia.wire.offers import Entry
from maia.wire.tags import decode_tags


def boot_acquainted(world: World) -> None:
    """Start every node with all the others in its table, all offers in its catalogue, and its exchanges somewhere in their round."""
    meshes: list[Mesh] = []
    entries: list[Entry | None] = []
    for node in world.nodes:
        world.boot(node)
        assert node.mesh is not None
        node.offers.setdefault("models/0", f"model of {node.name}".encode())
        meshes.append(node.mesh)
        entries += [node.mesh._catalogue.offer(key, value) for key, value in node.offers.items()]
    known = [mesh._table.me.as_alive() for mesh in meshes]
    tags = [decode_tags(alive.meta, name=alive.node, gossip=alive.address) for alive in known]
    for index, (node, mesh) in enumerate(zip(world.nodes, meshes, strict=True)):
        now = node.read_clock(world.now)
        for other, alive in enumerate(known):
            if other != index:
                member = Member(alive, tags[other], now)
                mesh._table.add(member)
                mesh._catalogue.revive(member.name, member.generation, member.node_id)
        for entry in entries:
            if entry is not None:
                mesh._catalogue.accept(entry)
        mesh._push_pull_s = now + push_pull_interval_s(mesh.config.profile, len(meshes)) * world.random.random()
    assert len({mesh._catalogue.root for mesh in meshes}) <= 1, "who knows the same has the same root"

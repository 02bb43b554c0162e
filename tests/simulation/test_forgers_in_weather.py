"""A member that lies about what others offer: whatever it says, and to whom, nobody ever sees it."""

from __future__ import annotations

from functools import partial
from random import Random

from tests.simulation.scenario import LOSSY, Scenario, every_seed, scenario, some_seeds

from maia.catalogue.signature import signed
from maia.sim.world import SimulatedNode
from maia.wire.codec import encode
from maia.wire.messages import User
from maia.wire.offers import Entry, Listed, encode_entries, encode_listing

LIE = b"a model that nobody has"


def say(mesh: Scenario, liar: SimulatedNode, bodies: list[bytes]) -> None:
    """The liar sends this to everyone."""
    for node in mesh.nodes:
        if node is not liar:
            for body in bodies:
                mesh.world.slip(encode(User(body)), sender=liar, receiver=node)


def lie(mesh: Scenario, liar: SimulatedNode, random: Random) -> None:
    victim = mesh.nodes[random.randrange(len(mesh.nodes))]
    if victim is liar:
        return
    claim = Entry(victim.name, victim.generation + random.randrange(3), "models/0", random.randrange(1, 9), 0, LIE)
    own = signed(claim, signer=liar.config.signer, cluster_id="")
    borrowed = own._replace(signer=victim.config.signer.public_key)
    elsewhere = signed(claim, signer=victim.config.signer, cluster_id="another")
    say(mesh, liar, encode_entries([own, borrowed, elsewhere]))
    say(mesh, liar, encode_listing([Listed(victim.name, claim.generation, "models/0", 99, False)]))


def nobody_saw_it(mesh: Scenario) -> None:
    for observer in mesh.world.running():
        for member in mesh.world.view(observer).members.values():
            assert LIE not in member.offers.values(), f"{observer.name} believes a lie about {member.name}"


@every_seed
def test_what_a_member_forges_in_the_name_of_others_is_never_seen_and_keeps_nobody_from_agreeing(seed: int) -> None:
    with scenario(seed, nodes=6, weather=LOSSY) as mesh:
        random = Random(seed)
        liar = mesh.nodes[seed % 6]
        generations = [node.generation for node in mesh.nodes]
        for number in range(100):
            mesh.world.at(mesh.world.now + random.random() * 5.0, partial(lie, mesh, liar, random))
            if number % 10 == 0:
                owner = mesh.nodes[random.randrange(6)]
                mesh.world.at(mesh.world.now + random.random() * 5.0, partial(mesh.world.offer, owner, "models/1", b"%d" % number))
        for _ in range(25):
            mesh.run(0.2)
            nobody_saw_it(mesh)
        mesh.settle()
        assert [node.generation for node in mesh.nodes] == generations
        refused = [node.mesh.counters.rejected for node in mesh.nodes if node.mesh is not None and node is not liar]
        assert all(counted.get("other-signer", 0) and counted.get("bad-signature", 0) for counted in refused)


@some_seeds
def test_what_an_owner_said_earlier_is_not_brought_back_by_saying_it_again(seed: int) -> None:
    with scenario(seed, nodes=5, weather=LOSSY) as mesh:
        random = Random(seed)
        owner, replayer = mesh.nodes[seed % 5], mesh.nodes[(seed + 1) % 5]
        recorded: list[bytes] = []
        for number in range(6):
            mesh.world.offer(owner, "models/0", b"version %d" % number)
            said = Entry(owner.name, owner.generation, "models/0", number + 2, 0, b"version %d" % number)  # the first one is from the start
            recorded += encode_entries([signed(said, signer=owner.config.signer, cluster_id="")])
            mesh.run(0.3)
        mesh.settle()
        for _ in range(40):
            mesh.world.at(mesh.world.now + random.random() * 2.0, partial(say, mesh, replayer, random.sample(recorded[:-1], 3)))
        for _ in range(20):
            mesh.run(0.1)
            for observer in mesh.world.running():
                assert mesh.world.view(observer).members[owner.name].offers["models/0"] == b"version 5"


def test_the_liar_of_these_tests_says_what_would_be_believed_if_it_were_signed() -> None:
    with scenario(1, nodes=3) as mesh:
        victim, liar = mesh.nodes[1], mesh.nodes[2]
        claim = signed(Entry(victim.name, victim.generation, "models/0", 99, 0, LIE), signer=victim.config.signer, cluster_id="")
        (body,) = encode_entries([claim])
        mesh.world.slip(encode(User(body)), sender=liar, receiver=mesh.nodes[0])
        mesh.run(0.001)  # a moment later the victim hears of it, and overrules whoever has its key
        assert mesh.world.view(mesh.nodes[0]).members[victim.name].offers["models/0"] == LIE

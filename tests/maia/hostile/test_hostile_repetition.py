"""What was said once and is said again: recorded, repeated, out of order, hours later. Sealed gossip proves nothing about when."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from tests.maia.hostile.enemy import KEY, config_of, enemy, sealer, state_of, town
from tests.maia.keys import entry_of
from tests.maia.talk import config_of as config_in_talk
from tests.rig.eventually import eventually

from maia.core import Mesh
from maia.keyring import Keyring
from maia.view import MeshView
from maia.wire.codec import encode, pack
from maia.wire.messages import Alive, Dead, Suspect, User
from maia.wire.offers import encode_entries
from maia.wire.tags import encode_tags

HOURS_S = 3 * 3600.0


async def test_a_member_s_life_said_again_three_times_and_backwards_changes_nothing() -> None:
    async with town("a", "b", key=KEY) as there, enemy() as foe:
        member = replace(config_of("x", key=KEY), gossip=foe.address)
        entries = encode_entries([entry_of(member.name, 1, "models/0", version, 0, b"%d" % version) for version in (1, 2)])
        life = [
            encode(Alive(1, member.name, foe.address, encode_tags(member))),
            *(encode(User(body)) for body in entries),
            encode(Suspect(1, member.name, "b-abcdef")),
            encode(Alive(2, member.name, foe.address, encode_tags(member))),
            encode(Dead(2, member.name, member.name)),
        ]
        recorded = [sealer().seal(pack([message])) for message in life]
        await foe.flood(recorded, there.target)

        async def left() -> bool:
            known = there.target.view.members.get(member.name)
            return known is not None and known.status == "left"

        await eventually(left, 2.0, what="its life was heard to the end")
        before = there.target.view.members[member.name]
        await foe.flood(recorded * 3 + recorded[::-1], there.target)
        after = there.target.view.members[member.name]
        assert (after.status, after.incarnation, after.offers) == (before.status, before.incarnation, before.offers)
        await there.unharmed()


async def test_an_exchange_that_was_recorded_is_answered_again_and_revives_nobody() -> None:
    async with town("a", "b", key=KEY) as there, enemy() as foe:
        member = replace(config_of("x", key=KEY), gossip=foe.address)
        recorded = sealer().seal_stream(state_of(member))
        assert await foe.ask(recorded, there.target)
        foe.say(sealer().seal(encode(Dead(1, member.name, member.name))), there.target.address)

        async def left() -> bool:
            known = there.target.view.members.get(member.name)
            return known is not None and known.status == "left"

        await eventually(left, 2.0, what="it left")
        for _ in range(20):
            assert await foe.ask(recorded, there.target)
        assert there.target.view.members[member.name].status == "left"
        await there.unharmed()


def statuses(view: MeshView) -> dict[str, tuple[str, int, int]]:
    return {name: (member.status, member.incarnation, member.generation) for name, member in view.members.items()}


class Taped:
    """Two sealed meshes in virtual time, and everything that either ever sent."""

    def __init__(self) -> None:
        names = ("me-000000", "p1-000001")
        self.now = 0.0
        self.configs = [replace(config_in_talk(name, number=number), keyring=Keyring((KEY,))) for number, name in enumerate(names)]
        self.meshes = [Mesh(config, random=Random(number), now=0.0) for number, config in enumerate(self.configs)]
        self.tape: list[tuple[bytes, int]] = []  # and to whom

    def introduce(self) -> None:
        one, other = self.configs
        for mesh, config in zip(self.meshes, (other, one), strict=True):
            hello = Alive(config.incarnation, config.name, config.gossip, encode_tags(config))
            mesh.receive(sealer().seal(encode(hello)), sender=config.gossip, now=self.now)

    def run(self, seconds: float) -> None:
        end_s = self.now + seconds
        while self.now < end_s:
            self.now += 0.02
            for number, mesh in enumerate(self.meshes):
                if mesh.deadline() <= self.now:
                    mesh.tick(now=self.now)
                mesh.exchanges()
                mesh.events()
                for datagram in mesh.datagrams():
                    if datagram.target == self.configs[1 - number].gossip:
                        self.tape.append((datagram.payload, 1 - number))
                        self.meshes[1 - number].receive(datagram.payload, sender=self.configs[number].gossip, now=self.now)

    def replay(self, order: list[tuple[bytes, int]]) -> None:
        for payload, receiver in order:
            self.meshes[receiver].receive(payload, sender=self.configs[1 - receiver].gossip, now=self.now)


@pytest.mark.parametrize("backwards", [False, True], ids=["in-order", "backwards"])
def test_hours_later_everything_that_was_ever_said_may_be_said_again(*, backwards: bool) -> None:
    """A life with an accusation, a refutation, offers, a goodbye and a return under the same name; then all of it once more."""
    talk = Taped()
    talk.introduce()
    talk.run(2.0)
    talk.meshes[0].offer("models/0", b"first", now=talk.now)
    talk.run(1.0)
    talk.meshes[0].receive(sealer().seal(encode(Suspect(1, "me-000000", "p1-000001"))), sender=talk.configs[1].gossip, now=talk.now)
    talk.run(1.0)
    talk.meshes[0].offer("models/0", b"second", now=talk.now)
    talk.run(1.0)
    talk.meshes[0].leave(now=talk.now)
    talk.run(2.0)
    assert talk.meshes[1].view(now=talk.now).members["me-000000"].status == "left"
    incarnation = talk.meshes[0].view(now=talk.now).myself.incarnation
    talk.configs[0] = replace(talk.configs[0], incarnation=incarnation + 1, generation=2)
    talk.meshes[0] = Mesh(talk.configs[0], random=Random(9), now=talk.now)
    talk.introduce()
    talk.run(1.0)
    talk.meshes[0].offer("models/0", b"third", now=talk.now)
    talk.run(2.0)
    assert len(talk.tape) > 50
    talk.now += HOURS_S
    for mesh in talk.meshes:
        mesh.stalled(HOURS_S, now=talk.now)
    talk.run(1.0)
    before = [statuses(mesh.view(now=talk.now)) for mesh in talk.meshes]
    assert {status for status, _, _ in before[1].values()} == {"alive"}
    talk.replay(talk.tape[::-1] if backwards else list(talk.tape))
    assert [statuses(mesh.view(now=talk.now)) for mesh in talk.meshes] == before
    assert talk.meshes[1].view(now=talk.now).members["me-000000"].offers == {"models/0": b"third"}
    suspicions = talk.meshes[1].counters.suspicions
    talk.run(5.0)
    assert [statuses(mesh.view(now=talk.now)) for mesh in talk.meshes] == before
    assert talk.meshes[1].counters.suspicions == suspicions


def test_an_ack_that_was_recorded_does_not_keep_the_dead_alive() -> None:
    talk = Taped()
    talk.introduce()
    talk.run(3.0)
    acks = [(payload, receiver) for payload, receiver in talk.tape if receiver == 0]
    # From here on the other one is silent, and somebody plays its voice.
    talk.meshes[1].leave(now=talk.now)
    talk.meshes[1].datagrams()
    end_s = talk.now + 20.0
    while talk.now < end_s:
        talk.now += 0.02
        me = talk.meshes[0]
        if me.deadline() <= talk.now:
            me.tick(now=talk.now)
        me.datagrams()
        me.exchanges()
        me.events()
        talk.replay(acks[:10])
    assert talk.meshes[0].view(now=talk.now).members["p1-000001"].status == "dead"

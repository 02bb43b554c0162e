"""A mesh with keys: it says nothing in the clear, hears nothing in the clear, and follows a rotation."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from tests.maia.talk import config_of

from maia.core import Mesh
from maia.errors import DatagramRejected, MisuseError
from maia.keyring import Keyring
from maia.view import KeyReply, KeyringChanged
from maia.wire.codec import PACKET_BYTES_MAX, decode
from maia.wire.messages import PushPull
from maia.wire.seal import Sealer

OLD, NEW = b"o" * 16, b"n" * 32


def mesh_of(number: int, *keys: bytes) -> Mesh:
    config = config_of(f"n{number}-{number:06}", number=number)
    return Mesh(replace(config, keyring=Keyring(keys) if keys else None), random=Random(number), now=0.0)


def exchange(one: Mesh, other: Mesh) -> None:
    """`one` joins `other`, over bytes."""
    one.join([other.config.gossip], now=0.0)
    one.tick(now=0.0)
    (wanted,) = one.exchanges()
    request = other.decoder().feed(wanted.request)
    assert isinstance(request, PushPull)
    reply = one.decoder().feed(other.answer(request, now=0.0))
    assert isinstance(reply, PushPull)
    one.reply(wanted.number, reply, now=0.0)


def carry(one: Mesh, other: Mesh) -> list[bytes]:
    """What `one` has to say arrives at `other`."""
    packets = [packet.payload for packet in one.datagrams() if packet.target == other.config.gossip]
    for packet in packets:
        other.receive(packet, sender=one.config.gossip, now=0.1)
    return packets


def test_two_members_with_one_key_meet_and_nothing_that_they_say_can_be_read() -> None:
    one, other = mesh_of(1, OLD), mesh_of(2, OLD)
    exchange(one, other)
    packets = carry(one, other) + carry(other, one)
    assert packets
    for packet in packets:
        assert len(packet) <= PACKET_BYTES_MAX
        with pytest.raises(DatagramRejected):
            decode(packet)
        assert decode(Sealer(Keyring((OLD,)), random=Random(1)).open(packet)).messages
    assert one.counters.rejected == other.counters.rejected == {}
    assert other.view(now=0.1).members[one.config.name].usable


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"), [((OLD,), (), "plaintext"), ((), (OLD,), "sealed"), ((NEW,), (OLD,), "undecryptable")]
)
def test_who_has_other_keys_or_none_is_not_heard_and_counted_by_the_reason(
    ours: tuple[bytes, ...], theirs: tuple[bytes, ...], reason: str
) -> None:
    one, foreigner, friend = mesh_of(1, *ours), mesh_of(2, *theirs), mesh_of(3, *theirs)
    exchange(foreigner, friend)
    for number, packet in enumerate(foreigner.datagrams(), start=1):
        one.receive(packet.payload, sender=foreigner.config.gossip, now=0.1)
        assert one.counters.rejected == {reason: number}
    assert one.counters.datagrams_in > 0
    assert list(one.view(now=0.1).members) == [one.config.name]
    foreigner.join([one.config.gossip], now=1.0)
    foreigner.tick(now=1.0)
    (wanted,) = foreigner.exchanges()
    with pytest.raises(DatagramRejected) as refusal:
        one.decoder().feed(wanted.request)
    assert refusal.value.reason == reason


def test_a_rotation_loses_nothing_while_members_are_at_different_steps() -> None:
    one, other = mesh_of(1, OLD), mesh_of(2, OLD)
    exchange(one, other)
    for mesh, change in (
        (one, Keyring((OLD, NEW))),
        (other, Keyring((OLD, NEW))),
        (other, Keyring((NEW, OLD))),
        (one, Keyring((NEW, OLD))),
        (one, Keyring((NEW,))),
        (other, Keyring((NEW,))),
    ):
        mesh.use_keyring(change)
        assert (mesh.keyring, mesh.events()[-1]) == (change, KeyringChanged())
        for sender, receiver in ((one, other), (other, one)):
            sender.offer("models/0", bytes(str(change.keys), "ascii")[:8] + bytes([sender is one, len(sender.config.name)]), now=0.2)
            sender.tick(now=sender.deadline())
            carry(sender, receiver)
    assert one.counters.rejected == other.counters.rejected == {}
    assert one.config.keyring == other.config.keyring == Keyring((NEW,))


def test_a_mesh_that_began_in_the_clear_takes_no_keys() -> None:
    with pytest.raises(MisuseError, match="at the start"):
        mesh_of(1).use_keyring(Keyring((OLD,)))


def test_no_key_shows_in_what_a_configuration_says_of_itself() -> None:
    assert "ooo" not in repr(mesh_of(1, OLD).config)


def test_no_key_shows_in_what_a_reply_about_keys_says_of_itself() -> None:
    assert "secret" not in repr(KeyReply("a", ok=True, message="", keys=("secret",), primary="secret"))

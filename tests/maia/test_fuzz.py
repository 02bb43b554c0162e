"""Tens of thousands of datagrams that nobody should have sent, heard by a whole mesh: it goes on. `FUZZ_DATAGRAMS` says how many."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from pathlib import Path
from random import Random

import pytest
from tests.maia.talk import ME, Talk
from tests.maia.wire.test_codec import ONE_OF_EACH

from maia.config import Limits
from maia.errors import DatagramRejected
from maia.keyring import Keyring
from maia.wire.codec import encode, pack
from maia.wire.frames import StreamDecoder
from maia.wire.seal import Sealer

DATAGRAMS = int(os.environ.get("FUZZ_DATAGRAMS", "20000"))
GOLDEN = {path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "wire" / "golden").glob("*.json"))}
KEY = base64.b64decode(GOLDEN["aes256"]["key"])
LIMITS = Limits(members_max=64, departed_max=16)


def golden(kind: str, name: str = "plain") -> list[bytes]:
    return [bytes.fromhex(text) for text in GOLDEN[name][kind]]


def mutation(original: bytes, random: Random) -> bytes:
    """A few bytes changed, taken out, put in or doubled; one in ten has nothing to do with it."""
    if random.random() < 0.1:
        return random.randbytes(random.randrange(1500))
    data = bytearray(original)
    for _ in range(random.randrange(1, 5)):
        at = random.randrange(len(data) + 1)
        match random.randrange(5):
            case 0 if data:
                data[at % len(data)] = random.randrange(256)
            case 1 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 2:
                del data[at : at + random.randrange(8)]
            case 3:
                data[at:at] = random.randbytes(random.randrange(8))
            case _:
                data[at:at] = data[: random.randrange(64)]
    return bytes(data)


def assaulted(talk: Talk, datagrams: list[bytes], count: int, random: Random, *, sealer: Sealer | None = None) -> None:
    """`talk` hears mutations of `datagrams`, sealed after they were mutated where a sealer is given, and lives on."""
    mesh = talk.mesh
    senders = [talk.address(name) for name in talk.peers] + [talk.config.gossip]
    heard = mesh.counters.datagrams_in
    for number in range(count):
        data = mutation(datagrams[random.randrange(len(datagrams))], random)
        talk.now += 0.001
        mesh.receive(sealer.seal(data) if sealer else data, sender=senders[random.randrange(len(senders))], now=talk.now)
        if mesh.deadline() <= talk.now:
            mesh.tick(now=talk.now)
        mesh.datagrams()
        mesh.exchanges()
        mesh.events()
        if number % 500 == 0:
            members = mesh.view(now=talk.now).members
            assert members[ME].status == "alive"
            assert len(members) <= LIMITS.members_max
    assert mesh.counters.datagrams_in == heard + count
    assert sum(mesh.counters.rejected.values()) > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_mesh_that_hears_nonsense_for_long_goes_on(seed: int) -> None:
    random = Random(seed)
    originals = [*golden("packets"), *(encode(message) for message in ONE_OF_EACH), pack([encode(message) for message in ONE_OF_EACH])]
    talk = Talk(peers=3, serf=True, limits=LIMITS)
    # Past the checksum as well, which would stop most of them.
    originals += [packet[5:] for packet in originals if packet[0] == 12]
    assaulted(talk, originals, DATAGRAMS // 4, random)


def test_a_sealed_mesh_changes_nothing_for_what_it_cannot_open() -> None:
    talk = Talk(serf=True, limits=LIMITS, keyring=Keyring((KEY,)))
    before = talk.mesh.view(now=0.0)
    # Mutations only: what a stock agent sealed with this key would be heard.
    changed = [bytes((packet[0], packet[1] ^ 1, *packet[2:])) for packet in golden("packets", "aes256")]
    assaulted(talk, changed, DATAGRAMS // 4, Random(3))
    assert list(talk.mesh.view(now=talk.now).members) == list(before.members)
    assert sorted(talk.mesh.counters.rejected) == ["plaintext", "undecryptable"]


def test_nonsense_that_a_member_sealed_is_survived_too() -> None:
    random = Random(4)
    sealer = Sealer(Keyring((KEY,)), random=random)
    talk = Talk(serf=True, limits=LIMITS, keyring=Keyring((KEY,)))
    assaulted(talk, [sealer.open(packet) for packet in golden("packets", "aes256")], DATAGRAMS // 4, random, sealer=sealer)


@pytest.mark.parametrize("name", ["plain", "aes128"])
def test_streams_of_nonsense_are_read_or_rejected(name: str) -> None:
    random = Random(5)
    key = base64.b64decode(GOLDEN[name]["key"])
    sealer = Sealer(Keyring((key,)), random=random) if key else None
    streams = golden("streams", name)
    for _ in range(DATAGRAMS // 10):
        with contextlib.suppress(DatagramRejected):
            StreamDecoder(sealer).feed(mutation(streams[random.randrange(len(streams))], random))

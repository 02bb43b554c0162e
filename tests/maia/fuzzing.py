"""Bytes that nobody should have sent, as many as one likes, heard by a whole mesh: `test_fuzz` sends thousands, the proof ten million.

Whatever the bytes are, only `DatagramRejected` may come of them, and what is rejected changes nothing: no member, no rumour, no answer.

    python -m tests.maia.fuzzing --datagrams 10000000 --out FILE      on all cores; the first that fails ends it, with its bytes
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random

from tests.maia.keys import entry_of
from tests.maia.talk import ME, Talk
from tests.maia.wire.test_codec import ONE_OF_EACH

from maia.config import Limits
from maia.core import Mesh
from maia.errors import DatagramRejected
from maia.keyring import Keyring
from maia.wire.codec import encode, pack
from maia.wire.frames import StreamDecoder, encode_push_pull
from maia.wire.messages import Alive, NodeState, PushPull, User
from maia.wire.offers import Listed, encode_entries, encode_exchange, encode_listing, encode_want
from maia.wire.seal import Sealer

WIRE = Path(__file__).parent / "wire" / "golden"
GOLDEN = {name: json.loads((WIRE / f"{name}.json").read_text()) for name in ("plain", "aes128", "aes256")}
KEY = base64.b64decode(GOLDEN["aes256"]["key"])
LIMITS = Limits(members_max=64, departed_max=16)
SHARE = 50_000  # for one mesh: then another one begins, with another seed
LOOK_EVERY = 500  # datagrams between two looks at all members


@dataclass(frozen=True, slots=True)
class Outcome:
    """`heard` things were sent, `rejected` of them as a whole."""

    kind: str
    seed: int
    heard: int
    rejected: int
    seconds: float


def golden(kind: str, name: str = "plain") -> list[bytes]:
    return [bytes.fromhex(text) for text in GOLDEN[name][kind]]


def own_offers() -> list[bytes]:
    """Maia's own messages, about a member that the mesh knows."""
    entry = entry_of("p1-000001", 1, "models/0", 3, 0, b"value")
    listed = encode_listing([Listed("p1-000001", 1, "models/0", 3, False)])
    bodies = [*encode_entries([entry, entry]), *listed, *encode_want([(ME, "models/0")]), b"\x81" + bytes(24)]
    return [encode(User(body)) for body in bodies]


def originals() -> list[bytes]:
    """Packets of stock agents and of our own, with their checksums and without, which would stop most mutations."""
    packets = [*golden("packets"), *(encode(message) for message in ONE_OF_EACH), *own_offers()]
    packets.append(pack([encode(message) for message in ONE_OF_EACH]))
    return packets + [packet[5:] for packet in packets if packet[0] == 12]


def streams() -> list[bytes]:
    alive = next(message for message in ONE_OF_EACH if isinstance(message, Alive))
    entry = entry_of("p1-000001", 1, "models/0", 3, 0, b"value")
    exchange = PushPull((NodeState(alive, 0), NodeState(alive, 2)), True, b"state", encode_exchange(bytes(12), [entry]))
    return [*golden("streams"), encode_push_pull(exchange)]


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


def noise(seed: int, count: int) -> Outcome:
    """Random bytes of every length, which a mesh in the clear has to look into."""
    random = Random(seed)
    talk = Talk(peers=3, serf=True, limits=LIMITS, seed=seed)
    return _assault("noise", seed, talk, count, random, make=lambda: random.randbytes(random.randrange(1500)))


def sense(seed: int, count: int) -> Outcome:
    """Real packets, changed."""
    random, packets = Random(seed), originals()
    talk = Talk(peers=3, serf=True, limits=LIMITS, seed=seed)
    return _assault("sense", seed, talk, count, random, make=lambda: mutation(packets[random.randrange(len(packets))], random))


def sealed_noise(seed: int, count: int) -> Outcome:
    """Packets that were sealed and changed after that: nobody who has the keys sent them."""
    random = Random(seed)
    packets = [bytes((packet[0], packet[1] ^ 1, *packet[2:])) for packet in golden("packets", "aes256")]
    talk = Talk(serf=True, limits=LIMITS, keyring=Keyring((KEY,)), seed=seed)
    return _assault("sealed-noise", seed, talk, count, random, make=lambda: mutation(packets[random.randrange(len(packets))], random))


def sealed_sense(seed: int, count: int) -> Outcome:
    """Packets that were changed and sealed after that: a member gone mad."""
    random, packets = Random(seed), originals()
    sealer = Sealer(Keyring((KEY,)), random=random)
    talk = Talk(serf=True, limits=LIMITS, keyring=Keyring((KEY,)), seed=seed)
    return _assault(
        "sealed-sense", seed, talk, count, random, make=lambda: sealer.seal(mutation(packets[random.randrange(len(packets))], random))
    )


def whole_streams(seed: int, count: int) -> Outcome:
    """Streams changed; what can still be read is answered."""
    random, real = Random(seed), streams()
    talk = Talk(peers=3, serf=True, limits=LIMITS, seed=seed)
    return _dialled("streams", seed, talk, count, make=lambda: mutation(real[random.randrange(len(real))], random))


def sealed_streams(seed: int, count: int) -> Outcome:
    """The same, half of them sealed by a member gone mad, half changed after they were sealed."""
    random, real = Random(seed), streams()
    sealer = Sealer(Keyring((KEY,)), random=random)
    talk = Talk(serf=True, limits=LIMITS, keyring=Keyring((KEY,)), seed=seed)

    def make() -> bytes:
        stream = real[random.randrange(len(real))]
        return sealer.seal_stream(mutation(stream, random)) if random.random() < 0.5 else mutation(sealer.seal_stream(stream), random)

    return _dialled("sealed-streams", seed, talk, count, make=make)


KINDS: tuple[Callable[[int, int], Outcome], ...] = (noise, sense, sealed_noise, sealed_sense, whole_streams, sealed_streams)


def carry_out(share: tuple[int, int, int]) -> Outcome:
    """One share of `shares`, in whatever process."""
    kind, seed, count = share
    return KINDS[kind](seed, count)


def shares(total: int) -> list[tuple[int, int, int]]:
    """(kind, seed, count) for `total` over all kinds; the slow kinds first, so that no core waits for the last one."""
    each = total // len(KINDS)
    counts = [SHARE] * (each // SHARE) + ([each % SHARE] if each % SHARE else [])
    return [(kind, seed, count) for kind in reversed(range(len(KINDS))) for seed, count in enumerate(counts, start=1)]


def _seen(mesh: Mesh, now: float) -> tuple[int, int]:
    return mesh.view(now=now).version, mesh.rumours_queued


def _still_well(mesh: Mesh, now: float) -> None:
    members = mesh.view(now=now).members
    assert members[ME].status == "alive"
    assert len(members) <= LIMITS.members_max


def _assault(kind: str, seed: int, talk: Talk, count: int, random: Random, *, make: Callable[[], bytes]) -> Outcome:
    """`talk` hears so many datagrams from its peers and from itself, and lives on."""
    mesh, began_s = talk.mesh, time.perf_counter()
    senders = [talk.address(name) for name in talk.peers] + [talk.config.gossip]
    heard, rejected = mesh.counters.datagrams_in, 0
    for number in range(count):
        data = make() or b"\xff"
        talk.now += 0.001
        before, refused = _seen(mesh, talk.now), mesh.counters.bytes_in_by_kind.get("rejected", 0)
        mesh.receive(data, sender=senders[random.randrange(len(senders))], now=talk.now)
        if mesh.counters.bytes_in_by_kind.get("rejected", 0) != refused:
            rejected += 1
            assert _seen(mesh, talk.now) == before, f"{data.hex()} was rejected and changed something"
            assert mesh.datagrams() == [], f"{data.hex()} was rejected and answered"
        if mesh.deadline() <= talk.now:
            mesh.tick(now=talk.now)
        mesh.datagrams()
        mesh.exchanges()
        mesh.events()
        if number % LOOK_EVERY == 0:
            _still_well(mesh, talk.now)
    assert mesh.counters.datagrams_in == heard + count
    return Outcome(kind, seed, count, rejected, time.perf_counter() - began_s)


def _dialled(kind: str, seed: int, talk: Talk, count: int, *, make: Callable[[], bytes]) -> Outcome:
    mesh, began_s, rejected = talk.mesh, time.perf_counter(), 0
    for number in range(count):
        talk.now += 0.001
        before = _seen(mesh, talk.now)
        decoder: StreamDecoder = mesh.decoder()
        try:
            request = decoder.feed(make())
            if request is not None:
                assert mesh.answer(request, now=talk.now)
        except DatagramRejected:
            rejected += 1
            assert _seen(mesh, talk.now) == before
        if mesh.deadline() <= talk.now:
            mesh.tick(now=talk.now)
        mesh.datagrams()
        mesh.exchanges()
        mesh.events()
        if number % LOOK_EVERY == 0:
            _still_well(mesh, talk.now)
    return Outcome(kind, seed, count, rejected, time.perf_counter() - began_s)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.maia.fuzzing", description="Nonsense for whole meshes, on all cores.")
    parser.add_argument("--datagrams", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    kinds: dict[str, dict[str, float]] = {}
    began_s = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for outcome in pool.map(carry_out, shares(arguments.datagrams)):
            of_kind = kinds.setdefault(outcome.kind, {"heard": 0, "rejected": 0, "cpu_seconds": 0.0})
            of_kind["heard"] += outcome.heard
            of_kind["rejected"] += outcome.rejected
            of_kind["cpu_seconds"] = round(of_kind["cpu_seconds"] + outcome.seconds, 2)
    seconds = time.monotonic() - began_s
    heard = sum(of_kind["heard"] for of_kind in kinds.values())
    figures = {"heard": heard, "seconds": round(seconds, 1), "per_second": round(heard / seconds), "processes": os.cpu_count()}
    arguments.out.write_text(json.dumps({**figures, "kinds": kinds}, indent=1) + "\n")
    print(f"{heard:,.0f} datagrams and streams in {seconds:.0f} s, {heard / seconds:,.0f} a second")


if __name__ == "__main__":
    main()

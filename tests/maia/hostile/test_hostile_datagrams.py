"""Datagrams that nobody who belongs here would send, to a real driver with members beside it: refused, counted, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import msgpack
import pytest
from tests.maia.fuzzing import mutation
from tests.maia.hostile.enemy import ENEMY_HOST, KEY, MIB, OTHER_KEY, config_of, enemy, resident_bytes, sealer, state_of, town
from tests.maia.keys import entry_of
from tests.maia.talk import ME, Talk
from tests.maia.wire.test_compress import compress
from tests.rig.eventually import eventually

from maia.config import Address, Limits
from maia.keyring import Keyring
from maia.wire.codec import decode, encode, pack
from maia.wire.messages import VSN, Ack, Alive, Dead, IndirectPing, Ping, Suspect, User
from maia.wire.offers import encode_entries
from maia.wire.tags import encode_tags

NOISE = 100_000
GROWTH_BYTES_MAX = 24 * MIB  # over both floods together; a mesh that kept every one of them would take more than a hundred
GOLDEN = [
    bytes.fromhex(packet)
    for path in sorted((Path(__file__).parents[1] / "wire" / "golden").glob("*.json"))
    for packet in json.loads(path.read_text()).get("packets", [])
]


def alive(**changes: object) -> bytes:
    """An introduction in which something is not as it should be."""
    fields = {"Incarnation": 1, "Node": "x-000000", "Addr": b"\x7f\x00\x09\x09", "Port": 7, "Meta": None, "Vsn": VSN, **changes}
    return b"\x04" + msgpack.packb(fields, use_bin_type=False)


def compressed(message: bytes) -> bytes:
    return b"\x09" + msgpack.packb({"Algo": 0, "Buf": compress(message, clears=True)}, use_bin_type=False)


def compound(*parts: bytes) -> bytes:
    return bytes((7, len(parts))) + b"".join(len(part).to_bytes(2, "big") for part in parts) + b"".join(parts)


# Unspecified, multicast and broadcast, in both families, and one of them mapped.
NOBODYS = [
    bytes(4), bytes(16), bytes(10) + b"\xff\xff" + bytes(4), b"\xe0\0\0\1", b"\xef\xff\xff\xff", b"\xff\x02" + bytes(13) + b"\1",
    b"\xff" * 4,
]  # fmt: skip
PING = encode(Ping(1, "", None, ""))
MALFORMED = [
    ("nothing", b"", "empty"),
    ("a label", b"\xf4\x03lab" + PING, "labelled"),
    ("a label and no more", b"\xf4", "labelled"),
    ("a type that does not exist", b"\xfe\x80", "unknown-type"),
    ("65,507 bytes", bytes(65_507), "too-long"),
    ("a ping cut short", PING[:-2], "bad-msgpack"),
    ("a compound cut short", compound(PING, PING)[:-5], "truncated"),
    ("a compound without lengths", b"\x07\xff\x00", "truncated"),
    ("compounds in compounds", compound(compound(compound(PING))), "too-deep"),
    ("a checksum of something else", b"\x0c\x00\x00\x00\x00" + PING, "bad-checksum"),
    ("deep msgpack", b"\x02" + b"\x91" * 5000, "bad-msgpack"),
    ("a list of four billion", b"\x02\xdd\xff\xff\xff\xff", "bad-msgpack"),
    ("a list instead of a map", b"\x02" + b"\xdc\x10\x00" + b"\x90" * 4096, "not-a-map"),
    ("a bomb", compressed(bytes(MIB)), "too-long"),
    ("a bomb in a checksum", pack([compressed(bytes(MIB)), PING]), "unknown-type"),
    ("compression in compression", compressed(compressed(PING)), "unknown-type"),
    ("a version of three bytes", alive(Vsn=b"\1\5\2"), "bad-versions"),
    ("no version", alive(Vsn=None), "bad-versions"),
    ("a name that is no text", alive(Node=b"\xff\xfe\xfd"), "bad-name"),
    ("a name with a line end", alive(Node="x\nroot logged in"), "bad-name"),
    ("a name of 129 bytes", alive(Node="x" * 129), "bad-name"),
    ("tags of 513 bytes", alive(Meta=b"m" * 513), "bad-bytes"),
    ("port 0", alive(Port=0), "bad-address"),
    ("port 65,536", alive(Port=65_536), "bad-number"),
    ("no address", alive(Addr=None), "bad-address"),
    ("an address of five bytes", alive(Addr=b"12345"), "bad-address"),
    *((f"the address {host.hex()}", alive(Addr=host), "bad-address") for host in NOBODYS),
    ("an address beyond loopback", alive(Addr=b"\x0a\0\0\1"), "stranger"),
    ("incarnation 2**32 - 1", alive(Incarnation=2**32 - 1), "hostile-incarnation"),
    ("incarnation 2**32", alive(Incarnation=2**32), "bad-number"),
    ("somebody told of by a stranger", alive(), "stranger"),
    ("a ping for another", encode(Ping(1, "somebody-else")), "ping-for-another"),
    ("a ping to be answered elsewhere", encode(Ping(1, "", Address("10.0.0.1", 53), "")), "beyond-loopback"),
    ("offers of a stranger", encode(User(b"\x81")), "stranger"),
]  # fmt: skip


async def test_what_nobody_would_send_is_counted_by_its_reason_and_changes_nothing() -> None:
    async with town("a", "b") as there, enemy() as foe:
        before = there.target.view.members
        for what, datagram, reason in MALFORMED:
            refused = there.rejected(reason)
            foe.say(datagram, there.target.address)
            await there.refuses(reason, times=refused + 1, what=f"{what}: {reason}")
            assert there.target.counters().rejected_from[reason] == foe.address
        after = there.target.view.members
        assert [(name, after[name].incarnation, after[name].offers) for name in after] == [
            (name, before[name].incarnation, before[name].offers) for name in before
        ]
        # What travelled beside a poisoned part was heard: pings, and they were answered.
        assert {type(message) for answer in foe.answers() for message in decode(answer).messages} == {Ack}
        await there.unharmed()


@pytest.mark.parametrize(
    ("what", "datagram", "reason"),
    [
        ("no key", encode(Suspect(1, "a-abcdef", "x")), "plaintext"),
        ("no key, and a ping", PING, "plaintext"),
        ("another key", sealer(OTHER_KEY).seal(encode(Suspect(1, "a-abcdef", "x"))), "undecryptable"),
        ("one bit changed", bytes((1, 1)) + sealer().seal(PING)[2:], "undecryptable"),
        ("cut short", sealer().seal(PING)[:-1], "undecryptable"),
        ("cut to nothing", sealer().seal(PING)[:20], "plaintext"),
        ("sealed under a label", b"\xf4\x03lab" + sealer().seal(PING, vouched=b"lab"), "labelled"),
        ("65,507 bytes", bytes(65_507), "too-long"),
    ],
)
async def test_without_the_key_nothing_is_heard(what: str, datagram: bytes, reason: str) -> None:
    async with town("a", "b", key=KEY) as there, enemy() as foe:
        foe.say(datagram, there.target.address)
        await there.refuses(reason, what=what)
        assert there.reasons() == [reason]
        assert there.target.view.myself.incarnation == 1, "an accusation was heard"
        assert foe.answers() == []
        await there.unharmed()


@pytest.mark.parametrize("key", [b"", KEY], ids=["open", "sealed"])
async def test_a_node_of_another_cluster_is_no_member_by_datagram_or_by_stream(key: bytes) -> None:
    async with town("a", "b", key=key, cluster_id="ours") as there, enemy() as foe:
        foreigner = replace(config_of("x", key=key, cluster_id="theirs"), gossip=foe.address)
        hello = encode(Alive(1, foreigner.name, foe.address, encode_tags(foreigner)))
        foe.say(sealer().seal(hello) if key else hello, there.target.address)
        await there.refuses("other-cluster")
        stream = state_of(foreigner)
        assert await foe.ask(sealer().seal_stream(stream) if key else stream, there.target) == b""
        await there.refuses("other-cluster", times=2)
        assert foreigner.name not in there.target.view.members
        await there.unharmed()


async def test_a_forged_incarnation_near_the_end_evicts_nobody() -> None:
    """Above 2**31 an accusation is refused; at it, its victim answers with one more, and is a member as before."""
    async with town("a", "b", "c", key=KEY) as there, enemy() as foe:
        victim = there.drivers[1]
        for incarnation in (2**32 - 1, 2**32 - 2, 2**31 + 1):
            for forged in (Suspect(incarnation, victim.view.me, "c-abcdef"), Dead(incarnation, victim.view.me, "c-abcdef")):
                for driver in there.drivers:
                    foe.say(sealer().seal(encode(forged)), driver.address)
        await there.refuses("hostile-incarnation", times=6)
        await there.unharmed()
        foe.say(sealer().seal(encode(Suspect(2**31, victim.view.me, "c-abcdef"))), victim.address)

        async def refuted() -> bool:
            seen = [driver.view.members[victim.view.me] for driver in there.drivers]
            assert [(member.status, member.incarnation) for member in seen] == [("alive", 2**31 + 1)] * 3
            return True

        await eventually(refuted, 2.0, what="everybody has the victim's answer")
        await there.unharmed()


@pytest.mark.parametrize(("signer", "reason"), [("mallory", "other-signer"), ("b-abcdef", "bad-signature")])
async def test_nobody_offers_in_another_s_name_not_even_with_the_gossip_key(signer: str, reason: str) -> None:
    async with town("a", "b", key=KEY) as there, enemy() as foe:
        member = replace(config_of("x", key=KEY), gossip=foe.address)
        foe.say(sealer().seal(encode(Alive(1, member.name, foe.address, encode_tags(member)))), there.target.address)
        genuine = entry_of("b-abcdef", 1, "models/0", 7, 0, b"mine", signer=signer)
        forged = genuine if signer == "mallory" else genuine._replace(value=b"theirs")
        for body in encode_entries([forged]):
            foe.say(sealer().seal(encode(User(body))), there.target.address)
        await there.refuses(reason)
        assert there.target.view.members["b-abcdef"].offers == {}
        # Who answers no ping is given up, as anybody would be; the others are not.
        assert there.target.view.members["b-abcdef"].status == "alive"


async def test_a_hundred_thousand_datagrams_of_noise_and_as_many_of_distorted_sense_leave_no_trace() -> None:
    random = Random(11)
    async with town("a", "b", "c", key=KEY) as there, enemy() as foe:
        await foe.flood((random.randbytes(random.randrange(1, 1400)) for _ in range(2000)), there.target)
        warm = resident_bytes()
        noise = await foe.flood((random.randbytes(random.randrange(1, 1400)) for _ in range(NOISE)), there.target)
        sense = await foe.flood((mutation(GOLDEN[random.randrange(len(GOLDEN))], random) or b"x" for _ in range(NOISE)), there.target)
        assert sum(there.target.counters().rejected.values()) >= noise + sense
        assert there.reasons() == ["plaintext", "undecryptable"] or there.reasons() == ["labelled", "plaintext", "undecryptable"]
        grown = resident_bytes() - warm
        print(f"grown by {grown / MIB:.1f} MiB")
        assert grown < GROWTH_BYTES_MAX
        assert foe.answers() == []
        await there.unharmed()


async def test_a_member_without_keys_outlives_the_same_noise() -> None:
    random = Random(12)
    async with town("a", "b", "c") as there, enemy() as foe:
        await foe.flood((random.randbytes(random.randrange(1, 1400)) for _ in range(NOISE // 5)), there.target)
        await there.unharmed()


async def test_pings_of_strangers_bring_back_no_more_than_they_cost() -> None:
    async with town("a", "b") as there, enemy() as foe:
        ping = encode(Ping(1, there.target.view.me))
        sent = await foe.flood([ping] * 2000, there.target)
        assert 0 < sum(map(len, foe.answers())) <= sent * len(ping)
        await there.unharmed()


def test_a_stranger_s_ping_is_not_answered_with_news_and_a_member_s_is() -> None:
    """Packets are filled with rumours, each told so often; who is no member would get twelve hundred bytes for fifty, and use them up."""
    talk = Talk(peers=20)
    for number in range(100):
        talk.hear(Ping(number, ME), sender=Address("10.9.9.9", 9))
    assert {type(message) for _, target, message in talk.sent if target.host == "10.9.9.9"} == {Ack}
    talk.hear(Ping(1, ME), sender=talk.address("p1-000001"))
    told = list(talk.said(Alive, to="p1-000001"))
    assert len(told) > 3, "what was to be told to members is still there"


async def test_nobody_is_pinged_at_a_stranger_s_wish() -> None:
    async with town("a", "b") as there, enemy() as foe, enemy("127.0.9.10") as bystander:
        requests = [
            encode(IndirectPing(number, bystander.address, "x", True, bystander.address if number % 2 else None, ""))
            for number in range(500)
        ]
        await foe.flood(requests, there.target)
        await there.refuses("stranger", times=500)
        assert bystander.answers() == foe.answers() == []
        await there.unharmed()


async def test_invented_members_fill_their_room_and_no_more() -> None:
    limits = Limits(members_max=128, departed_max=16)
    async with town("a", "b", "c", key=KEY, limits=limits) as there, enemy() as foe:
        seal = sealer()
        member = config_of("x", key=KEY)

        def introductions() -> list[bytes]:
            # All from one address that is silent: whoever they are, they will be given up.
            names = [f"x{number}-abcdef" for number in range(3000)]
            return [encode(Alive(1, name, foe.address, encode_tags(replace(member, name=name)))) for name in names]

        sent = await foe.flood([seal.seal(datagram) for datagram in introductions()], there.target)
        assert there.rejected("too-many-members") >= sent - 2 * limits.members_max
        for driver in there.drivers:
            assert len(driver.view.members) <= limits.members_max
        names = {driver.view.me for driver in there.drivers}
        for driver in there.drivers:
            assert {name for name, known in driver.view.members.items() if known.status == "alive"} >= names


def test_the_words_of_this_file_are_what_a_member_would_take_for_good_if_they_were() -> None:
    """The table above is made of small faults: without them its packets are read."""
    assert decode(alive()).messages == [Alive(1, "x-000000", Address(ENEMY_HOST, 7))]
    assert decode(compressed(PING)).messages == decode(compound(compound(PING))).messages == decode(PING).messages
    assert decode(sealer().open(sealer().seal(PING))).messages
    assert Keyring((KEY,)).primary != OTHER_KEY


def test_a_node_on_the_network_is_not_talked_into_speaking_to_its_own_loopback() -> None:
    """What listens there, a database perhaps, trusts whoever comes from this machine."""
    talk = Talk(peers=1)
    inside = Address("127.0.0.1", 6379)
    talk.hear(Ping(1, ME, inside, "somebody"), sender=talk.address("p1-000001"))
    talk.hear(Alive(9, "x-000000", inside), sender=talk.address("p1-000001"))
    assert [target for _, target, _ in talk.sent if target == inside] == []
    assert talk.exchanges == []
    assert talk.mesh.counters.rejected == {"beyond-loopback": 2}

"""How busy others are: told with acks, believed for fifteen seconds, and never worth more than the ack itself."""

from __future__ import annotations

import msgpack
import pytest
from tests.maia.talk import Talk

from maia.catalogue.loads import LOAD_KEPT_S
from maia.config import LOAD_BYTES_MAX, Address
from maia.errors import MisuseError
from maia.view import LoadSeen
from maia.wire.codec import decode, encode
from maia.wire.messages import Ack, Dead, Ping

BUSY = bytes(range(LOAD_BYTES_MAX))


def probed(talk: Talk, name: str) -> Ping:
    """Silences a peer and waits until it is pinged."""
    talk.silent[name] = None
    talk.forget()
    talk.pass_time_until(lambda: talk.said(Ping, to=name))
    ping = talk.said(Ping, to=name)[-1]
    assert isinstance(ping, Ping)
    return ping


def test_an_ack_says_how_busy_a_node_is_to_members_of_ours_alone() -> None:
    talk = Talk(peers=1)
    talk.mesh.report_load(BUSY)
    peer = talk.address("p1-000001")
    stranger = Address("10.0.0.1", 9999)
    talk.hear(Ping(7, talk.config.name, peer, "p1-000001"), sender=peer)
    talk.hear(Ping(8, talk.config.name, stranger, "somebody"), sender=stranger)
    (to_peer,), (to_stranger,) = talk.said(Ack, to=peer), talk.said(Ack, to=stranger)
    assert (to_peer, to_stranger) == (Ack(7, b"", to_peer.root, BUSY), Ack(8))  # type: ignore[attr-defined]


def test_a_load_costs_an_ack_its_bytes_and_one_short_key() -> None:
    assert len(encode(Ack(7, b"", bytes(8), BUSY))) == len(encode(Ack(7, b"", bytes(8)))) + len("MaiaLoad") + LOAD_BYTES_MAX + 2


def test_what_a_probed_member_says_of_its_load_is_seen_and_forgotten_after_fifteen_seconds() -> None:
    talk = Talk(peers=1)
    ping = probed(talk, "p1-000001")
    talk.hear(Ack(ping.sequence, load=BUSY), sender=talk.address("p1-000001"))
    heard_s = talk.now
    del talk.silent["p1-000001"]
    talk.pass_time(heard_s + 2.0)
    assert talk.member("p1-000001").load == LoadSeen(BUSY, heard_s)
    talk.pass_time(heard_s + LOAD_KEPT_S - 1.5)
    assert talk.member("p1-000001").load is not None
    talk.pass_time(heard_s + LOAD_KEPT_S + 1.5)
    assert talk.member("p1-000001").load is None


def test_a_load_alone_makes_no_new_version_of_the_view_and_is_published_once_a_second() -> None:
    talk = Talk(peers=1)
    talk.pass_time(3.0)
    view = talk.mesh.view(now=talk.now)
    ping = probed(talk, "p1-000001")
    talk.hear(Ack(ping.sequence, load=BUSY), sender=talk.address("p1-000001"))
    assert talk.mesh.view(now=talk.now) is view
    del talk.silent["p1-000001"]
    talk.pass_time(talk.now + 1.5)
    later = talk.mesh.view(now=talk.now)
    assert later.version == view.version
    assert later.members["p1-000001"].load is not None


@pytest.mark.parametrize("load", [bytes(LOAD_BYTES_MAX + 1), 7, {"cpu": 1}, [1], None, "x" * 300], ids=repr)
def test_a_load_that_cannot_be_read_is_counted_and_its_ack_still_proves_life(load: object) -> None:
    talk = Talk(peers=1)
    ping = probed(talk, "p1-000001")
    acked = talk.mesh.counters.probes_acked
    encoded = b"\x02" + msgpack.packb({"SeqNo": ping.sequence, "Payload": None, "MaiaLoad": load}, use_bin_type=False)
    talk.mesh.receive(encoded, sender=talk.address("p1-000001"), now=talk.now)
    assert talk.mesh.counters.rejected == {"bad-load": 1}
    assert talk.mesh.counters.probes_acked == acked + 1
    del talk.silent["p1-000001"]
    talk.pass_time(talk.now + 1.5)
    assert talk.member("p1-000001").load is None


def test_what_somebody_who_is_no_member_says_of_its_load_is_counted_and_not_believed() -> None:
    talk = Talk(peers=2)
    ping = probed(talk, "p1-000001")
    talk.hear(Ack(ping.sequence, load=BUSY), sender=Address("10.0.0.1", 9999))
    assert talk.mesh.counters.rejected == {"stranger": 1}
    ping = probed(talk, "p1-000001")
    talk.hear(Ack(ping.sequence, load=BUSY), sender=talk.address("p2-000002"))
    talk.hear(Ack(99, load=BUSY), sender=talk.address("p2-000002"))
    talk.silent.clear()
    talk.pass_time(talk.now + 1.5)
    assert [talk.member(name).load for name in talk.peers] == [None, None]


def test_the_load_of_the_dead_is_forgotten_at_once() -> None:
    talk = Talk(peers=2)
    ping = probed(talk, "p1-000001")
    talk.hear(Ack(ping.sequence, load=BUSY), sender=talk.address("p1-000001"))
    talk.hear(Dead(1, "p1-000001", "p1-000001"), sender=talk.address("p1-000001"))
    assert talk.status("p1-000001") == "left"
    assert talk.member("p1-000001").load is None


def test_a_load_that_is_too_long_to_travel_is_refused_and_the_last_one_stays() -> None:
    talk = Talk(peers=1)
    talk.mesh.report_load(BUSY)
    with pytest.raises(MisuseError, match="25 bytes; at most 24"):
        talk.mesh.report_load(bytes(25))
    peer = talk.address("p1-000001")
    talk.hear(Ping(7, talk.config.name, peer, "p1-000001"), sender=peer)
    (ack,) = talk.said(Ack, to=peer)
    assert ack.load == BUSY  # type: ignore[attr-defined]


def test_an_ack_with_a_load_reads_back_as_it_was_written() -> None:
    ack = Ack(7, b"", b"rootroot", BUSY)
    assert decode(encode(ack)).messages == [ack]

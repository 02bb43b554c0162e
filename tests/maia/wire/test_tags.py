"""What a node says of itself in at most 200 bytes."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from tests.maia.keys import key_of

from maia.config import LAN, Address, MeshConfig
from maia.errors import DatagramRejected, MisuseError
from maia.wire.tags import TAGS_BYTES_MAX, Tags, decode_tags, encode_tags

GOSSIP = Address("10.0.0.1", 7946)
CONFIG = MeshConfig(
    name="kitchen-a1b2c3",
    title="kitchen",
    signer=key_of("kitchen"),
    generation=1_900_000_000,
    gossip=GOSSIP,
    api="10.0.0.1:8000",
    link=Address("10.0.0.1", 7947),
    role="inference",
    zone="home",
    cluster_id="9f8e7d6c",
    profile=LAN,
)


def read(config: MeshConfig) -> Tags | None:
    return decode_tags(encode_tags(config), name=config.name, gossip=config.gossip)


def test_tags_come_back_as_they_were_said() -> None:
    assert read(CONFIG) == Tags(
        node_id=CONFIG.node_id,
        title="kitchen",
        generation=1_900_000_000,
        cluster_id="9f8e7d6c",
        profile="lan",
        api="10.0.0.1:8000",
        link=Address("10.0.0.1", 7947),
        role="inference",
        zone="home",
    )


def test_a_title_that_is_not_in_the_name_and_addresses_elsewhere_come_back_too() -> None:
    config = replace(CONFIG, title="Küche", api="gateway.local:80", link=Address("fd00::1", 9))
    tags = read(config)
    assert tags is not None
    assert (tags.title, tags.api, tags.link) == ("Küche", "gateway.local:80", Address("fd00::1", 9))


def test_an_ipv6_node_names_only_the_ports_of_its_own_address() -> None:
    config = replace(CONFIG, gossip=Address("fd00::1", 7946), api="[fd00::1]:8000", link=Address("fd00::1", 7947))
    tags = read(config)
    assert tags is not None
    assert (tags.api, tags.link) == (config.api, config.link)
    assert encode_tags(config).count(b"fd00") == 0


def test_serf_can_read_them() -> None:
    meta = encode_tags(CONFIG)
    assert meta[0] == 0xFF
    fields = msgpack.unpackb(meta[1:], raw=True)
    assert all(type(key) is bytes and type(value) is bytes for key, value in fields.items())
    assert fields[b"role"] == b"inference"


def test_the_longest_usual_tags_fit_and_longer_ones_are_refused_with_what_mends_it() -> None:
    usual = replace(CONFIG, name="n" * 56 + "-a1b2c3", title="n" * 56, api="[fd00::1234:5678]:8000")
    assert len(encode_tags(usual)) <= TAGS_BYTES_MAX
    with pytest.raises(MisuseError, match="shorten its title, role or zone"):
        encode_tags(replace(CONFIG, zone="z" * 150))


@pytest.mark.parametrize("meta", [b"", b"role", b"\xff" + msgpack.packb({"role": "web"})])
def test_a_member_without_our_tags_is_a_stock_agent(meta: bytes) -> None:
    assert decode_tags(meta, name="stock", gossip=GOSSIP) is None


@pytest.mark.parametrize("generation", ["-1", "1.5", "9" * 17, "٣", str(2**53 + 1)])
def test_a_maia_node_with_an_unbelievable_generation_is_refused(generation: str) -> None:
    meta = b"\xff" + msgpack.packb({"maia": "1", "gen": generation}, use_bin_type=False)
    with pytest.raises(DatagramRejected, match="bad-tags"):
        decode_tags(meta, name="odd", gossip=GOSSIP)


@pytest.mark.parametrize("link", ["nonsense", ":0", ":70000", "host:"])
def test_a_link_that_is_no_address_is_no_link(link: str) -> None:
    meta = b"\xff" + msgpack.packb({"maia": "1", "link": link}, use_bin_type=False)
    tags = decode_tags(meta, name="odd", gossip=GOSSIP)
    assert tags is not None
    assert tags.link is None

"""The tags of a member: Serf's `ff` and a msgpack map of strings, at most 200 bytes, identity only.

What equals the default is left out, and a link or API address on the gossip host is only its port, so that tags stay small: they travel
with every alive message. A title is left out where the name is the title, "-" and six characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgpack

from maia.config import GENERATION_MAX, Address, MeshConfig
from maia.errors import DatagramRejected, MisuseError
from maia.wire.codec import read_map

META_MAGIC: Final = 0xFF
TAGS_BYTES_MAX: Final = 200
MAIA_PROTOCOL: Final = "1"
_HOST_AND_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]*)):([0-9]{1,5})")
_SUFFIX: Final = re.compile(r"-[A-Za-z0-9]{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What a Maia node says of itself in every alive message."""

    node_id: str
    title: str
    generation: int
    cluster_id: str
    profile: str
    api: str
    link: Address | None
    role: str
    zone: str


def encode_tags(config: MeshConfig) -> bytes:
    """The meta bytes of this node. Raises `MisuseError` over 200 bytes."""
    fields = {
        "maia": MAIA_PROTOCOL,
        "id": config.node_id,
        "gen": str(config.generation),
        "title": "" if config.title == _title_in(config.name) else config.title,
        "cluster": config.cluster_id,
        "profile": config.profile.name,
        "api": _shorten(config.api, config.gossip.host),
        "link": _shorten(str(config.link), config.gossip.host) if config.link else "",
        "role": config.role,
        "zone": config.zone,
    }
    packed = msgpack.packb({key: value for key, value in fields.items() if value}, use_bin_type=False)
    meta = bytes((META_MAGIC,)) + bytes(packed)
    if len(meta) > TAGS_BYTES_MAX:
        raise MisuseError(f"the tags of {config.name} need {len(meta)} bytes of {TAGS_BYTES_MAX}: shorten its title, role or zone")
    return meta


def decode_tags(meta: bytes, *, name: str, gossip: Address) -> Tags | None:
    """The tags in meta bytes; None for a member that is no Maia node. Raises `DatagramRejected` for a broken Maia node."""
    if not meta or meta[0] != META_MAGIC:
        return None
    try:
        fields = {key.decode(): value.decode() for key, value in read_map(meta[1:]).items()}
    except (AttributeError, UnicodeDecodeError) as error:
        raise DatagramRejected("bad-tags", name) from error
    if not fields.get("maia"):
        return None
    if not all(map(str.isprintable, fields.values())):
        raise DatagramRejected("bad-tags", name)
    generation = fields.get("gen", "0")
    if not (generation.isascii() and generation.isdigit()) or len(generation) > 16 or int(generation) > GENERATION_MAX:
        raise DatagramRejected("bad-tags", name)
    return Tags(
        node_id=fields.get("id", ""),
        title=fields.get("title") or _title_in(name),
        generation=int(generation),
        cluster_id=fields.get("cluster", ""),
        profile=fields.get("profile", ""),
        api=_lengthen(fields.get("api", ""), gossip.host),
        link=_parse(fields.get("link", ""), gossip.host),
        role=fields.get("role", ""),
        zone=fields.get("zone", ""),
    )


def _title_in(name: str) -> str:
    return name[:-7] if len(name) > 7 and _SUFFIX.fullmatch(name[-7:]) else name


def _own_prefix(host: str) -> str:
    return f"[{host}]:" if ":" in host else f"{host}:"


def _shorten(host_and_port: str, host: str) -> str:
    prefix = _own_prefix(host)
    return ":" + host_and_port[len(prefix) :] if host_and_port.startswith(prefix) else host_and_port


def _lengthen(host_and_port: str, host: str) -> str:
    return _own_prefix(host) + host_and_port[1:] if host_and_port.startswith(":") else host_and_port


def _parse(host_and_port: str, host: str) -> Address | None:
    found = _HOST_AND_PORT.fullmatch(host_and_port)
    if found is None or not 0 < int(found[3]) < 65_536:
        return None
    return Address(found[1] or found[2] or host, int(found[3]))

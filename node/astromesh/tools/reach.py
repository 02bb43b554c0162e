"""Which addresses a tool may call. Pure.

A model writes these calls, and whoever writes to the model has a hand in it. So what only this machine or its network can reach is out of
reach, unless the node's own configuration lists it: loopback, link-local (among it what a cloud tells its machines, 169.254.169.254),
private, and everything else that is no public unicast address.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from astromesh.specs.addresses import IpAddress, ListedAddress

# Where an IPv6 address stands for an IPv4 address that a gateway calls: NAT64 (RFC 6052).
_TRANSLATED = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Reach:
    """`listed`: what the node's configuration adds to public addresses. `hosts`: patterns of the hosts that the agent may name, or all."""

    listed: tuple[ListedAddress, ...] = ()
    hosts: tuple[str, ...] | None = None

    def names(self, host: str, port: int) -> bool:
        """Whether the agent may name that host at all."""
        host = host.lower().rstrip(".")
        return self.hosts is None or any(fnmatchcase(host, one) or fnmatchcase(f"{host}:{port}", one) for one in self.hosts)

    def permits(self, host: str, address: IpAddress, port: int) -> bool:
        """Whether this host, found at this address, may be called."""
        meant = _meant(address)
        return is_public(meant) or any(entry.covers(host, meant, port) for entry in self.listed)


def is_public(address: IpAddress) -> bool:
    """Global unicast, also behind the ways of writing IPv4 as IPv6."""
    address = _meant(address)
    if isinstance(address, IPv6Address) and (address.sixtofour is not None or address.teredo is not None or address.is_site_local):
        return False  # tunnels end at an IPv4 address that the packet itself names
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_loopback or address.is_link_local)


def _meant(address: IpAddress) -> IpAddress:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _TRANSLATED:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address

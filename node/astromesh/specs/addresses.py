"""Addresses that a node's configuration lists by hand: networks, hosts, single ports of them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

_NAME = re.compile(r"[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*", re.IGNORECASE)
_WITH_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>[0-9]{1,5})")


class BadAddress(ValueError):
    """Neither a network nor a host."""


@dataclass(frozen=True, slots=True)
class ListedAddress:
    """A network, or a host by its name, which may then be at any address. Without a `port`: all of them."""

    network: IpNetwork | None
    name: str  # in small letters; empty where there is a network
    port: int | None

    def covers(self, host: str, address: IpAddress, port: int) -> bool:
        """`host`: as it stands in the URL, a name or an address; `address`: what it was found to be."""
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address.version == self.network.version and address in self.network
        return host.lower().rstrip(".") == self.name


def listed_address(text: str) -> ListedAddress:
    """`10.0.0.0/8`, `10.0.0.5`, `10.0.0.5:8080`, `[fd00::1]:8080`, `tickets.internal`, `tickets.internal:8080`. Raises `BadAddress`."""
    text = text.strip()
    if "/" in text:
        return ListedAddress(_network(text), "", None)
    found = _WITH_PORT.fullmatch(text)
    host, port = (found["host"], int(found["port"])) if found else (text, None)
    if port is not None and not 1 <= port <= 65_535:
        raise BadAddress(f"{port} is no port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        return ListedAddress(ip_network(ip_address(host)), "", port)
    except ValueError:
        pass
    if _NAME.fullmatch(host) is None or host.replace(".", "").isdigit():
        raise BadAddress("this is neither a network, nor an address, nor the name of a host")
    return ListedAddress(None, host.lower(), port)


def _network(text: str) -> IpNetwork:
    try:
        return ip_network(text)
    except ValueError as mistake:
        raise BadAddress(str(mistake)) from None

"""`HOST:PORT` as people write it. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import urlsplit

API_PORT = 8000
GOSSIP_PORT = 7946
LOOPBACK = "127.0.0.1"

_HOST = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9_])?\.?")


class HostPort(NamedTuple):
    """Where to listen, or whom to reach: a name or an IP literal, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str, *, host: str, port: int) -> HostPort:
    """`HOST:PORT`, `HOST`, `PORT`, `:PORT`, `[IPV6]:PORT` or an IPv6 literal; `host` and `port` stand in for what is not said.

    Raises `ValueError` with a message that says what is wrong.
    """
    text = text.strip()
    if not text:
        raise ValueError("nothing is said; write HOST:PORT, HOST or PORT")
    if text.isascii() and text.isdigit():
        return HostPort(host, _port(text))
    if text.count(":") > 1 and not text.startswith("["):
        return HostPort(_host(text), port)
    if text.startswith("["):
        inside, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("the bracket around an IPv6 address is not closed before the port; write [::1]:8000")
        return HostPort(_host(inside), _port(rest[1:]) if rest else port)
    named, colon, number = text.partition(":")
    return HostPort(_host(named) if named else host, _port(number) if colon else port)


def parse_seed(text: str) -> HostPort:
    """A member to join by. `http://host:8000`, as other versions have it, names the host's API: its gossip is asked instead."""
    if "://" not in text:
        return parse_address(text, host=LOOPBACK, port=GOSSIP_PORT)
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write HOST:PORT of a member's gossip, or http://HOST:PORT of its API")
    return HostPort(_host(parts.hostname), GOSSIP_PORT)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535):
        raise ValueError(f"'{text[:20]}' is no port: write a number from 0 to 65535")
    return int(text)


def _host(text: str) -> str:
    if ":" in text:
        try:
            return str(ipaddress.IPv6Address(text))
        except ValueError:
            raise ValueError(f"'{text[:60]}' is no IPv6 address; write HOST:PORT or [IPV6]:PORT") from None
    if _HOST.fullmatch(text) is None:
        raise ValueError(f"'{text[:60]}' is no host; write a name or an IP address")
    return text
